"""Write the trained Picto as a Hugging Face CLIP folder in float16, with its tokenizer and image processor.

uv run --group picto python picto/export.py --to src/residual/encoders/picto
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from packed import BUILD
from safetensors.torch import load_file
from train import clip_config
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel


def export(checkpoint: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BUILD / "tokenizer")
    model = CLIPModel(clip_config(tokenizer))
    state = load_file(checkpoint)
    model.load_state_dict({name[6:]: tensor for name, tensor in state.items() if name.startswith("model.")})
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    processor = CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=half, image_std=half
    )
    processor.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=BUILD / "train/checkpoint.safetensors")
    parser.add_argument("--to", type=Path, default=BUILD / "export")
    args = parser.parse_args()
    export(args.checkpoint, args.to)
    weights = (args.to / "model.safetensors").stat().st_size
    print(f"{args.to}: {weights / 2**20:.2f} MB of weights")
