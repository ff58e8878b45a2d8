"""A page's sections on heads and MLPs: what weights do to each, its texts, its components in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from jaxtyping import Float
from markupsafe import Markup, escape
from torch import Tensor

from residual.adapters.adapter import Adapter
from residual.adapters.inspection import Component, components_by_unit
from residual.adapters.scores import compute_scores
from residual.data import ImageDataset
from residual.encoders.encoder import Encoder
from residual.heads.descriptions import UnitTexts
from residual.progress import Progress
from residual.report.end_maps import EndMaps, end_maps
from residual.report.gains import unit_anchor, unit_title
from residual.report.pages import Thumbnails, names_html
from residual.spectral.bases import SpectralBases
from residual.store.base import Store
from residual.text.classifier import ZeroShotClassifier

PICTURES = 6  # at each end of a component
_ROOM = 1_400_000  # characters of all pictures at the ends of components
_GONE, _SAME = 0.05, 0.05  # so near 0 a weight removes, so near 1 it changes nothing


def unit_sections(
    gains: Mapping[str, pd.DataFrame],
    adapter: Adapter | None,
    store: Store,
    dataset: ImageDataset,
    classifier: ZeroShotClassifier,
    texts: Mapping[int, UnitTexts] | None,
    encoder: Encoder | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The sections, in the order of layers; with pictures of those that move the output most, while there is
    room for them.

    Args:
        gains: by methods' names, from `unit_gains`; with a column `turned`, whether all weights are negative.
        adapter: whose components are shown; None for none.
        store: coordinates of the pictures at their ends.
        dataset: these pictures.
        classifier: of their classes.
        texts: of units.
        encoder: that of the store, for maps over the pictures of heads.
        progress: told of these.
    """
    components = {} if adapter is None else _shown(adapter)
    scores = None if adapter is None else compute_scores(adapter, store).scores
    pictures, ends, left_out = Thumbnails(dataset), {}, 0
    for unit in sorted(components, key=lambda unit: -max(each.strength for each in components[unit])):
        if pictures.size > _ROOM:
            left_out += 1
        elif scores is not None:
            ends[unit] = [_ends(each, scores, store, classifier, pictures) for each in components[unit]]
    maps = EndMaps()
    bases = getattr(adapter, "bases", None)
    if encoder is not None and isinstance(bases, SpectralBases):
        maps = end_maps(encoder, bases, dataset, _wanted(store, components, ends), progress)
    every = pd.concat(gains.values()) if gains else store.units.iloc[:0]
    sections = []
    for unit, kind, layer, head in _where(every):
        told = None if texts is None else texts.get(unit)
        sections.append(
            {
                "anchor": unit_anchor(kind, layer, head),
                "title": unit_title(kind, layer, head),
                "gains": _gains(gains, unit),
                "names": [each.text for each in told.texts] if told and told.named else [],
                "verdict": told.verdict_on("this head" if kind == "head" else "this MLP") if told else "",
                "components": [
                    {
                        "name": _name(store, each),
                        "title": f"Component {each.index + 1}",
                        "sentence": component_sentence(each, classifier),
                        "ends": ends[unit][place] if unit in ends else (),
                    }
                    for place, each in enumerate(components.get(unit, ()))
                ],
            }
        )
    return {
        "units": sections,
        "left_out": left_out,
        "with_pictures": len(ends),
        "unreadable": pictures.unreadable,
        "maps": maps,
    }


def component_sentence(component: Component, classifier: ZeroShotClassifier) -> Markup:
    """What its weight does to it, in plain words."""
    weight, holds = component.weight, f"It holds {100 * component.explained:.0f} % of what varies here."
    if abs(weight) < _GONE:
        return escape(f"{holds} Removed: with a weight of {weight:+.2f} it no longer reaches the output.")
    if weight < 0:
        said = f"{holds} Turned round: its weight is negative ({weight:+.2f})"
        before = component.towards(classifier, 1 / weight)  # as a high score did at a weight of 1
        after = component.towards(classifier, 1)
        if not (before and after):
            return escape(f"{said}, so that high scores push the other way than before.")
        told = Markup("{}, so that what spoke for {} now speaks for {}.")
        return told.format(said, names_html(before, " and "), names_html(after, " and "))
    if weight < 1 - _SAME:
        return escape(f"{holds} Weakened to {weight:.2f} of what it was.")
    if weight <= 1 + _SAME:
        return escape(f"{holds} Left nearly as it was (weight {weight:.2f}).")
    return escape(f"{holds} Strengthened to {weight:.2f} times what it was.")


def _name(store: Store, component: Component) -> str:
    """As maps call a head's, from 0."""
    return f"{store.linearization.units.name(component.unit)}:{component.index}"


def _wanted(
    store: Store, components: Mapping[int, list[Component]], ends: Mapping[int, list[list[dict[str, Any]]]]
) -> dict[str, list[str]]:
    """Of each component of a head the samples that are shown."""
    return {
        _name(store, each): [sample for end in found for *_, sample in end["pictures"]]
        for unit in ends
        if store.units.iloc[unit]["kind"] == "head"
        for each, found in zip(components[unit], ends[unit], strict=True)
    }


def _shown(adapter: Adapter) -> dict[int, list[Component]]:
    """Of each unit the component that moves the output most, and that whose weight changes it most."""
    strongest, changed = components_by_unit(adapter, 1), components_by_unit(adapter, 1, changed=True)
    return {
        unit: [*each, *(other for other in changed[unit] if other.index != each[0].index)]
        for unit, each in strongest.items()
        if each
    }


def _ends(
    component: Component,
    scores: Float[Tensor, "n K"],
    store: Store,
    classifier: ZeroShotClassifier,
    pictures: Thumbnails,
) -> list[dict[str, Any]]:
    """The pictures with the lowest and the highest scores, and what these push the output towards.

    Scores are about the mean of the pictures that components were taken of: those of other pictures may all
    lie on one side, and then both ends push the same way.
    """
    own = scores[:, component.position].double()
    order = own.argsort(stable=True).tolist()
    count = min(PICTURES, len(order) // 2)
    found = []
    for title, samples in (("Lowest scores", order[:count]), ("Highest scores", order[::-1][:count])):
        values = own[samples]
        signs = values.sign().unique().tolist()
        one_way = len(signs) == 1 and abs(component.weight) >= _GONE
        ids = [store.sample_ids[sample] for sample in samples]
        names = [store.class_names[store.labels[sample]] for sample in samples]
        found.append(
            {
                "title": f"{title}, {values.min().item():+.2g} to {values.max().item():+.2g}",
                "towards": component.towards(classifier, signs[0]) if one_way else [],
                "pictures": [
                    (pictures[sample], name, sample) for sample, name in zip(ids, names, strict=True)
                ],
            }
        )
    return found


def _where(units: pd.DataFrame) -> list[tuple[int, str, int, Any]]:
    """Position, kind, layer and head of each, once, in the order of the grid."""
    order = units.drop_duplicates("unit").sort_values(["layer", "kind", "head"])
    columns = (order[name].tolist() for name in ("unit", "kind", "layer", "head"))
    return list(zip(*columns, strict=True))


def _gains(gains: Mapping[str, pd.DataFrame], unit: int) -> list[tuple[str, str]]:
    """For each method that weights it, how much wider it spreads than all together, and whether all of it is
    turned round.
    """
    told = []
    for method, table in gains.items():
        own = table[table["unit"] == unit]
        for relative, turned in zip(own["relative"], own["turned"], strict=True):
            told.append((method, f"{relative:.2f} times as wide as all together{', turned round' * turned}"))
    return told
