"""Recipes: how an adapter starts, and what holds it there, by a name.

"paper" is that of Basile et al. 2025: λ drawn from N(1, 1), means subtracted and dropped. It finds what is
best for pictures like those of training, and can be worse than the encoder on others. "gentle" starts at the
encoder itself, decays towards it, and keeps it where no epoch is better on val (docs/adapters.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from residual.adapters.adapter_settings import AdapterSettings
from residual.adapters.fit_settings import FitSettings
from residual.adapters.methods import METHODS
from residual.errors import unknown_name


@dataclass(frozen=True)
class Recipe:
    """What it sets that differs from the defaults of `AdapterSettings` and `FitSettings`, the paper's.

    Args:
        about: what it does, for a sentence.
        adapter, fit: values by the names of fields.
    """

    about: str
    adapter: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)


RECIPES: dict[str, Recipe] = {
    "gentle": Recipe(
        "starts at the encoder itself, decays towards it, and keeps it if no epoch is better on val",
        {"mean": "keep", "init": "ones", "others": "keep", "tail": "keep", "write_back": "equation"},
        {"decay_towards": "start", "or_start": True, "weight_decay": None},
    ),
    "paper": Recipe("as in the paper: from a random λ, with means dropped"),
}


@dataclass(frozen=True)
class Fitting:
    """How a method is made and fitted.

    Args:
        recipe: its name.
        adapter: of the adapters.
        fits: of each fit, one a seed.
        but: settings by their names, as "FitSettings.or_start", that were chosen to be others than the
            recipe's, so that what it is about may not hold.
    """

    recipe: str
    adapter: AdapterSettings
    fits: Sequence[FitSettings]
    but: Mapping[str, Any] = field(default_factory=dict)


def fitting(
    method: str,
    recipe: str = "gentle",
    seeds: Sequence[int] = (0,),
    adapter: Mapping[str, Any] | None = None,
    fit: Mapping[str, Any] | None = None,
) -> Fitting:
    """Settings of a method by a recipe.

    A method as the published code has it (`residual_released`, …) has no gentle form, and takes the paper's.

    Args:
        method: one of `METHODS`.
        recipe: one of `RECIPES`.
        seeds: a fit each.
        adapter, fit: fields of `AdapterSettings` and of `FitSettings` that win over the recipe's.

    Raises:
        ResidualError: an unknown method or recipe, or settings that can't be.

    Example:
        >>> how = fitting("residual", fit={"epochs": 3})
        >>> how.adapter.init, how.fits[0].or_start, how.fits[0].epochs
        ('ones', True, 3)
        >>> fitting("residual_released").recipe
        'paper'
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if recipe not in RECIPES:
        raise unknown_name("recipe", recipe, RECIPES)
    name = "paper" if METHODS[method].released else recipe
    its = RECIPES[name]
    plain = FitSettings(**{**its.fit, **(fit or {})})
    made = AdapterSettings(**{**its.adapter, **(adapter or {})})
    but = {
        f"{type(settings).__name__}.{each}": getattr(settings, each)
        for settings, own in ((made, its.adapter), (plain, its.fit))
        for each, value in own.items()
        if getattr(settings, each) != value
    }
    if its.fit and plain.optimizer == "lbfgs":  # which decays nowhere
        but["FitSettings.optimizer"] = plain.optimizer
    return Fitting(name, made, tuple(replace(plain, seed=seed) for seed in seeds), but)
