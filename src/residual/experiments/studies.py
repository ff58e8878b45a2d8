"""What texts say: of MLPs, of late heads by three methods, of the output before and after ResiDual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from residual.adapters import FitSettings, ResiDual, adapted_output, fit
from residual.spectral.bases import SpectralBases
from residual.store.base import Store
from residual.text.classifier import ZeroShotClassifier
from residual.text.dictionary import TextDictionary
from residual.text.pursuit import Pursuit, omp, somp, text_span, weighted_components

_LATE = 2  # layers at the end
_SAMPLES = 10_000  # of a store that contributions are made of


def unit_texts(
    bases: SpectralBases, units: pd.DataFrame, chosen: Sequence[int], texts: TextDictionary, atoms: int
) -> pd.DataFrame:
    """Texts of some units by SOMP on their weighted components, in the order chosen."""
    rows = []
    for unit in chosen:
        components = weighted_components(bases, unit)
        if len(components):
            found = somp(components, texts, min(atoms, len(texts)), "std", centre=False)
            rows += [{**_named(units, unit), **row} for row in _rows(found)]
    return pd.DataFrame(rows)


def late_heads(
    store: Store, bases: SpectralBases, texts: TextDictionary, atoms: int, rank: int
) -> pd.DataFrame:
    """Heads of the last layers by SOMP, TextSpan and OMP, with their first explained variance ratio and
    participation ratio."""
    units = store.units
    last = int(units["layer"][units["kind"] == "head"].max())
    late = units["unit"][(units["kind"] == "head") & (units["layer"] > last - _LATE)].tolist()
    samples, rows = slice(0, _SAMPLES), []
    k = min(atoms, len(texts))
    for unit in late:
        own = bases.select([unit]).eigenvalues[0]
        if not len(own):
            continue
        x = store.contributions(samples, [unit])[:, 0]
        spectrum = {
            "first_explained_variance_ratio": (own[0] / own.sum()).item(),
            "participation_ratio": (own.sum() ** 2 / own.square().sum()).item(),
        }
        found = {
            "somp": somp(x, texts, k),
            "omp": omp(x, texts, k),
            "text_span": text_span(x, texts, k, rank),
        }
        for method, pursuit in found.items():
            rows += [{**_named(units, unit), "method": method, **spectrum, **row} for row in _rows(pursuit)]
    return pd.DataFrame(rows)


def adapted_texts(
    outputs: Mapping[str, Float[Tensor, "n d"]],
    labels: Int[np.ndarray, " n"],
    classifier: ZeroShotClassifier,
    texts: TextDictionary,
    atoms: int,
) -> pd.DataFrame:
    """Texts of the output by SOMP before and after it was adapted, and the accuracy of each.

    Args:
        outputs: of the test samples, by name.
        labels: theirs.
        classifier: of their classes.
        texts: to name with.
        atoms: how many.
    """
    rows = []
    for name, output in outputs.items():
        accuracy = classifier.to(output.device).accuracy(output, labels)
        found = somp(output[:_SAMPLES], texts, min(atoms, len(texts)))
        rows += [{"name": name, "accuracy": accuracy, **row} for row in _rows(found)]
    return pd.DataFrame(rows)


def residual_output(
    bases: SpectralBases, stores: tuple[Store, Store, Store], classifier: ZeroShotClassifier, seed: int = 0
) -> Float[Tensor, "n d"]:
    """The test samples' output after ResiDual, fitted here.

    Args:
        bases: of heads and MLPs.
        stores: train, val and test.
        classifier: of their classes.
        seed: of the fit.
    """
    train, val, test = stores
    adapter = ResiDual(bases, seed=seed)
    settings = FitSettings(seed=seed, missing="ignore")  # a store may be a small sample
    fit(adapter, train, val, classifier, settings)
    return adapted_output(adapter, test)


def _rows(found: Pursuit) -> list[dict[str, Any]]:
    return [
        {"order": order, "text": text, "explained_variance": explained}
        for order, (text, explained) in enumerate(
            zip(found.texts, found.explained_variance.tolist(), strict=True), 1
        )
    ]


def _named(units: pd.DataFrame, unit: int) -> dict[str, Any]:
    row = units.iloc[unit]
    return {name: row[name] for name in ("unit", "kind", "layer", "head")}
