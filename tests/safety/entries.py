"""What is done with files of others: the real commands and functions, each on a case's folder."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tuned
from tiny import TinyImages, random_pixels, tiny_encoder

import residual
from residual.cli import settings as cli_settings
from residual.data.manifest import Manifest
from residual.errors import ResidualError, UnreadableImageError
from residual.spectral.fit import fit_bases
from residual.spectral.unit_moments import UnitMoments
from residual.tensor_files import load_tensors

ENCODER = tiny_encoder(dtype=torch.float32)
TUNED = tuned.encoder()
PICTO = residual.load_encoder("picto", "cpu")
FIT = replace(tuned.FAST, epochs=2, patience=2)


class NotFiniteError(AssertionError):
    """Numbers that are none came through without a word."""


def settings(place: Path, reader: str = "run", params: list[str] | None = None, file: bool = True) -> str:
    """Settings files and `--param`."""
    files = [place / "settings.gin"] if file else []
    if reader == "run":
        got: Any = cli_settings.read_run_settings(files, params or [])
    elif reader == "train":
        got = cli_settings.read_train_settings(files, params or [])
    elif reader == "encode":
        got = cli_settings.read_encode_settings(files, params or [])
    else:
        got = cli_settings.read_describe_settings(files, params or [])
    return repr(got)[:1000]


def adapter(place: Path, given: bool = True) -> str:
    """An adapter's folder: loaded, used, and saved again."""
    from residual.adapters import AdaptedEncoder

    encoder = (
        (TUNED if json_of(place / "adapter_config.json", "method") == "fine_tuning" else ENCODER)
        if given
        else None
    )
    made = AdaptedEncoder.from_pretrained(place, encoder=encoder, device=None if given else "cpu")
    size = 32 if given else 64
    with torch.no_grad():
        output = made.encode_image(random_pixels(2, size, dtype=torch.float32))
        finite("the output of an adapter", output)
        if made.classifier is not None:
            finite("logits", made(random_pixels(2, size, dtype=torch.float32)))
    return digest(output, *(made.classifier.class_names if made.classifier else ()))


@cache
def exploration() -> Any:
    """Of a store in memory."""
    from residual.workflows.exploration import Exploration, Sources

    return Exploration(Sources(()), [residual.encode_dataset(ENCODER, TinyImages(20))], ENCODER)


def mask(place: Path) -> str:
    """A mask of units: read, and what it makes of a store."""
    from residual.workflows.exploration.saving import read_mask

    explored = exploration()
    state = explored.state(read_mask(place / "mask.json", explored.parts.store))
    told = explored.turning.sums(state)
    finite("outputs", told)
    return digest(told)


def store(place: Path) -> str:
    """A store: opened, verified, read whole and in parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = residual.ResidualStore.open(place)
    damages = opened.verify()
    if damages:
        shown = [str(each) for each in damages]
        if any("\n" in line for line in shown):
            raise AssertionError(f"a damage of several lines: {shown}")
        raise ResidualError(f"{len(damages)} damages: {shown[0]}")
    return read_store(opened)


def store_unverified(place: Path) -> str:
    """Only read: what `verify` would find is found by reading."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_store(residual.ResidualStore.open(place))


def read_store(opened: Any) -> str:
    whole = opened.contributions()
    read = opened.read()
    values = [getattr(read, name) for name in ("z", "mlp", "emb", "mean", "std")]
    bases = fit_bases(opened, device="cpu")
    made = digest(
        whole, opened.labels, opened.digests, *(value for value in values if value is not None), bases.means,
        *opened.sample_ids, opened.encoder_name, opened.dataset, *opened.class_names, *opened.reasons,
    )  # fmt: skip
    finite("bases", bases.means, *bases.components, *bases.eigenvalues)
    return made


def command(place: Path, words: list[str]) -> str:
    """A command of the command line; `{place}` stands for the case's folder."""
    from residual.cli import main

    sys.argv = ["residual", *(word.replace("{place}", str(place)) for word in words)]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    sys.stdout.flush()
    sys.stderr.flush()
    if code not in (0, None, 1, 2):
        raise AssertionError(f"exit code {code}")
    return str(code or 0)


def bases(place: Path) -> str:
    """A file of bases: loaded, and an adapter made of it."""
    made = residual.SpectralBases.load(place / "bases.safetensors")
    adapter = residual.ResiDual(made)
    if made.origin is not None:
        str(made.origin)
    finite("bases", made.means, *made.components, *made.eigenvalues)
    with torch.no_grad():
        finite("scores", adapter(torch.ones(2, len(ENCODER_UNITS), made.dim, dtype=adapter.lambdas.dtype)))
    return digest(made.means, *made.components, *made.eigenvalues, *map(str, made.units))


def moments(place: Path) -> str:
    """What a part of `--bases-only` leaves."""
    made = UnitMoments.load(place / "part.moments").compute()
    finite("bases", made.means, *made.components, *made.eigenvalues)
    return digest(made.means, *made.components, *made.eigenvalues)


def pictures(
    place: Path, dataset: str = "folder:{place}", split: str = "train", column: str | None = None
) -> str:
    """A dataset: loaded, and every picture encoded; what can't be read is left out and told."""
    columns = {} if column is None else {"image_column": column}
    data = residual.load_dataset(dataset.replace("{place}", str(place)), split, **columns)
    for text in (*data.class_names, *data.templates):
        text.encode()
    got = residual.encode_dataset(ENCODER, data, on_error="skip", batch_size=4)
    finite("outputs", got.contributions())
    for sample, reason in got.reasons.items():
        UnreadableImageError(sample, reason)
        told(reason)
    return f"{len(got)} of {len(data)}"


def names(place: Path) -> str:
    """Names of classes and templates: a classifier made of them, figures with them, a page and a line."""
    import pandas as pd

    from residual.report.figures import save_figure
    from residual.report.scoreboards import matrix_figure

    data = residual.load_dataset(f"wds:{place}/shards/{{000..001}}.tar", "train")
    few = list(data.class_names[:4])
    residual.text.ZeroShotClassifier.from_text(PICTO, few, data.templates[:2])
    values = pd.DataFrame(np.eye(len(few)), index=few, columns=few)
    save_figure(matrix_figure(values, "similarity", few[-1]), place, "figure")
    return str(len(data.class_names))


def manifest(place: Path) -> str:
    """The manifest of a split, beside a folder of pictures."""
    made = Manifest.load(place / "manifest-train.json")
    residual.load_dataset(f"folder:{place}", "train", manifest=place / "manifest-train.json")
    return made.checksum


def model(place: Path, name: str = "hf:{place}") -> str:
    """A folder of a model: loaded, a picture and a text encoded."""
    encoder = residual.load_encoder(name.replace("{place}", str(place)), "cpu")
    finite("contributions", residual.encode_dataset(encoder, TinyImages(2, size=70)).contributions())
    with torch.no_grad():
        if encoder.has_text:
            encoder.encode_text(["a red cat"])
    return encoder.fingerprint


def checkpoint(place: Path) -> str:
    """The folder of checkpoints of a fine-tuning that goes on."""
    from residual.adapters import fine_tune

    encoder = tuned.encoder()
    train, val = TinyImages(32, seed=0), TinyImages(16, seed=1, split="val")
    result = fine_tune(encoder, train, val, tuned.classifier(), FIT, folder=place, device="cpu", workers=0)
    weights = tuned.weights_of(encoder)
    finite("weights", *weights.values())
    return digest(*weights.values(), *(str(epoch) for epoch in result.history))


def results(place: Path) -> str:
    """Cells of an experiment, and what is kept of outputs."""
    from residual.experiments.results import read_results

    made = read_results(place)
    return digest(*(str(frame.to_dict()) for cells in made.values() for frame in cells.values()))


def tensors(place: Path, kind: str = "outputs") -> str:
    """Any file of tensors."""
    values, note = load_tensors(place / "file.safetensors", kind)
    return digest(*values.values(), json.dumps(note.get("of")))


def texts(place: Path) -> str:
    """A file of texts for a dictionary."""
    from residual.workflows.describe import checked_texts, read_texts

    return str(len(checked_texts(read_texts(str(place / "texts.txt")))))


ENCODER_UNITS = range(1 + 3 + 3 * 4)
ENTRIES = {
    each.__name__: each
    for each in (
        *(
            settings,
            adapter,
            mask,
            store,
            store_unverified,
            command,
            bases,
            moments,
            pictures,
            names,
            manifest,
            model,
        ),
        *(checkpoint, results, tensors, texts),
    )
}


def digest(*values: Any) -> str:
    total = hashlib.sha256()
    for value in values:
        data = str(value).encode(errors="backslashreplace")
        if isinstance(value, torch.Tensor):
            data = np.ascontiguousarray(value.detach().numpy()).tobytes()
        elif isinstance(value, np.ndarray):
            data = np.ascontiguousarray(value).tobytes()
        total.update(data)
    return total.hexdigest()


def finite(what: str, *values: torch.Tensor) -> None:
    for value in values:
        if value.dtype.is_floating_point and not value.isfinite().all():
            raise NotFiniteError(f"{what} that aren't finite come without a word")


def told(text: str) -> None:
    """What commands show is one line without anything that a terminal obeys."""
    if any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in text):
        raise AssertionError(f"control characters are shown: {text!r}")


def json_of(path: Path, name: str) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))[name]
    except Exception:
        return None


os.environ.setdefault("COLUMNS", "200")
