"""Files as they should be, small ones of every kind that the library opens; hostile ones are made of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hubs
import numpy as np
import saved
import torch
import tuned
from datasets import ClassLabel, DatasetDict
from PIL import Image
from tiny import TinyImages, tiny_encoder

import residual
from residual.adapters import AdaptedEncoder, Coarse, Edited, LinearMap, ResiDual, UnitEdit, fine_tune
from residual.experiments.results import Results
from residual.spectral.fit import fit_bases, stream_moments
from residual.store import layout
from residual.store.base import Store
from residual.store.forward import Encoding
from residual.tensor_files import save_tensors

Files = dict[str, bytes]


def files_of(folder: Path) -> Files:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def store(at: Path) -> None:
    """Twenty pictures in three shards, one of which can't be read."""
    rows, layout.MOST_ROWS = layout.MOST_ROWS, 8
    encoder = tiny_encoder(dtype=torch.float32)
    residual.encode_dataset(encoder, TinyImages(20, broken=(3,)), at, on_error="skip", dtype="float32")
    layout.MOST_ROWS = rows


def picto_store(at: Path) -> None:
    """One that commands can do everything with."""
    letters = residual.load_dataset("letters", "val").sample(12)
    residual.encode_dataset(residual.load_encoder("picto", "cpu"), letters, at)


def adapter(at: Path, method: str = "residual") -> None:
    encoder = (
        residual.load_encoder("picto", "cpu") if method == "picto" else tiny_encoder(dtype=torch.float32)
    )
    data = residual.load_dataset("letters", "val").sample(12) if method == "picto" else TinyImages(20)
    stored = residual.encode_dataset(encoder, data)
    made = {
        "residual": lambda: ResiDual(fit_bases(stored, ("head", "mlp"), device="cpu")),
        "coarse": lambda: Coarse(fit_bases(stored, device="cpu")),
        "edited": lambda: edited(stored),
        "linear": lambda: LinearMap(encoder.output_dim),
        "picto": lambda: LinearMap(encoder.output_dim),
    }[method]()
    weights = torch.randn(
        len(data.class_names), encoder.output_dim, generator=torch.Generator().manual_seed(1)
    )
    classifier = residual.text.ZeroShotClassifier(weights, data.class_names)
    AdaptedEncoder(encoder, made, classifier).save_pretrained(at)


def edited(stored: Store) -> Edited:
    """A unit off and two components of another turned, on top of an adapter."""
    bases, none = fit_bases(stored, ("head", "mlp"), device="cpu"), torch.zeros(0, 12).double()
    unit = stored.linearization.units.named("1.2")
    rows, lambdas = bases["1.2"].components[0][:2].double(), torch.tensor([3.0, -1.0]).double()
    edits = [
        UnitEdit(2, 0.0, torch.ones(12).double(), none, none[:, 0]),
        UnitEdit(unit, 0.5, torch.ones(12).double(), rows, lambdas),
    ]
    return Edited(edits, "mean", ResiDual(bases, rank=2), 12, bases.origin)


def mask(at: Path) -> None:
    """What the explorer saves of the entry's store."""
    from entries import exploration

    state = {"off": ["1.2"], "weights": {"mlp.1": 0.5}, "lambdas": {"2.0": {"0": 3}}, "mode": "mean"}
    (at / "mask.json").write_bytes(exploration().save(state)[1])


def bases(at: Path) -> None:
    fit_bases(residual.encode_dataset(tiny_encoder(dtype=torch.float32), TinyImages(20)), device="cpu").save(
        at / "bases.safetensors"
    )


def moments(at: Path) -> None:
    encoder = tiny_encoder(dtype=torch.float32)
    stream_moments(encoder, TinyImages(20), Encoding("own", ("head",))).save(at / "part.moments")


def checkpoint(at: Path) -> None:
    """The folder of a fine-tuning that was stopped after its first epoch."""

    def stop(_: str, done: int, total: int) -> None:
        if done >= 1 and (at / "checkpoint.safetensors").exists():
            raise KeyboardInterrupt

    from entries import FIT

    from residual.adapters.fine_tuning import loop

    every, loop.SAVE_EVERY = loop.SAVE_EVERY, -1.0
    train, val = TinyImages(32, seed=0), TinyImages(16, seed=1, split="val")
    try:
        how = {"folder": at, "device": "cpu", "workers": 0, "progress": stop}
        fine_tune(tuned.encoder(), train, val, tuned.classifier(), FIT, **how)
    except KeyboardInterrupt:
        pass
    loop.SAVE_EVERY = every
    assert (at / "checkpoint.safetensors").exists(), list(at.iterdir())


def results(at: Path) -> None:
    import pandas as pd

    def note(cell: str) -> dict[str, Any]:
        datasets = {cell: {"name": cell, "split": "train", "samples": 4, "checksum": "00"}}
        about = {"experiment": "1_dimension", "cell": cell, "reference": "letters", "settings": {"limit": 4}}
        return {**about, "encoder": {"name": "tiny"}, "datasets": datasets}

    frame = pd.DataFrame({"unit": [0, 1, 2], "kind": ["emb", "mlp", "head"], "value": [0.25, 0.5, 0.75]})
    for cell in ("letters", "digits"):
        Results(at).write("tiny", cell, note(cell), frame)


def outputs(at: Path) -> None:
    save_tensors(
        at / "file.safetensors", "outputs", {"logits": torch.arange(12.0).reshape(3, 4)}, {"of": {"a": 1}}
    )


def picture(shade: int, kind: str = "PNG", size: tuple[int, int] = (9, 7), **how: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade % 256, 255 - shade % 256, 7)).save(buffer, kind, **how)
    return buffer.getvalue()


def folder(at: Path) -> None:
    for name in ("cat", "dog"):
        (at / "train" / name).mkdir(parents=True)
        (at / "test" / name).mkdir(parents=True)
        for number in range(5):
            (at / "train" / name / f"{number}.png").write_bytes(picture(10 * number))
            (at / "test" / name / f"{number}.png").write_bytes(picture(10 * number))


def listed(at: Path) -> None:
    """A folder of pictures with the manifest of a split."""
    folder(at)
    data = residual.load_dataset(f"folder:{at}", "train")
    residual.data.Manifest.of(data, contents=True).save(at / "manifest-train.json")


def shards(at: Path) -> None:
    """Two shards of webdataset with names and templates beside them."""
    (at / "shards").mkdir(parents=True)
    for number in range(2):
        with tarfile.open(at / "shards" / f"{number:03d}.tar", "w") as tar:
            for sample in range(10):
                for suffix, data in (("png", picture(12 * sample)), ("cls", b"%d" % (sample % 2))):
                    member = tarfile.TarInfo(f"{number}-{sample}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    (at / "shards" / "classnames.txt").write_text("red cat\nblue dog\n")
    (at / "shards" / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n{c}\n")


def table(at: Path) -> None:
    """What `save_to_disk` of the datasets library wrote."""
    kinds = {"label": ClassLabel(names=["cat", "dog"])}
    made = {split: hubs.table(np.arange(8) % 2, kinds) for split in ("train", "test")}
    DatasetDict(made).save_to_disk(at)


def repository(at: Path) -> None:
    """A clone of a repository of the hub: Parquet files, and a card that tells of them."""
    kinds = {"label": ClassLabel(names=["cat", "dog"])}
    hubs.write_repository(at, {split: hubs.table(np.arange(8) % 2, kinds) for split in ("train", "test")})


def texts(at: Path) -> None:
    (at / "texts.txt").write_text("a cat\na dog\nsomething red\n")
    (at / "texts.json").write_text(json.dumps(["a cat", "a dog"]))


def settings(at: Path) -> None:
    (at / "settings.gin").write_text("run.dataset = 'letters'\nFitSettings.epochs = 3\n")


def model(at: Path, kind: str = "hf") -> None:
    if kind == "hf":
        saved.transformers_folder("CLIPModel", at)
    elif kind == "open_clip":
        saved.open_clip_saved("tiny", at, as_file=False)
    else:
        saved.timm_saved(at, as_file=False, classifier=False)


EXAMPLES: dict[str, Callable[[Path], None]] = {
    "store": store,
    "picto_store": picto_store,
    **{
        f"adapter {kind}": lambda at, kind=kind: adapter(at, kind)
        for kind in ("residual", "coarse", "edited", "linear", "picto")
    },
    "mask": mask,
    "bases": bases,
    "moments": moments,
    "checkpoint": checkpoint,
    "results": results,
    "outputs": outputs,
    "folder": folder,
    "listed": listed,
    "shards": shards,
    "table": table,
    "repository": repository,
    "texts": texts,
    "settings": settings,
    **{f"model {kind}": lambda at, kind=kind: model(at, kind) for kind in ("hf", "open_clip", "timm")},
}


def made(name: str, folder: Path) -> SimpleNamespace:
    """An example: its files, made once in a folder."""
    at = folder / name.replace(" ", "-")
    at.mkdir(parents=True, exist_ok=True)
    EXAMPLES[name](at)
    return SimpleNamespace(folder=at, files=files_of(at))
