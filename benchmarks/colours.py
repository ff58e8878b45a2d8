"""Does a typed colour light the heads that carry it? (docs/explore.md)

    python benchmarks/colours.py --out benchmarks/results/colours.json

How well a head carries a colour is told without texts: a ridge regression from its coordinates on half of
the pictures tells how much of the other half is of that colour, and R² is the head's. Heads are then ranked
by how far they speak the word, in four ways, and the rank correlation with R² is written, with the three
heads that come first. The ways: the share of variance along the word's embedding alone, or along its mean in
the explorer's frames, both about the dictionary's mean; and the same two less what is usual of the head.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common import parser_of, run_sections
from torch import Tensor
from torch.nn.functional import normalize

from residual import encode_dataset, load_dataset, load_encoder
from residual.heads import unit_correlation
from residual.text.embedding import embed_texts
from residual.workflows.exploration import Exploration, Sources

DATASETS = {"mixed": 800, "emoji-concepts": 800}
DICTIONARIES = ("attributes", "words")
RIDGE = 5.0


def of_colour(pixels: np.ndarray) -> dict[str, float]:
    """How much of a picture is of each colour, by how far its channels stand out."""
    red, green, blue = np.moveaxis(pixels / 255, 2, 0)
    found = {
        "red": red - np.maximum(green, blue),
        "green": green - np.maximum(red, blue),
        "blue": blue - np.maximum(red, green),
        "yellow": np.minimum(red, green) - blue,
        "white": np.minimum(np.minimum(red, green), blue) - 0.8,
    }
    return {name: float(values.clip(0).mean()) for name, values in found.items()}


def carried(exploration: Exploration, colours: Tensor) -> Tensor:
    """R² of every head and colour on the pictures at odd places."""
    fitted, found = torch.arange(len(colours)) % 2 == 0, []
    truth = (colours - colours[fitted].mean(0)) / colours[fitted].std(0)
    for unit in exploration.parts.units.positions("head"):
        x = exploration.parts.features(unit).double()
        x = (x - x[fitted].mean(0)) / x[fitted].std(0).clamp(min=1e-9)
        square = x[fitted].T @ x[fitted] + RIDGE * torch.eye(x.shape[1])
        told = x[~fitted] @ torch.linalg.solve(square, x[fitted].T @ truth[fitted])
        rest = (truth[~fitted] - told).square().sum(0)
        found.append(1 - rest / (truth[~fitted] - truth[~fitted].mean(0)).square().sum(0))
    return torch.stack(found)


def spoken(exploration: Exploration, word: str) -> dict[str, Tensor]:
    """How far every head speaks a word, in each way."""
    parts = exploration.parts
    heads = {parts.units.name(unit) for unit in parts.units.positions("head")}
    rows = [each for each in exploration.text(word)["units"] if each["unit"] in heads]
    framed, above = (torch.tensor([each[key] for each in rows]).double() for key in ("value", "above"))
    about = embed_texts(parts.encoder, [word])[0] - parts.dictionary.embeddings.mean(0)
    w, alone = normalize(about, dim=0).double(), []
    for unit, components, values in zip(
        parts.bases.units, parts.bases.components, parts.bases.eigenvalues, strict=True
    ):
        if parts.units.name(unit) in heads:
            alone.append((components @ w).square() @ values / values.sum())
    single = torch.stack(alone)
    return {
        "the word": single,
        "in frames": framed,
        "the word, less what is usual": single - (framed - above),
        "in frames, less what is usual": above,
    }


def measured(dataset: str) -> dict[str, Any]:
    pictures = load_dataset(dataset, "test").sample(DATASETS[dataset])
    store = encode_dataset(load_encoder("picto", device="cpu"), pictures)
    small = [np.asarray(image.resize((16, 16)), np.float64) for image, _ in pictures]
    each = [of_colour(pixels) for pixels in small]
    colours = torch.tensor([list(row.values()) for row in each], dtype=torch.float64)
    found: dict[str, Any] = {"samples": len(store)}
    for dictionary in DICTIONARIES:
        exploration = Exploration(Sources((), dictionary=dictionary), [store])
        names = [exploration.parts.units.name(unit) for unit in exploration.parts.units.positions("head")]
        truth = carried(exploration, colours)
        found[dictionary] = {
            word: {
                "carried by": first(names, truth[:, place]),
                **{
                    way: {"rank correlation": ranked(values, truth[:, place]), "first": first(names, values)}
                    for way, values in spoken(exploration, word).items()
                },
            }
            for place, word in enumerate(each[0])
        }
    return found


def ranked(values: Tensor, truth: Tensor) -> float:
    """Spearman's correlation."""
    both = torch.stack([values, truth - values], 1)[..., None]  # whose sum over units is the other
    return unit_correlation(both, method="spearman")[0].item()


def first(names: list[str], values: Tensor) -> list[str]:
    return [names[place] for place in values.argsort(descending=True)[:3].tolist()]


if __name__ == "__main__":
    sections = {dataset: lambda dataset=dataset: measured(dataset) for dataset in DATASETS}
    run_sections(parser_of(__doc__, sections).parse_args(), sections)
