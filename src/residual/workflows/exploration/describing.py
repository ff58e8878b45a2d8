"""One unit in words, numbers and pictures, described when it is looked at."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError
from residual.heads.descriptions import DescribeSettings, UnitTexts
from residual.spectral.dimension import linear_dimension
from residual.workflows.exploration.asked import unit_of
from residual.workflows.exploration.parts import Parts
from residual.workflows.exploration.pictures import Pictures
from residual.workflows.exploration.scores import TOLD, named, scores_of, texts_told, told_by_texts, values_of

SETTINGS = DescribeSettings(components=8, images=6)
_RATIOS = 256  # of a spectrum; an MLP's is as long as the output is wide
_CALLED = {"head": "this head", "mlp": "this MLP", "emb": "the embedding"}


class Descriptions:
    """Descriptions of units, each made once.

    Args:
        parts: of the exploration.
        pictures: of its samples.
    """

    def __init__(self, parts: Parts, pictures: Pictures):
        self.parts, self.pictures = parts, pictures

    def unit(self, name: str) -> dict[str, Any]:
        """See api/unit: scores, texts with chance and verdict, spectrum, dimensions, components.

        Raises:
            ResidualError: there is no such unit, or the store doesn't keep its kind.
        """
        unit = unit_of(self.parts, name)
        described = self.parts.made.get(("unit", unit), lambda: self._described(unit))
        return {**described, **_ranked(self.parts, unit)}

    def spectrum(self, name: str) -> dict[str, Any]:
        """See api/spectrum: what part of its variance lies along each component.

        Raises:
            ResidualError: there is no such unit, or the store doesn't keep its kind.
        """
        return {"unit": name, "spectrum": self._ratios(unit_of(self.parts, name))}

    def _ratios(self, unit: int) -> list[float]:
        values = self.parts.bases.select([unit]).eigenvalues[0]
        return (values[:_RATIOS] / (values.sum().item() or 1.0)).tolist()

    def _described(self, unit: int) -> dict[str, Any]:
        parts = self.parts
        own = parts.bases.select([unit])
        values = own.eigenvalues[0]
        total, (told, why) = values.sum().item(), self._texts(unit)
        return {
            **named(parts, unit),
            **_texts_told(told, why, _CALLED[parts.units.kind(unit)]),
            "spectrum": self._ratios(unit),
            "components_of": len(values),
            "linear_dimension": linear_dimension(values, SETTINGS.threshold),
            "participation_ratio": total**2 / values.square().sum().item() if total else None,
            "components": self._components(unit, told),
        }

    def _texts(self, unit: int) -> tuple[UnitTexts | None, str]:
        """Its texts; or None, and why there are none."""
        parts = self.parts
        try:
            told = (
                told_by_texts(parts) if TOLD in parts.made else texts_told(parts, parts.bases.select([unit]))
            )
        except ResidualError as error:
            return None, str(error)
        return told[unit], ""

    def _components(self, unit: int, told: UnitTexts | None) -> list[dict[str, Any]]:
        """The first ones: what is near both ends of each, of texts and of pictures."""
        own = self.parts.bases.select([unit])
        rows, values = own.components[0][: SETTINGS.components], own.eigenvalues[0]
        if not len(rows):
            return []
        ratios = (values / (values.sum() or 1.0)).tolist()
        along = self.pictures.along(unit, range(len(rows)))
        near, far = (self._near(sign * rows, told) for sign in (1, -1))
        count = min(SETTINGS.images, len(along) // 2)
        return [
            {
                "index": index,
                "ratio": ratios[index],
                "positive": near[index],
                "negative": far[index],
                "largest": self.pictures.ends(along[:, index], count, largest=True),
                "smallest": self.pictures.ends(along[:, index], count, largest=False),
            }
            for index in range(len(rows))
        ]

    def _near(self, directions: Float[Tensor, "k d"], told: UnitTexts | None) -> list[list[str]]:
        """The nearest texts of each direction, where they are nearer than the best random direction."""
        if told is None or told.chance is None or told.unsuited:
            return [[] for _ in directions]
        bound = told.chance.cosine
        found = self.parts.dictionary.nearest(directions, SETTINGS.texts)
        return [[text for text, cosine in each if cosine > bound] for each in found]


def _texts_told(told: UnitTexts | None, why: str, what: str) -> dict[str, Any]:
    """Its texts, each with what it adds to those before it, and whether they are its names."""
    if told is None:
        return {"named": False, "verdict": why, "told": None, "chance": None, "texts": []}
    up_to = [0.0, *(each.explained_variance for each in told.texts)]
    return {
        "named": told.named,
        "verdict": told.verdict_on(what),
        "told": told.share,
        "chance": None if told.chance is None else told.chance.bound,
        "texts": [
            {"text": each.text, "share": each.explained_variance - before}
            for each, before in zip(told.texts, up_to, strict=False)
        ],
    }


def _ranked(parts: Parts, unit: int) -> dict[str, Any]:
    """Its scores, and its places by them among all units that have one, from 1; equal ones share a place.

    Texts of all units take a while: of these only where someone has asked for that score.
    """
    values, ranks = {}, {}
    for key in scores_of(parts):
        if key == "told" and TOLD not in parts.made:
            continue
        try:
            every = values_of(parts, key)
        except ResidualError:  # it can't be had of this store, and its own answer says why
            continue
        if (own := every[unit]) is not None:
            values[key] = own
            ranks[key] = 1 + sum(other > own for other in every.values() if other is not None)
    return {"scores": values, "ranks": ranks, "of": len(parts.kept_units)}
