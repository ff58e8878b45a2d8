"""What experiment 3 measures besides, where it is asked to: a part of a cell each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.adapters import ResiDual, compute_scores
from residual.devices import find_device
from residual.heads.accuracy import correct_by_selection
from residual.heads.linear import best_linear
from residual.heads.selections import kept_layers
from residual.store.base import Store
from residual.text.chance import chances, compact
from residual.text.classifier import ZeroShotClassifier
from residual.text.dictionary import TextDictionary
from residual.text.pursuit import Pursuit, somp

STUDIES = {
    "selected": "texts of the sum of the best tenth of heads, by each way of choosing",
    "adapted_heads": "texts of every head after ResiDual, beside those before",
    "mlps": "texts of the MLPs on the reference",
    "layers": "accuracy with the heads of one layer alone, and of those up to it",
    "linear": "accuracy of a linear classifier trained on the output",
    "mean": "the scoreboard with all other units at their means",
}
SAMPLES = 10_000  # of a store that contributions are made of


@dataclass(frozen=True)
class Studies:
    """Those of one dataset.

    Args:
        stores: "train", "val" and "test" of it, and the "reference".
        classifier: of its classes.
        texts: to name with; None for an encoder without, of which nothing is named.
        atoms: texts of each.
        selections: heads, by the way that they were chosen.
        adapter: ResiDual, fitted; None for an encoder without text.
        device: where to compute.
    """

    stores: Mapping[str, Store]
    classifier: ZeroShotClassifier
    texts: TextDictionary | None
    atoms: int
    selections: Mapping[str, Sequence[int]]
    adapter: ResiDual | None = None
    device: str | None = None

    def measure(self, study: str) -> pd.DataFrame:
        """One of `STUDIES`, all but "mean"; empty where it needs text that isn't there."""
        each = (self.selected, self.adapted_heads, self.mlps, self.layers, self.linear)
        return {measure.__name__: measure for measure in each}[study]()

    def selected(self) -> pd.DataFrame:
        """SOMP of the summed contributions of the heads that each way keeps, on val."""
        val, named = self.stores["val"], []
        for way, units in self.selections.items():
            found, x = self._texts_of(sum_of_units(val, units))
            rows = [{"way": way, "heads": len(units), **row} for row in _with_quality(found, x)]
            named.append((rows, x - x.mean(0)))
        return self._with_bounds(named)

    def adapted_heads(self) -> pd.DataFrame:
        """SOMP of every head's contributions on val, and of what ResiDual makes of them."""
        val, named = self.stores["val"], []
        if self.adapter is None or self.texts is None:
            return pd.DataFrame()
        scores = compute_scores(self.adapter, val, device=self.device)
        heads = set(val.units["unit"][val.units["kind"] == "head"])
        for unit, before, after in adapted_rows(self.adapter, scores.scores):
            if unit not in heads:
                continue
            for name, x in (("zero_shot", before), ("residual", after)):
                if x.any():
                    found = somp(x, self.texts, min(self.atoms, len(self.texts)), "std", centre=False)
                    about = unit_row(val.units, unit) | {"name": name}
                    named.append(([about | row for row in text_rows(found)], x))
        return self._with_bounds(named)

    def mlps(self) -> pd.DataFrame:
        """SOMP of every MLP's contributions on the reference."""
        reference, named = self.stores["reference"], []
        for unit in reference.units["unit"][reference.units["kind"] == "mlp"].tolist():
            found, x = self._texts_of(reference.contributions(slice(0, SAMPLES), [unit])[:, 0])
            rows = [{**unit_row(reference.units, unit), **row} for row in _with_quality(found, x)]
            named.append((rows, x - x.mean(0)))
        return self._with_bounds(named)

    def layers(self) -> pd.DataFrame:
        """Accuracy on test where only some layers stay."""
        test = self.stores["test"]
        return accuracies_of(test, self.classifier, kept_layers(test.units), self.device)

    def linear(self) -> pd.DataFrame:
        """A linear classifier trained on train, its decay chosen on val, tested on test; beside zero-shot."""
        outputs = {name: (self.stores[name].output(), self.stores[name].labels) for name in ("train", "val")}
        test, labels = self.stores["test"].output(), self.stores["test"].labels
        found = best_linear(outputs["train"], outputs["val"], len(self.classifier))
        row = {
            "accuracy": found.accuracy(test, labels),
            "val_accuracy": found.accuracy(*outputs["val"]),
            "zero_shot": self.classifier.accuracy(test, labels),
            "decay": found.decay,
        }
        return pd.DataFrame([row])

    def _texts_of(self, x: Tensor) -> tuple[Pursuit | None, Tensor]:
        """By SOMP as published: with "l1", of the samples themselves."""
        if self.texts is None or not (x - x.mean(0)).any():
            return None, x
        x = x.to(find_device(self.device))
        return somp(x, self.texts, min(self.atoms, len(self.texts))), x

    def _with_bounds(self, named: Sequence[tuple[list[dict[str, Any]], Tensor]]) -> pd.DataFrame:
        """Rows of texts, each with the part of the variance that they have to exceed together to be a name
        (`bound`, see `Chance`); of all at once.

        Args:
            named: rows of texts, and the centred samples that they are of.
        """
        named = [(rows, x) for rows, x in named if rows]
        if self.texts is None or not named:
            return pd.DataFrame()
        count = min(self.atoms, len(self.texts))
        drawn = chances([compact(x) for _, x in named], self.texts.embeddings, count)
        return pd.DataFrame(
            [
                row | {"bound": each.bound}
                for (rows, _), each in zip(named, drawn, strict=True)
                for row in rows
            ]
        )


def adapted_rows(
    adapter: ResiDual, scores: Float[Tensor, "n K"]
) -> list[tuple[int, Float[Tensor, "k d"], Float[Tensor, "k d"]]]:
    """For every unit of an adapter few rows that stand for its contributions before and after.

    With a unit's centred scores `S` on its components `Φ` and their covariance `C`, the rows are
    `C^½ Φ` and `(diag(λ) C diag(λ))^½ Φ`: products with them have the same mean square as those with the
    centred contributions, `S Φ` and `(S ⊙ λ) Φ`.

    Args:
        adapter: fitted, of heads or of heads and MLPs.
        scores: of samples on its kept components, unit after unit.
    """
    weights, directions = adapter.expand(adapter.lambdas), adapter.directions
    each = (part.detach().cpu().double().split(adapter.ranks, -1) for part in (scores, weights))
    components = directions.detach().cpu().double().split(adapter.ranks)
    rows = []
    for unit, own, scale, directions in zip(adapter.units, *each, components, strict=True):
        centred = own - own.mean(0)
        covariance = centred.T @ centred / len(own)
        rows.append(
            (
                unit,
                _root(covariance) @ directions,
                _root(scale[:, None] * covariance * scale) @ directions,
            )
        )
    return rows


def sum_of_units(store: Store, units: Sequence[int]) -> Float[Tensor, "n d"]:
    """The summed contributions of some units, of the first samples, in float64."""
    samples = slice(0, SAMPLES)
    total = torch.zeros(min(len(store), SAMPLES), store.linearization.output_dim, dtype=torch.float64)
    for unit in units:
        total += store.contributions(samples, [unit])[:, 0]
    return total


def accuracies_of(
    store: Store, classifier: ZeroShotClassifier, kept: Mapping[str, Sequence[int]], device: str | None
) -> pd.DataFrame:
    """Accuracy with only some units, the others at zero or at their means."""
    rows = []
    for mode in ("zero", "mean"):
        hits = correct_by_selection(store, classifier, kept, mode, device=device).double().mean(0)
        rows += [
            {"name": name, "mode": mode, "accuracy": accuracy}
            for name, accuracy in zip(kept, hits.tolist(), strict=True)
        ]
    return pd.DataFrame(rows)


def text_rows(found: Pursuit) -> list[dict[str, Any]]:
    """A row a text, in the order chosen."""
    return [
        {"order": order, "text": text, "explained_variance": explained}
        for order, (text, explained) in enumerate(
            zip(found.texts, found.explained_variance.tolist(), strict=True), 1
        )
    ]


def unit_row(units: pd.DataFrame, unit: int) -> dict[str, Any]:
    """What tells a unit."""
    row = units.iloc[unit]
    return {name: row[name] for name in ("unit", "kind", "layer", "head")}


def _with_quality(found: Pursuit | None, x: Tensor) -> list[dict[str, Any]]:
    if found is None:
        return []
    quality = {name: values.tolist() for name, values in found.quality(x).items()}
    return [
        row | {name: values[place] for name, values in quality.items()}
        for place, row in enumerate(text_rows(found))
    ]


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a covariance."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
