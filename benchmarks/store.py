"""Encoding to a store beside the traced forward pass alone, the loader alone, and bases from a store.

    python benchmarks/store.py --out benchmarks/results/store.json --folder /tmp/stores

Everything in one run: the encoder is open_clip's ViT-L/14 with random weights (time doesn't depend on what
they were trained on), in bfloat16 on a GPU. "forward" is `residual.trace` on batches of pixels that are in
memory; "store" is `residual.encode_dataset` of the same pixels to a store in `--folder`, opened afterwards
and read back; the two take turns. "loading" reads JPEG files of 500 by 375 pixels as the encoder takes them,
without it. "bases" are fitted in a process of their own, whose memory is counted whole.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from common import parser_of, run_sections, seconds, spread
from PIL import Image
from speed import MODELS

import residual
from residual.data import PixelDataset, load_dataset
from residual.devices import find_device
from residual.encoders.encoder import Encoder
from residual.encoders.load import wrap_encoder
from residual.store.encoding import Part
from residual.store.forward import Encoded
from residual.store.layout import Layout
from residual.store.manifest import identity_of
from residual.store.pieces import Pixels
from residual.store.reading import read_pixels
from residual.store.storage import Storage
from residual.store.writer import Writer, begin
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization


def dataset_of(encoder: Encoder, count: int, on: str) -> PixelDataset:
    """`count` different images of noise, in memory or on the card."""
    height, width = encoder.image_size or (224, 224)
    generator = torch.Generator(device=on).manual_seed(0)
    pixels = torch.empty(count, 3, height, width, dtype=encoder.dtype, device=on)
    for start in range(0, count, 256):
        part = pixels[start : start + 256]
        part.copy_(torch.randn(part.shape, generator=generator, device=on, dtype=encoder.dtype))
    return PixelDataset(pixels, np.zeros(count, np.int64), ["one class"])


def encoding(encoder: Encoder, options: argparse.Namespace) -> dict[str, Any]:
    """Images a second of the forward pass alone and of encoding to the store, from pixels on either side."""
    place = Path(options.folder) / "encoded"
    found: dict[str, Any] = {"batch": options.batch, "images": options.images}
    for on in dict.fromkeys([str(encoder.device), "cpu"]):
        dataset = dataset_of(encoder, options.images, on)
        alone, stored = [], []

        def forward(dataset: PixelDataset = dataset) -> None:
            with torch.inference_mode():
                for start in range(0, len(dataset), options.batch):
                    residual.trace(encoder, dataset.pixels[start : start + options.batch])

        def store(dataset: PixelDataset = dataset) -> None:
            residual.encode_dataset(encoder, dataset, place, batch_size=options.batch)

        with torch.inference_mode():
            residual.trace(encoder, dataset.pixels[: options.batch])
        for _ in range(options.rounds):
            alone.append(len(dataset) / seconds(forward))
            shutil.rmtree(place, ignore_errors=True)
            stored.append(len(dataset) / seconds(store))
        bare = disk_speed(Path(options.folder))
        kept = residual.ResidualStore.open(place)
        read = seconds(lambda kept=kept: [None for _ in kept.batches(512)])
        found[f"pixels on {on}"] = {
            "forward": spread(alone),
            "store": spread(stored),
            "store_of_forward": statistics.median(
                [one / other for one, other in zip(stored, alone, strict=True)]
            ),
            "disk_megabytes_per_second": bare,
            "read_back_images_per_second": len(kept) / read,
            "verify": {"seconds": seconds(lambda kept=kept: kept.verify()), "damages": len(kept.verify())},
            **size(place, kept),
        }
        print(json.dumps(found[f"pixels on {on}"]), flush=True)
        del dataset
    shutil.rmtree(place, ignore_errors=True)
    return found


def size(place: Path, kept: residual.ResidualStore) -> dict[str, Any]:
    """Bytes on the disk, and of the bare float16 coordinates."""
    files = {path: path.stat().st_size for path in place.rglob("*") if path.is_file()}
    first = kept.read(slice(0, 1))
    each = sum(2 * first.field(name)[0].numel() for name in ("z", "mlp", "emb"))
    linearization = (place / "linearization.safetensors").stat().st_size
    whole = sum(files.values())
    return {
        "bytes": whole,
        "bytes_of_float16_coordinates": each * len(kept),
        "of_float16_coordinates": whole / (each * len(kept)),
        "without_linearization": (whole - linearization) / (each * len(kept)),
        "bytes_of_float32_contributions": 4 * len(kept) * len(kept.units) * kept.linearization.output_dim,
    }


def disk_speed(folder: Path) -> float:
    """Megabytes a second that the disk takes for good, a file of 512 MB synchronised."""
    data, path = os.urandom(2**24), folder / "probe"
    start = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(32):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    taken = time.perf_counter() - start
    path.unlink()
    return 32 * len(data) / 1e6 / taken


def photograph(path: Path) -> None:
    """A JPEG with the detail of a photograph: noise at many scales."""
    rng = np.random.default_rng(int(path.stem))
    image = np.zeros((375, 500, 3))
    for scale in (4, 12, 40, 120):
        coarse = Image.fromarray(rng.integers(0, 255, (375 // scale + 2, 500 // scale + 2, 3), np.uint8))
        image += np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), float) / 4
    Image.fromarray(image.astype(np.uint8)).save(path, quality=90)


def loading(encoder: Encoder, options: argparse.Namespace) -> dict[str, Any]:
    """Images a second from JPEG files to pixels, by the number of workers; then to the store."""
    folder = Path(options.folder) / "photographs"
    paths = [folder / split / f"class {k % 4}" / f"{k:05d}.jpg" for split in ("train", "test") for k in range(
        options.photographs if split == "train" else 4)]  # fmt: skip
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(photograph, paths, chunksize=32))
    dataset = load_dataset(f"folder:{folder}", "train")
    batches = [range(a, min(a + options.batch, len(dataset))) for a in range(0, len(dataset), options.batch)]
    found: dict[str, Any] = {
        "images": len(dataset),
        "bytes_each": sum(path.stat().st_size for path in paths) / len(paths),
        "cores": len(os.sched_getaffinity(0)),
        "images_per_second": {},
    }
    for workers in options.workers:
        times = [
            seconds(
                lambda workers=workers: [None for _ in read_pixels(encoder, dataset, batches, workers, False)]
            )
            for _ in range(2)
        ]
        found["images_per_second"][str(workers)] = len(dataset) / min(times)
    place = Path(options.folder) / "from files"
    most = max(options.workers)
    taken = seconds(
        lambda: residual.encode_dataset(encoder, dataset, place, batch_size=options.batch, workers=most)
    )
    found["files_to_store_images_per_second"] = len(dataset) / taken
    shutil.rmtree(place)
    shutil.rmtree(folder)
    print(json.dumps(found), flush=True)
    return found


def bases(encoder: Encoder, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of `fit_bases` from a store of random coordinates, and of one plain SVD."""
    place = Path(options.folder) / "for bases"
    made = seconds(lambda: write_random(encoder, options.samples, place))
    device = encoder.device.type
    found: dict[str, Any] = {"samples": options.samples, "seconds_to_write": made, "device": device}
    store = residual.ResidualStore.open(place)
    for kinds in ("head", "head,mlp"):
        words = [sys.executable, "-c", _FIT, str(place), kinds, str(options.fits)]
        told = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        found[kinds] = {"seconds": spread(told["seconds"]), "peak_resident_megabytes": told["megabytes"]}
        print(kinds, told, flush=True)
    one = store.contributions(slice(0, 10_000), [len(store.units) - 1])[:, 0].to(encoder.device)
    torch.linalg.svd(one[:2000] - one[:2000].mean(0), full_matrices=False)
    found["seconds for one SVD of (10,000, d)"] = seconds(
        lambda: torch.linalg.svd(one - one.mean(0), full_matrices=False)
    )
    shutil.rmtree(place)
    return found


_FIT = """
import json, re, sys, time
import torch
import residual
if torch.cuda.is_available():
    torch.zeros(1, device="cuda")
store, times = residual.ResidualStore.open(sys.argv[1]), []
for _ in range(int(sys.argv[3])):
    start = time.perf_counter()
    residual.fit_bases(store, sys.argv[2].split(","))
    times.append(time.perf_counter() - start)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e3
print(json.dumps({"seconds": times, "megabytes": peak}))
"""


def write_random(encoder: Encoder, samples: int, place: Path) -> None:
    """A store of images of noise; on a CPU, where encoding them takes hours, of random coordinates."""
    if encoder.device.type == "cuda":
        residual.encode_dataset(encoder, dataset_of(encoder, samples, "cuda"), place, batch_size=256)
        return
    dataset = PixelDataset(torch.zeros(samples, 1, 1, 1).expand(-1, 3, 1, 1), np.zeros(samples, int), ["one"])
    linearization = Linearization.of(encoder)
    kinds = ("emb", "mlp", "head")
    layout = Layout.of(linearization, None, kinds, samples, "float16")
    what = identity_of(encoder, dataset, "own", kinds, "float16")
    begun = begin(Storage(place), None, what, dataset, linearization, layout, Part(1, 1), "own")
    writer = Writer(begun.storage, begun.manifest, begun.lacks)
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(2**26, generator=generator).half()
    for start in range(0, samples, 256):
        count = min(256, samples - start)
        fields = {}
        for name in ("z", "mlp", "emb", "mean", "std"):
            shape = (count, *layout.arrays[name].tail)
            at = int(torch.randint(len(numbers) - math.prod(shape), (1,), generator=generator))
            fields[name] = numbers[at : at + math.prod(shape)].view(shape)
        fields["mean"], fields["std"] = fields["mean"].float() / 10, fields["std"].float().abs() + 1
        positions = list(range(start, start + count))
        writer.add(Encoded(Pixels(positions, [], [0] * count), Coordinates(**fields)), lambda: None)
    writer.close()


def random_store(options: argparse.Namespace) -> tuple[Path, float]:
    """Such a store of `options.samples` by `options.model` with random weights, and the seconds it took."""
    device = find_device(None)
    model = open_clip.create_model(MODELS[options.model]).eval()
    encoder = wrap_encoder(model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32))
    place = options.folder / "store"
    shutil.rmtree(place, ignore_errors=True)
    return place, seconds(lambda: write_random(encoder, options.samples, place))


def hdf5(encoder: Encoder, options: argparse.Namespace) -> dict[str, Any]:
    """The same samples as a store, and as float32 contributions in one HDF5 file."""
    import h5py

    place, path = Path(options.folder) / "beside hdf5", Path(options.folder) / "contributions.h5"
    write_random(encoder, options.hdf5, place)
    store = residual.ResidualStore.open(place)
    with h5py.File(path, "w") as file:
        shape = (len(store), len(store.units), store.linearization.output_dim)
        array = file.create_dataset("contributions", shape, "float32", chunks=(128, 1, shape[2]))
        for start in range(0, len(store), 128):
            array[start : start + 128] = store.contributions(slice(start, start + 128)).numpy()
    found = {"samples": len(store), **size(place, store), "bytes_of_hdf5": path.stat().st_size}
    found["hdf5_of_store"] = found["bytes_of_hdf5"] / found["bytes"]
    path.unlink()
    shutil.rmtree(place)
    return found


def packing(encoder: Encoder, options: argparse.Namespace) -> dict[str, Any]:
    """Processor milliseconds for the files of one shard: ours, by zarr's sharding codec, and by that through
    zarrs (where it is installed); written whole, read whole, a layer of `z`, and one sample of that.
    """
    import zarr
    from zarr.codecs import Crc32cCodec

    layout = Layout.of(Linearization.of(encoder), None, ("emb", "mlp", "head"), 10**6, "float16")
    rng, folder = np.random.default_rng(0), Path(options.folder) / "packed"
    arrays = {name: array for name, array in layout.arrays.items() if name != "digest"}
    values = {
        name: rng.standard_normal((array.rows, *array.tail), np.float32).astype(array.dtype)
        for name, array in arrays.items()
    }
    storage = Storage(folder / "ours")
    found: dict[str, Any] = {"megabytes": sum(each.nbytes for each in values.values()) / 1e6}

    def least(work: Callable[[], object]) -> float:
        times = []
        for _ in range(20):
            start = time.process_time()
            work()
            times.append(1e3 * (time.process_time() - start))
        return min(times)

    def write() -> None:
        for name, array in arrays.items():
            (folder / f"ours/{name}").write_bytes(array.pack(values[name]))

    def read(names: Sequence[str], rows: int, layers: Sequence[int] | None = None) -> None:
        for name in names:
            with storage.reader(name) as part:
                arrays[name].unpack(part, storage.size(name) or 0, range(rows), layers)

    (folder / "ours").mkdir(parents=True, exist_ok=True)
    found["ours"] = {
        "write": least(write),
        "whole": least(lambda: read(list(arrays), layout.rows)),
        "layer": least(lambda: read(["z"], layout.rows, [5])),
        "sample of a layer": least(lambda: read(["z"], 1, [5])),
    }
    for pipeline in ("zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline"):
        try:
            import_module(pipeline.rpartition(".")[0])
        except ImportError:
            continue
        with zarr.config.set({"codec_pipeline.path": pipeline}):
            group: Any = zarr.create_group(folder / pipeline, zarr_format=3, overwrite=True)
            others = {
                name: group.create_array(
                    name,
                    shape=(array.rows, *array.tail),
                    dtype=array.dtype,
                    shards=(array.rows, *array.tail),
                    chunks=array.chunk,
                    compressors=[Crc32cCodec()],
                    config={"write_empty_chunks": True},
                )
                for name, array in arrays.items()
            }

            def write_others(others: dict[str, Any] = others) -> None:
                for name, each in others.items():
                    each[...] = values[name]

            found[pipeline] = {
                "write": least(write_others),
                "whole": least(lambda others=others: [each[...] for each in others.values()]),
                "layer": least(lambda others=others: others["z"][:, 5]),
                "sample of a layer": least(lambda others=others: others["z"][0, 5]),
            }
    shutil.rmtree(folder)
    print(json.dumps(found), flush=True)
    return found


SECTIONS: dict[str, Callable[[Encoder, argparse.Namespace], dict[str, Any]]] = {
    "encoding": encoding,
    "loading": loading,
    "bases": bases,
    "hdf5": hdf5,
    "packing": packing,
}


def main() -> None:
    parser = parser_of(__doc__, SECTIONS, ["encoding", "loading", "bases"])
    parser.add_argument("--folder", type=Path, required=True, help="on the disk that stores are to be on")
    parser.add_argument("--model", default="ViT-L/14", choices=MODELS)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--images", type=int, default=10_240)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photographs", type=int, default=4_096)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--fits", type=int, default=3)
    parser.add_argument("--hdf5", type=int, default=10_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    device = find_device(None)
    model = open_clip.create_model(MODELS[options.model]).eval()
    encoder = wrap_encoder(model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32))
    run_sections(options, SECTIONS, encoder, options, model=options.model)


if __name__ == "__main__":
    main()
