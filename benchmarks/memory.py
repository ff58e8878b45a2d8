"""Memory and time of a step of fine-tuning: the whole batch, portions chosen from memory, blocks run again.

    python benchmarks/memory.py --out benchmarks/results/memory.json

The image towers of BLIP-large (384 pixels, 24 layers) and of CLIP's ViT-L/14 with random weights, batches of
128 and of 32 random pictures, classes of 10. "plain" asks for the whole batch, "within N GiB" chooses for a
card of so much, "blocks run again" keeps no activations within blocks. `peak_gib` is above what weights take;
`difference` of gradients is relative to those of "plain" (or of the portions that it ended with, where memory
ran out). `--small` rehearses.
"""

from __future__ import annotations

import argparse
import gc
import time
from typing import Any

import torch
from common import parser_of, run_sections
from lightning.fabric import Fabric
from torch import Tensor, nn

from residual import wrap_encoder
from residual.adapters.fine_tuning import gradients
from residual.adapters.fine_tuning.gradients import Gradients
from residual.adapters.fine_tuning.log import quiet
from residual.adapters.fine_tuning.memory import Portions
from residual.encoders.encoder import Encoder
from residual.text import ZeroShotClassifier

GIB = 2**30
CAPS = (24, 40, 80)  # GiB


def blip(small: bool) -> nn.Module:
    from transformers import BlipConfig, BlipForImageTextRetrieval

    width, layers, heads, pixels = (24, 3, 3, 32) if small else (1024, 24, 16, 384)
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    vision |= {"num_attention_heads": heads, "image_size": pixels, "patch_size": 16}
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": 64, "encoder_hidden_size": width, "pad_token_id": 0, "bos_token_id": 1}
    config = BlipConfig(
        text_config=text | {"sep_token_id": 2}, vision_config=vision, image_text_hidden_size=256
    )
    return BlipForImageTextRetrieval(config)


def clip(small: bool) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    width, layers, heads, pixels = (24, 3, 3, 28) if small else (1024, 24, 16, 224)
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
        image_size=pixels, patch_size=14, projection_dim=768,
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config)


def steps(options: argparse.Namespace, make: Any, precision: str) -> list[dict[str, Any]]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    encoder = wrap_encoder(make(options.small)).to(device)
    weights = list(encoder.image_parameters().values())
    for each in encoder.module.parameters():
        each.requires_grad_(False)
    for each in weights:
        each.requires_grad_()
    encoder.module.train()
    with quiet():
        fabric = Fabric(accelerator=device.type, devices=1, precision=precision)
    names = [f"class {number}" for number in range(10)]
    classifier = ZeroShotClassifier(torch.randn(10, encoder.output_dim), names).to(device)
    ways = {"plain": None, **{f"within {cap} GiB": cap for cap in CAPS}, "blocks run again": None}
    rows = []
    for batch in (10, 4) if options.small else (128, 32):
        pixels = torch.randn(batch, 3, *encoder.image_size, device=device)
        labels, plain = torch.arange(batch, device=device) % 10, None
        for way, cap in ways.items():
            made = Gradients(encoder, weights, classifier, fabric, None, lambda: None)
            if cap is None:
                made.batch, made.portions = batch, Portions(batch, way != "plain")
            else:
                _choose(made, pixels, cap * (1e-5 if options.small else 1), weights)
            row, found = _step(made, pixels, labels, encoder)
            plain = found if plain is None else plain
            difference = ((found - plain).norm() / plain.norm()).item()
            rows.append({"batch": batch, "precision": precision, "way": way, **row, "difference": difference})
            for each in weights:
                each.grad = None
            del made, found
            gc.collect()
    return rows


def _choose(made: Gradients, pixels: Tensor, cap: float, weights: list[Tensor]) -> None:
    held = torch.cuda.memory_allocated() if pixels.is_cuda else 0
    own, gradients.free_memory = gradients.free_memory, lambda device: int(cap * GIB) - held
    try:
        made.plan(pixels, len(pixels), 4 * sum(each.nbytes for each in weights))
    finally:
        gradients.free_memory = own


def _step(made: Gradients, pixels: Tensor, labels: Tensor, encoder: Encoder) -> tuple[dict[str, Any], Tensor]:
    """The best of two steps, and their gradients."""
    estimated, start, seconds = made.portions.estimated_bytes, 0, []
    if pixels.is_cuda:
        torch.cuda.empty_cache()
        start = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        begun = time.perf_counter()
        made.of(pixels, labels)
        if pixels.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() - start if pixels.is_cuda else 0
    found = torch.cat([each.grad.flatten().float().cpu() for each in made.weights if each.grad is not None])
    row = {"portions": str(made.portions), "estimated_gib": round(estimated / GIB, 2)}
    return row | {"peak_gib": round(peak / GIB, 2), "seconds": round(min(seconds), 3)}, found


SECTIONS = {
    "blip-large": lambda options: steps(options, blip, "32-true"),
    "clip-vit-l": lambda options: steps(options, clip, "32-true"),
    "blip-large, bf16-mixed": lambda options: steps(options, blip, "bf16-mixed"),
}

if __name__ == "__main__":
    parser = parser_of(__doc__, SECTIONS)
    parser.add_argument("--small", action="store_true", help="a rehearsal")
    given = parser.parse_args()
    run_sections(given, SECTIONS, given)
