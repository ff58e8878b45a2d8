"""Images a second, traced and not: the same open_clip model in the same run, taking turns.

    python benchmarks/speed.py --out benchmarks/results/speed.json

"plain" is `model.encode_image` as open_clip has it; "traced" is `residual.tracing.trace`, which gives the raw
coordinates of the class token and the model's own output. Both under `torch.inference_mode`, on random pixels
that are on the card already. Weights are random: time doesn't depend on what they were trained on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import open_clip
import torch
from common import command, versions

from residual.devices import find_device
from residual.encoders.load import wrap_encoder
from residual.tracing.decompose import TOLERANCES
from residual.tracing.linearization import Linearization
from residual.tracing.trace import trace

MODELS = {"ViT-B/16": "ViT-B-16", "ViT-L/14": "ViT-L-14", "ViT-H/14": "ViT-H-14"}
PRECISIONS = ("bf16 weights", "bf16 autocast", "float32")


def timed(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Seconds a call, over `repeats` calls in a row."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def peak(work: Callable[[], Any], device: torch.device) -> int:
    """Bytes at the highest, weights and pixels included."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    _wait(device)
    return torch.cuda.max_memory_allocated()


def compare(
    ways: dict[str, Callable[[], Any]], batch: int, rounds: int, repeats: int, device: torch.device
) -> dict:
    """Median and range of images a second of each way; ways take turns within a round, so that the card's
    clock and heat are the same for all.
    """
    for work in ways.values():
        for _ in range(3):
            work()
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            seconds[name].append(timed(work, repeats, device))
    return {
        name: {
            "images_per_second": batch / statistics.median(times),
            "slowest": batch / max(times),
            "fastest": batch / min(times),
            "peak_bytes": peak(ways[name], device),
        }
        for name, times in seconds.items()
    }


def measure(
    model: str, precision: str, batch: int, options: argparse.Namespace, device: torch.device
) -> dict:
    torch.manual_seed(0)
    reference = open_clip.create_model(MODELS[model]).eval().to(device)
    pixels = torch.randn(batch, 3, *reference.visual.image_size, device=device)
    context = nullcontext
    if precision == "bf16 autocast":
        context = lambda: torch.autocast(device.type, torch.bfloat16)  # noqa: E731
    with torch.inference_mode():
        exact = reference.encode_image(pixels[: options.checked])
    dtype = torch.bfloat16 if precision == "bf16 weights" else torch.float32
    module = reference.to(dtype)
    pixels = pixels.to(dtype)
    encoder = wrap_encoder(module)

    def plain() -> torch.Tensor:
        with context():
            return module.encode_image(pixels)

    def traced() -> Any:
        with context():
            return trace(encoder, pixels)

    ways: dict[str, Callable[[], Any]] = {"plain": plain, "traced": traced}
    if options.compile:
        compiled = wrap_encoder(module).compile(**json.loads(options.compile))

        def traced_compiled() -> Any:
            with context():
                return trace(compiled, pixels)

        def plain_compiled() -> torch.Tensor:
            with context():
                return compiled.encode_image(pixels)

        ways |= {"plain compiled": plain_compiled, "traced compiled": traced_compiled}
    with torch.inference_mode():
        result = compare(ways, batch, options.rounds, options.repeats, device)
        errors = {}
        for name, work in ways.items():
            if name.startswith("traced"):
                coordinates, output = work()
                total = Linearization.of(encoder).output(coordinates)
                errors[name] = {
                    "sum_against_own_output": _miss(total, output.float()),
                    "sum_against_plain": _miss(total, plain().float()),
                    "sum_against_float32": _miss(total[: options.checked], exact),
                }
            else:
                errors[name] = {"output_against_float32": _miss(work().float()[: options.checked], exact)}
    for name, values in result.items():
        values |= errors[name]
        values["of_plain"] = values["images_per_second"] / result["plain"]["images_per_second"]
        values["memory_of_plain"] = values["peak_bytes"] / max(result["plain"]["peak_bytes"], 1)
        print(f"{model} {precision} {batch}: {name} {_line(values)}", flush=True)
    return {"model": model, "precision": precision, "batch": batch, "ways": result}


def _line(values: dict) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items())


def _miss(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def matmul_tflops(device: torch.device, size: int = 8192) -> float:
    """Of one bfloat16 product of two square matrices: what the card can do at best."""
    size = size if device.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * size**3 / timed(lambda: a @ b, 20, device) / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["ViT-B/16", "ViT-L/14"], choices=MODELS)
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS[:2]), choices=PRECISIONS)
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 256])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--checked", type=int, default=32, help="images compared with float32")
    parser.add_argument("--compile", default="", help='measure compiled too; options as JSON, such as "{}"')
    options = parser.parse_args()
    device = find_device(None)
    results = {
        "command": command(),
        "versions": versions(device),
        "matmul_bf16_tflops": matmul_tflops(device),
        "tolerances": {str(dtype).removeprefix("torch."): value for dtype, value in TOLERANCES.items()},
        "runs": [],
    }
    for model in options.models:
        for precision in options.precisions:
            for batch in options.batches:
                results["runs"].append(measure(model, precision, batch, options, device))
                options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
