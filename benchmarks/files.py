"""From image files to a store by every road beside the traced forward alone, and what the roads change.

    python benchmarks/files.py --out benchmarks/results/files.json --folder /tmp/files

Everything in one run. "roads": JPEG files like photographs (noise at many scales; some different ones,
copied) to a store, decoded by Pillow in worker processes ("cpu") or by nvJPEG beside the encoder ("gpu"), in
turns with `residual.trace` on pixels that are in memory already; then reading, decoding and resizing each
alone. Encoders are open_clip's with random weights, in bfloat16 on a GPU, with open_clip's own preprocessing.
"change": by how much pixels, features and accuracy differ between the roads. Without a GPU torchvision's
decoder on the CPU stands in for nvJPEG.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from common import parser_of, run_sections, seconds, spread
from PIL import Image
from torch import Tensor

import residual
from residual.data import ImageDataset, load_dataset
from residual.devices import find_device
from residual.encoders.encoder import Encoder
from residual.encoders.halves import Halves, halves_of
from residual.encoders.load import load_encoder, wrap_encoder
from residual.encoders.preprocess import OnWhite
from residual.intervals import paired_difference
from residual.store.decoding import decode_files, why_not
from residual.store.encoding import CPU, GPU
from residual.store.reading import read_pixels
from residual.text import ZeroShotClassifier

_CLASSES = 4
_SIZES = [(333, 500), (375, 500), (500, 375), (400, 400), (300, 450), (384, 512)]


def photograph(path: Path) -> None:
    """A JPEG with the detail of a photograph: noise at many scales, of a size that photographs have."""
    rng = np.random.default_rng(int(path.stem))
    height, width = _SIZES[int(path.stem) % len(_SIZES)]
    image = np.zeros((height, width, 3))
    for scale in (2, 4, 12, 40, 120):
        coarse = rng.integers(0, 255, (height // scale + 2, width // scale + 2, 3), np.uint8)
        image += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) / 5
    Image.fromarray(image.astype(np.uint8)).save(path, quality=94)


def photographs(folder: Path, distinct: int, count: int) -> ImageDataset:
    """`count` files of `distinct` different photographs."""
    shutil.rmtree(folder, ignore_errors=True)
    first = [folder / "made" / f"{number:05d}.jpg" for number in range(distinct)]
    first[0].parent.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(photograph, first, chunksize=8))
    for split, many in (("train", count), ("val", 2 * _CLASSES), ("test", 2 * _CLASSES)):
        for number in range(many):
            path = folder / "all" / split / f"class {number % _CLASSES}" / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(first[number % distinct], path)
    return load_dataset(f"folder:{folder / 'all'}", "train")


def encoder_of(model: str) -> Encoder:
    """An open_clip model with random weights and open_clip's own preprocessing."""
    device = find_device(None)
    made, _, transform = open_clip.create_model_and_transforms(model)
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    encoder = wrap_encoder(made.eval().to(device, precision), name=model, preprocess=OnWhite(transform))
    expected = halves_of(encoder.preprocess)
    if expected is None or expected.geometry is None:
        raise SystemExit(f"{model}: {transform} isn't known")
    return encoder


def known(encoder: Encoder) -> tuple[Halves, Any]:
    halves = halves_of(encoder.preprocess)
    if halves is None or halves.geometry is None:
        raise SystemExit(f"{encoder.name}: its preprocessing isn't known")
    return halves, halves.geometry


def batches_of(count: int, size: int) -> list[range]:
    return [range(at, min(at + size, count)) for at in range(0, count, size)]


def roads(options: argparse.Namespace) -> dict[str, Any]:
    """Images a second of each road from files to the store, and of its parts."""
    dataset = photographs(options.folder / "photographs", options.distinct, options.files)
    sizes = [os.path.getsize(path) for path in (options.folder / "photographs/made").iterdir()]
    found: dict[str, Any] = {
        "files": len(dataset),
        "different": options.distinct,
        "bytes_each": statistics.mean(sizes),
        "workers": options.workers,
        "batch": options.batch,
    }
    for model, batch in zip(options.models, options.batches, strict=True):
        encoder = encoder_of(model)
        found[model] = one_model(encoder, dataset, batch, options)
        print(json.dumps({model: found[model]}), flush=True)
        if model == options.models[0]:
            found["alone"] = alone(encoder, dataset, options)
            print(json.dumps(found["alone"]), flush=True)
        del encoder
    shutil.rmtree(options.folder / "photographs")
    return found


def one_model(
    encoder: Encoder, dataset: ImageDataset, size: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Forward alone and every road, taking turns."""
    place, side = options.folder / "store", (encoder.image_size or (224, 224))[0]
    count = min(len(dataset), options.forward)
    pixels = torch.randn(options.batch, 3, side, side).to(encoder.device, encoder.dtype)

    def forward() -> None:
        with torch.inference_mode():
            for batch in batches_of(count, options.batch):
                residual.trace(encoder, pixels[: len(batch)])

    why = why_not(encoder, dataset)
    ways = [CPU] if why else [CPU, GPU]
    times: dict[str, list[float]] = {name: [] for name in ("forward", *ways)}
    for way in ways:  # weights are hashed and kernels chosen once
        some = dataset.subset(range(min(len(dataset), options.batch)))
        shutil.rmtree(place, ignore_errors=True)
        residual.encode_dataset(encoder, some, place, batch_size=size, decode=way)
    seconds(forward)
    for _ in range(options.rounds):
        times["forward"].append(count / seconds(forward))
        for way in ways:
            shutil.rmtree(place, ignore_errors=True)
            how: dict[str, Any] = {"batch_size": size, "workers": options.workers, "decode": way}
            taken = seconds(lambda how=how: residual.encode_dataset(encoder, dataset, place, **how))
            times[way].append(len(dataset) / taken)
            print(encoder.name, {name: each[-1:] for name, each in times.items()}, flush=True)
    shutil.rmtree(place, ignore_errors=True)
    return {
        "images_per_second": {name: spread(each) for name, each in times.items()},
        "of_forward": {
            way: statistics.median([a / b for a, b in zip(times[way], times["forward"], strict=True)])
            for way in ways
        },
        "batch": size,
        "not_on_the_gpu": why,
    }


def alone(encoder: Encoder, dataset: ImageDataset, options: argparse.Namespace) -> dict[str, Any]:
    """Reading by each road without an encoder; decoding and resizing alone, of files in memory."""
    halves, geometry = known(encoder)
    count = min(len(dataset), options.forward)
    batches, device = batches_of(count, options.batch), encoder.device
    found: dict[str, Any] = {}
    for way in (CPU, GPU):
        taken = [
            seconds(lambda way=way: last(read_pixels(encoder, dataset, batches, options.workers, False, way)))
            for _ in range(2)
        ]
        found[f"reading, {way}"] = count / min(taken)
    contents = [dataset.load_or_file(at, lambda content: True)[0] for at in range(min(count, options.batch))]
    data, lengths = joined(contents)
    decoded = decode_files(data, lengths, device)
    pictures = [each for each in decoded if each is not None]

    drawn = geometry.drawn(pictures)
    parts: dict[str, Callable[[], Any]] = {
        "decoding": lambda: decode_files(data, lengths, device),
        "resizing": lambda: geometry.drawn(pictures),
        "normalising": lambda: halves.normalise(drawn).to(encoder.dtype),
    }
    for name, work in parts.items():
        work()
        found[f"{name} beside the encoder"] = len(pictures) / min(seconds(work) for _ in range(5))
    one = [dataset.load(at) for at in range(min(count, 64))]
    found["Pillow, one process"] = len(one) / seconds(lambda: [dataset.load(at) for at in range(len(one))])
    found["resizing, one process"] = len(one) / seconds(lambda: [halves.draw(each) for each in one])
    return found


def last(items: Iterator[Any]) -> None:
    for _ in items:
        pass


def joined(contents: Sequence[bytes]) -> tuple[Tensor, list[int]]:
    """Files as `decode_files` takes them."""
    data = torch.from_numpy(np.frombuffer(b"".join(contents), np.uint8).copy())
    return data, [len(each) for each in contents]


def change(options: argparse.Namespace) -> dict[str, Any]:
    """What decoding and resizing on the GPU changes, of pixels, features and accuracy."""
    found: dict[str, Any] = {}
    made = photographs(options.folder / "some", min(options.distinct, 64), min(options.distinct, 64))
    sets: dict[str, ImageDataset] = {"noise like photographs": made}
    real = real_photographs(options.folder / "real")
    if real is not None:
        sets["photographs in Python packages"] = real
    if options.cifar:
        sets["CIFAR-10"] = load_dataset(f"folder:{options.cifar}", "test")
    encoders = [load_encoder("picto", dtype=torch.float32)]
    if options.weights:
        encoders.append(load_encoder(f"hf:{options.weights}", dtype=torch.float32))
    for encoder in encoders:
        for name, dataset in sets.items():
            key = f"{Path(encoder.name.removeprefix('hf:')).name}, {name}"
            found[key] = changed(encoder, dataset)
            print(key, json.dumps(found[key]), flush=True)
        if options.cifar:
            key = f"{Path(encoder.name.removeprefix('hf:')).name}, CIFAR-10"
            found[key] |= accuracies(encoder, options)
            print(key, json.dumps(found[key]), flush=True)
    return found


def changed(encoder: Encoder, dataset: ImageDataset) -> dict[str, Any]:
    """Of 8-bit levels before normalisation, and of the encoder's output."""
    halves, geometry = known(encoder)
    largest, total, count, apart = 0, 0.0, 0, []
    some = dataset.sample(512)
    for batch in batches_of(len(some), 64):
        plain = torch.stack([halves.draw(some.load(at)) for at in batch]).to(encoder.device)
        contents = [some.load_or_file(at, lambda content: True)[0] for at in batch]
        decoded = decode_files(*joined(contents), encoder.device)
        both = zip(plain, decoded, strict=True)
        pairs = [(one, geometry.drawn([two])[0]) for one, two in both if two is not None]
        one, two = (torch.stack(each) for each in zip(*pairs, strict=True))
        gap = (one.int() - two.int()).abs()
        largest, total, count = max(largest, int(gap.max())), total + float(gap.sum()), count + gap.numel()
        with torch.inference_mode():
            old, new = (encoder.encode_image(halves.normalise(each)).float() for each in (one, two))
        apart += list(
            zip(
                ((old - new).norm(dim=1) / old.norm(dim=1)).tolist(),
                torch.cosine_similarity(old, new).tolist(),
                strict=True,
            )
        )
    errors, cosines = zip(*apart, strict=True)
    return {
        "images": len(apart),
        "levels": {"mean": total / count, "largest": largest},
        "features_relative_error": {"median": statistics.median(errors), "largest": max(errors)},
        "features_cosine": {"median": statistics.median(cosines), "least": min(cosines)},
    }


def accuracies(encoder: Encoder, options: argparse.Namespace) -> dict[str, Any]:
    """Of zero-shot, or of nearest class means of the train part, on the same pictures by both roads."""
    way = f"folder:{options.cifar}"
    tested = load_dataset(way, "test")
    sides: dict[str, Tensor] = {}
    for road in (CPU, GPU):
        outputs, truth = features(encoder, tested, road, options)
        if encoder.has_text:
            classifier = ZeroShotClassifier.from_text(encoder, tested.class_names, tested.templates)
        else:
            means, labels = features(encoder, load_dataset(way, "train"), road, options)
            classifier = ZeroShotClassifier.from_class_means(
                means, labels, tested.class_names, fingerprint=encoder.fingerprint
            )
        sides[road] = classifier.logits(outputs).argmax(1) == torch.as_tensor(truth)
    before, after = (sides[road].numpy() for road in (CPU, GPU))
    return {
        "tested": len(before),
        "accuracy": {road: float(each.float().mean()) for road, each in sides.items()},
        "difference": paired_difference(before, after)._asdict(),
        "made right": int((~before & after).sum()),
        "made wrong": int((before & ~after).sum()),
    }


def features(
    encoder: Encoder, dataset: ImageDataset, road: str, options: argparse.Namespace
) -> tuple[Tensor, np.ndarray]:
    parts = []
    with torch.inference_mode():
        batches = batches_of(len(dataset), options.batch)
        for read in read_pixels(encoder, dataset, batches, options.workers, False, road):
            parts += [encoder.encode_image(pixels).float().cpu() for pixels in read.pixels]
    return torch.cat(parts), np.asarray(dataset.labels)


def real_photographs(folder: Path) -> ImageDataset | None:
    """Those that scikit-learn, matplotlib and scikit-image bring along, as JPEGs; cut into quarters, too."""
    found: list[Path] = []
    for module in ("sklearn", "matplotlib", "skimage"):
        try:
            home = Path(str(__import__(module).__file__)).parent
        except ImportError:
            continue
        found += [path for path in sorted(home.rglob("*.jp*g")) if path.stat().st_size > 15_000]
        if module == "skimage":
            found += [path for path in sorted((home / "data").glob("*.png")) if path.stat().st_size > 15_000]
    shutil.rmtree(folder, ignore_errors=True)
    number = 0
    for path in found:
        whole = Image.open(path)
        if whole.mode != "RGB" or min(whole.size) < 200:
            continue
        wide, tall = whole.size
        boxes = [(0, 0, wide, tall), (0, 0, wide // 2, tall // 2), (wide // 2, 0, wide, tall // 2)]
        boxes += [(0, tall // 2, wide // 2, tall), (wide // 2, tall // 2, wide, tall)]
        for box in boxes:
            for split in ("train", "test"):
                kept = folder / split / f"class {number % 2}" / f"{number:04d}.jpg"
                kept.parent.mkdir(parents=True, exist_ok=True)
                if box == boxes[0] and path.suffix != ".png":
                    shutil.copyfile(path, kept)
                else:
                    whole.crop(box).save(kept, quality=90)
            number += 1
    return load_dataset(f"folder:{folder}", "test") if number > 1 else None


SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"roads": roads, "change": change}


def main() -> None:
    parser = parser_of(__doc__, SECTIONS)
    parser.add_argument("--folder", type=Path, required=True, help="on the disk that files and stores are on")
    parser.add_argument("--models", nargs="+", default=["ViT-L-14", "ViT-B-16"])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--distinct", type=int, default=512)
    parser.add_argument("--forward", type=int, default=10_240)
    parser.add_argument("--batch", type=int, default=256, help="of the forward alone, and of each part")
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 256], help="of each model's stores")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cifar", type=Path, help="a folder of pictures with train and test")
    parser.add_argument("--weights", type=Path, help="a folder of another encoder's, for hf:")
    options = parser.parse_args()
    run_sections(options, SECTIONS, options)


if __name__ == "__main__":
    main()
