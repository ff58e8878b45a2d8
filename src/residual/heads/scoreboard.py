"""All ways of choosing heads side by side: on the same samples, with the same seeds and numbers of heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from residual.errors import ResidualError
from residual.heads.agreement import Agreement, agreement_of, mean_contributions
from residual.heads.contributions import check_mode, span_of
from residual.heads.hits import selection_hits, solo_hits
from residual.heads.scores import check_whole, pursuit_scores
from residual.heads.selections import SHARES, random_share, top_share
from residual.intervals import t95
from residual.progress import Progress, named
from residual.spectral.bases import SpectralBases
from residual.store.base import Store
from residual.text.classifier import ZeroShotClassifier
from residual.text.dictionary import TextDictionary

# Called with a stage, how much of it is done, and how much there is.

WAYS = {
    "accuracy": "S",
    "span": "U|T",
    "correlation": "U",
    "pursuit": "P",
    "trained": "O",
    "effect": "Oσ",
    "random": "R",
}
_PARTS = 8  # of the samples that units are chosen by; each seed takes half of them


@dataclass(frozen=True)
class ScoreboardSettings:
    """What is compared.

    Args:
        shares: of the heads, that are kept.
        seeds: how often samples are halved at random, and heads drawn.
        seed: of all of that.
        mode: "zero" leaves all other units out, "mean" puts them at their means over the samples that heads
            are chosen by.
        atoms: texts a head, for (P).
        kinds: of unit that are chosen from.

    Raises:
        ResidualError: one is out of range.
    """

    shares: tuple[float, ...] = SHARES
    seeds: int = 10
    seed: int = 0
    mode: str = "zero"
    atoms: int = 10
    kinds: tuple[str, ...] = ("head",)

    def __post_init__(self):
        check_mode(self.mode)
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise ResidualError(f"shares lie in (0, 1], got {self.shares}.")
        if self.seeds < 2 or self.seed < 0 or self.atoms < 1:
            raise ResidualError(
                f"seeds is 2 or more, seed 0 or more and atoms 1 or more; got {self.seeds}, {self.seed} and "
                f"{self.atoms}."
            )


@dataclass(frozen=True)
class Scoreboard:
    """What was found.

    Args:
        rows: a way and a share a row: `way`, `share`, `heads` (how many), `accuracy`, `worst_group` where
            there are groups, `over_random` and `over_full` (differences of accuracy), each with `…_low` and
            `…_high`, its 95 % interval. The first rows are "all units" and "all heads", with share NaN.
        scores: the table of units with a column for each way but "random".
        selections: of every way and share the units that stay, from all samples; of "random" the first
            seed's.
    """

    rows: pd.DataFrame
    scores: pd.DataFrame
    selections: dict[str, list[int]]


def scoreboard(
    store: Store,
    classifier: ZeroShotClassifier,
    test: Store | None = None,
    settings: ScoreboardSettings | None = None,
    *,
    trained: Float[Tensor, " u"] | None = None,
    bases: SpectralBases | None = None,
    dictionary: TextDictionary | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Scoreboard:
    """Accuracy with only the best heads by each score, beside random ones and the whole encoder.

    Heads are chosen on `store` and tested on `test`. Intervals are by half-sampling: each seed chooses on a
    random half of the one and is tested on a random half of the other, so that the deviation over seeds is
    the standard error of the figures from all samples (of sampling both, and for "random" of the draw too).
    Without `test`, each seed chooses on half of the samples and is tested on the others.

    Args:
        store: what heads are chosen by, with all kinds of unit.
        classifier: of its classes.
        test: other samples of the same encoder and classes.
        settings: what is compared.
        trained: weights of the units of these kinds, for (O): by absolute value; and, where there are bases,
            for (Oσ): times the deviation of the unit's contribution, which a weight alone says nothing of.
        bases: of the units, for (P) and (Oσ).
        dictionary: for (P).
        device: where to compute; by default the GPU if there is one, else the CPU.
        progress: told of every pass.

    Raises:
        ResidualError: stores of different encoders or classes, or as `score_units`.
    """
    settings = settings or ScoreboardSettings()
    check_whole(store)
    if test is not None:
        check_alike(store, test)
    units = store.linearization.units.positions(settings.kinds)
    random = np.random.default_rng(settings.seed)
    parts = random.permutation(len(store)) % _PARTS
    halves = [random.permutation(_PARTS)[: _PARTS // 2].tolist() for _ in range(settings.seeds)]
    ways = _Ways(
        store, classifier, units, parts, trained, bases, dictionary, settings.atoms, device, progress
    )
    names = [*ways.fixed, "accuracy", "span", "correlation"]
    chosen: dict[tuple[str, float, int], list[int]] = {}  # seed -1: all samples
    for seed, half in enumerate([None, *halves], -1):
        values = ways.scores(half)
        for share in settings.shares:
            for name in names:
                chosen[name, share, seed] = top_share(values[name], share, units)
            drawn = settings.seed + max(seed, 0)
            chosen["random", share, seed] = random_share(units, share, drawn)
    whole = {"all units": store.units["unit"].tolist(), "all heads": units}
    tested = store if test is None else test
    wanted = {str(list(keep)): keep for keep in [*whole.values(), *chosen.values()]}
    means = mean_contributions(store, device=device) if settings.mode == "mean" else None
    told = named(progress, "test selections")
    hits = selection_hits(tested, classifier, wanted, settings.mode, means, device=device, progress=told)
    columns = dict(zip(wanted, hits.T, strict=True))
    if test is None:
        sides = [torch.from_numpy(~np.isin(parts, half)) for half in halves]
    else:
        sides = [
            torch.from_numpy(random.permutation(len(test)) < (len(test) + 1) // 2)
            for _ in range(settings.seeds)
        ]
    measure = _Measure(tested, sides, test is None)
    rows = [
        {"way": name, "share": np.nan, "heads": len(keep), **measure.alone(columns[str(keep)])}
        for name, keep in whole.items()
    ]
    full = columns[str(whole["all units"])]
    for share in settings.shares:
        drawn = [columns[str(chosen["random", share, seed])] for seed in range(settings.seeds)]
        for name in [name for name in WAYS if name in (*names, "random")]:
            of_seeds = [columns[str(chosen[name, share, seed])] for seed in range(settings.seeds)]
            point = drawn if name == "random" else [columns[str(chosen[name, share, -1])]]
            row = {"way": name, "share": share, "heads": len(chosen[name, share, -1])}
            rows.append(row | measure.compared(point, of_seeds, drawn, full))
    return Scoreboard(
        rows=pd.DataFrame(rows),
        scores=store.units.iloc[units].reset_index(drop=True).assign(**ways.scores(None)),
        selections={f"{name} {share:g}": keep for (name, share, seed), keep in chosen.items() if seed == -1},
    )


def check_alike(store: Store, test: Store) -> None:
    """Refuse two stores of different encoders, poolings or classes."""
    for what in ("fingerprint", "centering", "pooling", "class_names"):
        ours, theirs = getattr(store, what), getattr(test, what)
        if ours != theirs:
            raise ResidualError(
                f"{store.dataset} and {test.dataset} don't belong together: {what} {_short(ours)} and "
                f"{_short(theirs)}."
            )


class _Ways:
    """Scores of units by half of the parts, or by all; passes over the store are made once."""

    def __init__(
        self,
        store: Store,
        classifier: ZeroShotClassifier,
        units: list[int],
        parts: np.ndarray,
        trained: Tensor | None,
        bases: SpectralBases | None,
        dictionary: TextDictionary | None,
        atoms: int,
        device: str | torch.device | None,
        progress: Progress | None,
    ):
        told = [named(progress, stage) for stage in ("correlate units", "test units alone")]
        self.parts = torch.from_numpy(parts)
        self.fixed: dict[str, list[float]] = {}
        if trained is not None:
            if len(trained) != len(units):
                raise ResidualError(f"{len(units)} units need as many trained weights, got {len(trained)}.")
            self.fixed["trained"] = trained.detach().abs().tolist()
            if bases is not None:
                variances = [own.sum() for own in bases.select(units).eigenvalues]
                self.fixed["effect"] = (trained.detach().abs().cpu() * torch.stack(variances).sqrt()).tolist()
        if bases is not None and dictionary is not None:
            self.fixed["pursuit"] = pursuit_scores(bases.select(units), dictionary, atoms).tolist()
        self.span = span_of(classifier.weights, store.linearization.output_dim)
        self.agreement: Agreement = agreement_of(store, units, parts, device=device, progress=told[0])
        self.hits = solo_hits(store, classifier, units, device=device, progress=told[1])

    def scores(self, half: Sequence[int] | None) -> Mapping[str, list[float]]:
        rows = slice(None) if half is None else torch.isin(self.parts, torch.tensor(half))
        return {
            **self.fixed,
            "accuracy": self.hits[rows].double().mean(0).tolist(),
            "span": self.agreement.correlation(self.span, half).tolist(),
            "correlation": self.agreement.correlation(None, half).tolist(),
        }


class _Measure:
    """Accuracies with their intervals, from which samples were right."""

    def __init__(self, store: Store, sides: list[Tensor], apart: bool):
        self.sides, self.apart = sides, apart
        self.groups = None if store.groups is None else torch.from_numpy(np.asarray(store.groups))
        if self.groups is not None:
            missing = [side for side in sides if len(self.groups[side].unique()) < len(self.groups.unique())]
            self.groups = None if missing else self.groups
        self.everything = torch.ones_like(sides[0])

    def alone(self, hits: Bool[Tensor, " n"]) -> dict[str, float]:
        """Of one selection, the same for all seeds."""
        return self._row([hits], [hits] * len(self.sides))

    def compared(
        self, point: list[Tensor], of_seeds: list[Tensor], drawn: list[Tensor], full: Tensor
    ) -> dict:
        """Of a selection, and how far it is above the mean of random ones and above all units."""
        row = self._row(point, of_seeds)
        for name, others in (("over_random", drawn), ("over_full", [full])):
            values = [
                _accuracy(own, side) - np.mean([_accuracy(other, side) for other in others])
                for own, side in zip(of_seeds, self.sides, strict=True)
            ]
            centre = self._mean(point) - self._mean(others)
            row |= _interval(name, float(np.mean(values)) if self.apart else centre, values)
        return row

    def _row(self, point: list[Tensor], of_seeds: list[Tensor]) -> dict[str, float]:
        row = {}
        measures = {"accuracy": _accuracy}
        if self.groups is not None:
            measures["worst_group"] = partial(_worst, groups=self.groups)
        for name, of in measures.items():
            values = [of(own, side) for own, side in zip(of_seeds, self.sides, strict=True)]
            centre = float(np.mean([of(own, self.everything) for own in point]))
            row |= _interval(name, float(np.mean(values)) if self.apart else centre, values)
        return row

    def _mean(self, hits: list[Tensor]) -> float:
        return float(np.mean([_accuracy(own, self.everything) for own in hits]))


def _accuracy(hits: Tensor, side: Tensor) -> float:
    return hits[side].double().mean().item()


def _worst(hits: Tensor, side: Tensor, groups: Tensor) -> float:
    own, right = groups[side], hits[side].double()
    return min(right[own == group].mean().item() for group in own.unique())


def _interval(name: str, centre: float, values: list[float]) -> dict[str, float]:
    half = t95(len(values) - 1) * float(np.std(values, ddof=1))
    return {name: centre, f"{name}_low": centre - half, f"{name}_high": centre + half}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 40 else f"{text[:37]}…"
