"""Whether maps show where things are: on drawn scenes whose masks are known, beside attention and Grad-CAM
(docs/maps.md). On a CPU, in a quarter of an hour:

    python benchmarks/segmentation.py --out benchmarks/results/segmentation.json

Of each dataset of the suite that knows its masks, ten draws of 40 test pictures, no picture in two of them.
Each way draws one map a picture, of its true class where it asks for one, and all are measured alike
(`residual.maps.against_masks`). The result has the measures of each draw. What a map is by default was chosen
on other pictures, of the val parts. `--small` is a rehearsal.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
import torch
from common import parser_of, run_sections
from torch import Tensor
from torch.nn.functional import avg_pool2d

from residual import AdaptedEncoder, encode_dataset, fit, load_dataset, load_encoder
from residual.adapters import Reference, evaluate, make_adapter
from residual.data import SPLITS, ImageDataset
from residual.encoders.changes import EncoderLike
from residual.maps import against_masks, attention_rollout, class_maps, grad_cam, raw_attention, text_maps
from residual.text import ZeroShotClassifier

DATASETS = ("counting", "house-numbers", "road-signs")
DRAWS, PICTURES = 10, 40
FITTED = {"train": 600, "val": 200}  # pictures that the adapter is fitted and chosen on
MEASURES = ("pixel_accuracy", "mean_iou", "mean_precision")


class Bench:
    """The encoder, and what is asked of it."""

    def __init__(self, options: argparse.Namespace):
        self.draws, self.pictures = (2, 12) if options.small else (DRAWS, PICTURES)
        self.encoder = load_encoder("picto", device="cpu", dtype=torch.float32)

    def dataset(self, name: str) -> dict[str, Any]:
        """Every way on every draw of a dataset."""
        train, val, test = (load_dataset(name, split) for split in SPLITS)
        order = np.random.RandomState(0).permutation(len(test))[: self.draws * self.pictures]
        classifier = ZeroShotClassifier.from_text(self.encoder, test.class_names, test.templates)
        adapted, accuracy = self._adapted(train, val, test.subset(order), classifier)
        found: dict[str, dict[str, list[float]]] = {}
        covered = []
        for draw in range(self.draws):
            rows = order[draw * self.pictures : (draw + 1) * self.pictures]
            scenes = test.subset(rows)
            masks = torch.from_numpy(np.stack([scenes.masks(row).any(0) for row in range(len(scenes))]))
            covered.append(masks.float().mean().item())
            found_by = self._maps(scenes, classifier, adapted, draw)
            ideal = avg_pool2d(masks[:, None].float(), masks.shape[-1] // found_by["class"].shape[-1])[:, 0]
            for way, values in {**found_by, "ideal": ideal}.items():
                measured = against_masks(values, masks)
                for measure in MEASURES:
                    found.setdefault(way, {}).setdefault(measure, []).append(getattr(measured, measure))
            print(name, draw, flush=True)
        about = {"draws": self.draws, "pictures": self.pictures, "covered": float(np.mean(covered))}
        return {**about, "accuracy": accuracy, "ways": found}

    def _maps(
        self, scenes: ImageDataset, classifier: ZeroShotClassifier, adapted: EncoderLike, seed: int
    ) -> dict[str, Tensor]:
        """One map `(rows, cols)` a picture, by each way."""
        encoder, weights = self.encoder, classifier.weights
        pixels = encoder.pixels([scenes[row][0] for row in range(len(scenes))])
        mine = torch.arange(len(scenes)), torch.from_numpy(scenes.labels)
        made = {
            "text": text_maps(encoder, pixels, scenes.class_names, templates=scenes.templates),
            "class": class_maps(encoder, pixels, classifier),
            "class alone": class_maps(encoder, pixels, classifier, against=()),
            "class, for": class_maps(encoder, pixels, classifier, signed=False),
            "class, adapted": class_maps(adapted, pixels, classifier),
        }
        of_class = {way: maps.values[mine] for way, maps in made.items()}
        # Class by class, or gradients of all classes would be made for each picture.
        cams = torch.zeros(2, *of_class["class"].shape)
        for label in np.unique(scenes.labels):
            rows = np.flatnonzero(scenes.labels == label)
            directions = torch.stack([weights[label], weights[label] - weights.mean(0)])
            cams[:, rows] = grad_cam(encoder, pixels[rows], directions).transpose(0, 1)
        random = torch.Generator().manual_seed(seed)
        return of_class | {
            "attention": raw_attention(encoder, pixels),
            "rollout": attention_rollout(encoder, pixels),
            "Grad-CAM": cams[0],
            "Grad-CAM of class": cams[1],
            "random": torch.rand(of_class["class"].shape, generator=random),
        }

    def _adapted(
        self, train: ImageDataset, val: ImageDataset, test: ImageDataset, classifier: ZeroShotClassifier
    ) -> tuple[EncoderLike, dict[str, float]]:
        """ResiDual* fitted on some of train, and the accuracy on test of the encoder before and after."""
        chosen = (train.sample(FITTED["train"]), val.sample(FITTED["val"]), test)
        stores = {each.split: encode_dataset(self.encoder, each) for each in chosen}
        adapter = make_adapter("residual_star", Reference.of(stores["train"]), seed=0)
        fit(adapter, stores["train"], stores["val"], classifier)
        output, labels = stores["test"].output(), torch.as_tensor(stores["test"].labels)
        before = (classifier.logits(output).argmax(1) == labels).double().mean().item()
        after = evaluate(adapter, stores["test"], classifier)
        return AdaptedEncoder(self.encoder, adapter, classifier), {"before": before, "after": after}


SECTIONS = {name: partial(Bench.dataset, name=name) for name in DATASETS}


def main() -> None:
    parser = parser_of(__doc__, SECTIONS)
    parser.add_argument("--small", action="store_true", help="a rehearsal")
    options = parser.parse_args()
    run_sections(options, SECTIONS, Bench(options))


if __name__ == "__main__":
    main()
