"""Zero-shot accuracy of an exported Picto on the offline suite, with stock transformers.

Decisions about training look at `--split val` only; `--split test` is for the model card. The split `all`
takes the three together: for `mnist` its 5,000 digits, none of which is ever trained on.

    uv run --group picto python picto/evaluate.py --split val
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

from residual.data import dataset_names, load_dataset


class Model:
    def __init__(self, folder: Path, device: str):
        self.clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval().to(device)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.processor = CLIPImageProcessor.from_pretrained(folder)
        self.device = device

    @torch.inference_mode()
    def image(self, pictures: list) -> Tensor:
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"].to(self.device)
        return F.normalize(self.clip.visual_projection(self.clip.vision_model(pixels).pooler_output), dim=-1)

    @torch.inference_mode()
    def text(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.device)
        return F.normalize(self.clip.text_projection(self.clip.text_model(**tokens).pooler_output), dim=-1)

    def classes(self, names: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
        """(c, d): each class name in every template, averaged."""
        each = [self.text([template.format(name) for template in templates]).mean(0) for name in names]
        return F.normalize(torch.stack(each), dim=-1)


def accuracy(model: Model, name: str, split: str) -> tuple[float, int]:
    parts = ["train", "val", "test"] if split == "all" else [split]
    right = total = 0
    for part in parts:
        dataset = load_dataset(name, part)
        classes = model.classes(dataset.class_names, dataset.templates)
        for at in range(0, len(dataset), 250):
            pictures, labels = zip(*(dataset[k] for k in range(at, min(at + 250, len(dataset)))), strict=True)
            answers = (model.image(list(pictures)) @ classes.T).argmax(1).cpu().numpy()
            right += int((answers == np.array(labels)).sum())
            total += len(labels)
    return right / total, total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "build/export")
    parser.add_argument("--split", choices=["val", "test", "all"], default="val")
    parser.add_argument("--datasets", nargs="*", default=None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    model = Model(args.model, args.device)
    results = {}
    for name in args.datasets or dataset_names():
        results[name], size = accuracy(model, name, args.split)
        print(f"{name:16s}{args.split:6s}{size:6d}  {results[name]:.3f}", flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        report = {"split": args.split, "zero_shot": results}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
