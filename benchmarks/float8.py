"""What float8 would bring and cost: the matrix products of every block in e4m3, scaled row by row on the way.

    python benchmarks/float8.py --out benchmarks/results/float8.json

A trial beside the library, not a part of it. Both sides are compiled and traced; the error is that of the
class token's contributions against float32, beside bfloat16's own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import open_clip
import torch
from common import command, versions
from precision import by_kind
from speed import compare
from torch import Tensor, nn

from residual.devices import find_device
from residual.encoders.load import wrap_encoder
from residual.tracing.trace import trace

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max


def quantized(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of `x (n, w)` in float8, and their scales `(n, 1)`."""
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (x.float() / scale).to(E4M3), scale


class Float8Linear(nn.Linear):
    """A linear layer whose product runs in float8; `weight` is what the quantised one stands for."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
        rows, scale = quantized(weight)
        self.register_buffer("rows", rows)
        self.register_buffer("row_scale", scale.T.contiguous())
        self.weight.data = (rows.float() * scale).to(weight.dtype)
        self.bias.data = bias

    def forward(self, x: Tensor) -> Tensor:
        tokens, scale = quantized(x.flatten(0, -2))
        if tokens.device.type == "cuda":
            out = torch._scaled_mm(
                tokens,
                self.rows.T,
                scale,
                self.row_scale,
                bias=self.bias,
                out_dtype=x.dtype,
                use_fast_accum=True,
            )
        else:
            out = ((tokens.float() * scale) @ (self.rows.float().T * self.row_scale) + self.bias).to(x.dtype)
        return out.unflatten(0, x.shape[:-1])


class Float8Attention(nn.Module):
    """Self-attention with float8 projections."""

    def __init__(self, original: nn.MultiheadAttention):
        super().__init__()
        self.num_heads = original.num_heads
        self.joined = Float8Linear(original.in_proj_weight.data, original.in_proj_bias.data)
        self.out_proj = Float8Linear(original.out_proj.weight.data, original.out_proj.bias.data)

    def forward(self, query: Tensor, *ignored: object, **how: object) -> tuple[Tensor, None]:
        q, k, v = self.joined(query).unflatten(-1, (3, self.num_heads, -1)).movedim(1, 3).unbind(1)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None


def in_float8(model: nn.Module) -> nn.Module:
    """Every product of every block of the vision tower."""
    for block in model.visual.transformer.resblocks:
        block.attn = Float8Attention(block.attn)
        for name in ("c_fc", "c_proj"):
            layer = getattr(block.mlp, name)
            setattr(block.mlp, name, Float8Linear(layer.weight.data, layer.bias.data))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="ViT-L-14")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--compile", default="{}", help="options of torch.compile, as JSON")
    options = parser.parse_args()
    device = find_device(None)
    torch.manual_seed(0)
    weights = open_clip.create_model(options.model).state_dict()

    def model(dtype: torch.dtype) -> nn.Module:
        made = open_clip.create_model(options.model).eval()
        made.load_state_dict(weights)
        return made.to(device, dtype)

    exact, half = wrap_encoder(model(torch.float32)), wrap_encoder(model(torch.bfloat16))
    low = wrap_encoder(in_float8(model(torch.bfloat16)))
    pixels = torch.randn(options.batch, 3, *half.module.visual.image_size, device=device)
    few = [Pixels(pixels[index]) for index in range(min(32, options.batch))]
    errors = {}
    for name, encoder in (("bfloat16", half), ("float8", low)):
        for each in (exact, encoder):
            each.preprocess = lambda image: image.values
        errors[name] = by_kind({"exact": exact, name: encoder}, few)
    how = json.loads(options.compile)
    ways = {}
    for name, encoder in (("bfloat16", half), ("float8", low)):
        compiled = wrap_encoder(encoder.module).compile(**how)
        ways[f"{name}, traced, compiled"] = lambda compiled=compiled: trace(compiled, pixels.bfloat16())
    with torch.inference_mode():
        measured = compare(ways, options.batch, options.rounds, options.repeats, device)
    result = {
        "command": command(),
        "versions": versions(device),
        "model": options.model,
        "batch": options.batch,
        "ways": measured,
        "relative_error": errors,
    }
    print(json.dumps(result, indent=1))
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


class Pixels:
    """A picture that is pixels already."""

    def __init__(self, values: Tensor):
        self.values = values


if __name__ == "__main__":
    main()
