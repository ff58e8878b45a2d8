"""Images a second of an adapted encoder beside the model's own forward pass: the same model in the same run.

    python benchmarks/adapted.py --out benchmarks/results/adapted.json
    python benchmarks/adapted.py --out benchmarks/results/adapted-cpu.json --sections picto

"plain" is the model's own image output; "ResiDual*" and "ResiDual" are `AdaptedEncoder.forward` without a
classifier, "… logits" with one. They take turns within a round. Section "picto" is the embedded encoder in
float32 on the CPU, on two cores; section "large" is open_clip's ViT-L/14 with random weights (time doesn't
depend on what they were trained on) in bfloat16 on the card, on random pixels that are on it already.
ResiDual* has bases of all heads with half of their components, everything else dropped; ResiDual has all
components of heads and MLPs, and keeps the embedding. `--small` rehearses "large" with a tiny model.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import open_clip
import torch
from common import parser_of, run_sections, spread
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from speed import timed
from torch import Tensor

from residual import AdaptedEncoder, load_encoder, wrap_encoder
from residual.adapters import ResiDual
from residual.devices import find_device
from residual.encoders.encoder import Encoder
from residual.spectral.bases import SpectralBases
from residual.text import ZeroShotClassifier
from residual.tracing.linearization import Linearization

CLASSES = 1000


def bases_of(encoder: Encoder, kinds: tuple[str, ...]) -> SpectralBases:
    """As many components as real bases have, in directions at random."""
    linearization = Linearization.of(encoder)
    table, dim = linearization.units.table, encoder.output_dim
    chosen = table[table["kind"].isin(kinds)]
    generator = torch.Generator().manual_seed(0)
    components = []
    for kind in chosen["kind"]:
        width = linearization.head_width if kind == "head" else linearization.width
        square = torch.randn(dim, min(width + 2, dim), generator=generator, dtype=torch.float64)
        components.append(torch.linalg.qr(square).Q.T)
    eigenvalues = [torch.linspace(2, 1, len(rows)) for rows in components]
    means = torch.randn(len(chosen), dim, generator=generator)
    return SpectralBases(chosen["unit"].tolist(), means, components, eigenvalues)


def ways_of(encoder: Encoder, pixels: Tensor) -> dict[str, Callable[[], Any]]:
    heads, both = bases_of(encoder, ("head",)), bases_of(encoder, ("mlp", "head"))
    half = [max(1, rank // 2) for rank in heads.ranks]
    adapters = {"ResiDual*": ResiDual(heads, half, others="zero"), "ResiDual": ResiDual(both)}
    names = [f"class {index}" for index in range(CLASSES)]
    classifier = ZeroShotClassifier(torch.randn(CLASSES, encoder.output_dim), names)
    ways: dict[str, Callable[[], Any]] = {"plain": lambda: encoder.encode_image(pixels)}
    for name, adapter in adapters.items():
        adapted = AdaptedEncoder(encoder, adapter, classifier, share=True)
        ways[name] = lambda adapted=adapted: adapted(pixels, logits=False)
        ways[f"{name} logits"] = lambda adapted=adapted: adapted(pixels)
    return ways


def compare(
    ways: dict[str, Callable[[], Any]], batch: int, rounds: int, repeats: int, device: torch.device
) -> dict[str, Any]:
    """Of each way the images a second, and the median over rounds of its time over plain's in that round."""
    with torch.inference_mode():
        for work in ways.values():
            for _ in range(3):
                work()
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            order = list(ways.items())
            for name, work in order if number % 2 else order[::-1]:
                seconds[name].append(timed(work, repeats, device))
    plain = seconds["plain"]
    found = {
        name: {
            "images_per_second": spread([batch / each for each in times]),
            "time_of_plain": spread([each / own for each, own in zip(times, plain, strict=True)]),
            "median_time_of_median_plain": statistics.median(times) / statistics.median(plain),
        }
        for name, times in seconds.items()
    }
    for name, values in found.items():
        print(
            f"{batch} {name}: {values['images_per_second']['median']:.5g} images a second, "
            f"{values['time_of_plain']['median']:.4f} of plain's time",
            flush=True,
        )
    return found


def picto(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(2)
    encoder = load_encoder("picto", device="cpu")
    runs = []
    for batch in options.picto_batches:
        pixels = torch.randn(batch, 3, *(encoder.image_size or ()))
        ways = compare(
            ways_of(encoder, pixels), batch, options.rounds, options.picto_repeats, torch.device("cpu")
        )
        runs.append({"batch": batch, "ways": ways})
    return {"device": "CPU", "threads": 2, "dtype": "float32", "runs": runs}


def large(options: argparse.Namespace) -> dict[str, Any]:
    device = find_device(None)
    torch.manual_seed(0)
    if options.small:
        vision = CLIPVisionCfg(image_size=32, patch_size=8, layers=4, width=64, head_width=16)
        text = CLIPTextCfg(context_length=8, vocab_size=32, width=16, heads=2, layers=1)
        model: Any = open_clip.CLIP(32, vision, text)
    else:
        model = open_clip.create_model("ViT-L-14")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    encoder = wrap_encoder(model.eval().to(device, dtype))
    runs = []
    for batch in options.batches:
        pixels = torch.randn(batch, 3, *(encoder.image_size or ()), device=device).to(dtype)
        ways = compare(ways_of(encoder, pixels), batch, options.rounds, options.repeats, device)
        runs.append({"batch": batch, "ways": ways})
    named = "tiny" if options.small else "ViT-L/14"
    return {"model": named, "dtype": str(dtype).removeprefix("torch."), "runs": runs}


SECTIONS = {"picto": picto, "large": large}


def main() -> None:
    parser = parser_of(__doc__, SECTIONS)
    parser.add_argument("--small", action="store_true", help="rehearse 'large' with a tiny model")
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 256], help="of 'large'")
    parser.add_argument("--picto-batches", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--repeats", type=int, default=10, help="calls in a row, of 'large'")
    parser.add_argument("--picto-repeats", type=int, default=5)
    options = parser.parse_args()
    run_sections(options, SECTIONS, options)


if __name__ == "__main__":
    main()
