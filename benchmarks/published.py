"""What some differences to the published code change on the embedded encoder (docs/published.md).

    residual experiment 4 --cfg experiments/4_adapters/released.gin --device cpu \
        --json benchmarks/results/experiment-4-released.json
    python benchmarks/published.py --out benchmarks/results/published.json --stores results/stores

The first gives the table of accuracies. Its coordinates serve the second, which makes those that aren't kept.
Section "untrained" tests λ = 1 by both write-backs, and class means of both lengths, on the ten datasets;
"heads" compares the heads' bases on "mixed" with those of contributions that lose their own means;
"correlations" scores the heads there by their correlation with the output and with their sum.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import parser_of, run_sections

from residual import load_encoder
from residual.adapters import Reference, ReleasedResiDual, ResiDual, evaluate
from residual.data import MixedDataset, dataset_names
from residual.heads import top_share, unit_correlation
from residual.heads.contributions import ranks
from residual.spectral import SpectralBases, compare_bases, fit_bases
from residual.spectral.similarity import mean_correlation
from residual.store.base import Store
from residual.text import ZeroShotClassifier
from residual.workflows.task import Pictures, load_splits, make_task


def untrained(pictures: Pictures) -> dict[str, Any]:
    """Accuracies on test."""
    reference = Reference.of(mixed(pictures))
    ways = {
        "ResiDual at λ = 1": ResiDual(reference.bases, init="ones"),
        "the same, transposed": ResiDual(reference.bases, init="ones", write_back="transposed"),
        "ResiDual (released) at λ = 1": ReleasedResiDual(reference.with_zeros().bases, init="ones"),
    }
    found: dict[str, dict[str, float]] = {}
    for name in dataset_names():
        datasets = load_splits(name, pictures.encoder)
        task = make_task(pictures.encoder, name, datasets, pictures.splits(datasets), 0.0)
        train, test = task.stores["train"], task.stores["test"]
        found[name] = {"zero-shot": task.zero_shot}
        for way, adapter in ways.items():
            found[name][way] = evaluate(adapter, test, task.classifier, device="cpu")
        for way, normalized in (("of unit length", True), ("as they are", False)):
            of = (train.output(), train.labels, train.class_names)
            means = ZeroShotClassifier.from_class_means(*of, normalized=normalized)
            found[name][f"class means, {way}"] = means.accuracy(test.output(), test.labels)
    return {"datasets": found, "mean": {way: mean_of(found, way) for way in found["mnist"]}}


def heads(pictures: Pictures) -> dict[str, Any]:
    """Components of heads on "mixed" up to 90 % of variance, by either centering of the norm's mean."""
    own = Pictures(load_encoder("picto", device="cpu", centering="own"))
    shared, others = (nameless(fit_bases(mixed(each), device="cpu")) for each in (pictures, own))
    compared = compare_bases(shared, others)
    return {
        "heads": len(compared),
        "spectral cosine": compared["spectral_cosine"].mean(),
        "least spectral cosine": compared["spectral_cosine"].min(),
        "components": {"shared": compared["rank_a"].mean(), "own": compared["rank_b"].mean()},
    }


def correlations(pictures: Pictures) -> dict[str, Any]:
    """Heads on "mixed" by (U): with the output or with their sum, by coordinates or along a basis of sums."""
    store = mixed(pictures)
    units = store.units["unit"][store.units["kind"] == "head"].tolist()
    contributions = store.contributions().double()
    own = contributions[:, units]
    ways = {
        "the output": unit_correlation(contributions)[units],
        "the heads' sum": unit_correlation(own),
        "the heads' sum, as published": unit_correlation(own, own.sum(1)),
    }
    ours = ways["the output"]
    best = set(top_share(ours, 0.1))
    return {
        way: {
            "mean": values.mean().item(),
            "order": mean_correlation(ranks(values[:, None])[:, 0], ranks(ours[:, None])[:, 0]),
            "best": len(best & set(top_share(values, 0.1))),
        }
        for way, values in ways.items()
    }


def mixed(pictures: Pictures) -> Store:
    return pictures.encode(MixedDataset("train"), "encode")


def nameless(bases: SpectralBases) -> SpectralBases:
    """To be compared across centerings, which is refused where they are known."""
    return SpectralBases(bases.units, bases.means, bases.components, bases.eigenvalues)


def mean_of(found: dict[str, dict[str, float]], way: str) -> float:
    return sum(each[way] for each in found.values()) / len(found)


SECTIONS = {"untrained": untrained, "heads": heads, "correlations": correlations}


def main() -> None:
    parser = parser_of(__doc__, SECTIONS)
    parser.add_argument("--stores", type=Path, help="where experiment 4 kept coordinates")
    options = parser.parse_args()
    pictures = Pictures(load_encoder("picto", device="cpu"), stores=options.stores)
    run_sections(options, SECTIONS, pictures)


if __name__ == "__main__":
    main()
