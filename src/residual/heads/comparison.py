"""All ways of choosing heads side by side: on the same samples, with the same seeds and numbers of heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from residual.errors import ResidualError
from residual.heads.accuracy import correct_by_selection, correct_by_unit, mean_contributions
from residual.heads.contributions import span_of
from residual.heads.scores import OutputCorrelations, check_whole, pursuit_scores
from residual.heads.selections import COUNTINGS, SHARES, are_shares, count_of, random_units, top_units
from residual.intervals import t95, warn_of_few
from residual.progress import Progress, named
from residual.settings import MOST_SEEDS, PAPER, check_settings, setting
from residual.spectral.bases import SpectralBases
from residual.store.base import Store
from residual.store.shared import Seen, check_apart
from residual.text.classifier import ZeroShotClassifier
from residual.text.dictionary import TextDictionary
from residual.tracing.ablated import MODES
from residual.tracing.units import KINDS

WAYS = {
    "accuracy": "S",
    "span": "U|T",
    "correlation": "U",
    "head_span": "U|T heads",
    "head_correlation": "U heads",
    "pursuit": "P",
    "trained": "O",
    "effect": "Oσ",
    "random": "R",
}
_PARTS, _FEWEST = 8, 4  # of the samples that units are chosen by; each seed takes half of them


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
        alone: correlate units with the sum of these units alone as well, as the published code does: in the
            classes' span as there, and in the output's coordinates (there along a basis of the sums).
        counting: see `count_of`; "published" has the single best head besides, at share 0.

    Raises:
        ResidualError: one is out of range.
    """

    shares: tuple[float, ...] = setting(
        SHARES, holds=are_shares, takes="a list of numbers, each above 0 and at most 1", source=PAPER
    )
    seeds: int = setting(10, least=2, most=MOST_SEEDS, source=PAPER)
    seed: int = setting(0, least=0)
    mode: str = setting("zero", choices=MODES, source=PAPER)
    atoms: int = setting(10, least=1, source=PAPER)
    kinds: tuple[str, ...] = setting(("head",), choices=KINDS, source=PAPER)
    alone: bool = False
    counting: str = setting("rounded", choices=COUNTINGS)

    def __post_init__(self):
        check_settings(self)

    def counts(self, units: int) -> dict[float, int]:
        """How many of the units each share is."""
        counts = {share: count_of(share, units, self.counting) for share in self.shares}
        return ({0.0: 1} if self.counting == "published" else {}) | counts


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
        SharedSamplesError: more than a tenth of the samples of `test` are in `store`, too.
        ResidualError: fewer than 4 samples to choose by, stores of different encoders or classes, or as
            `score_units`.
    """
    settings = settings or ScoreboardSettings()
    check_whole(store)
    if test is not None:
        check_alike(store, test)
        check_apart(Seen.of(store), Seen.of(test), "heads are chosen by")
    warn_of_few(len(store if test is None else test))
    if len(store) < _FEWEST:
        raise ResidualError(
            f"Heads are chosen by halves of the samples, which needs {_FEWEST} at least, and {store.dataset} "
            f"has {len(store)}: encode more of it."
        )

    units = store.linearization.units.positions(settings.kinds)
    random = np.random.default_rng(settings.seed)
    count = min(_PARTS, len(store))
    parts = random.permutation(len(store)) % count
    halves = [random.permutation(count)[: count // 2].tolist() for _ in range(settings.seeds)]
    given = _given_scores(units, trained, bases, dictionary, settings.atoms)
    correlations = OutputCorrelations(
        store, units, parts, device=device, progress=named(progress, "correlate units")
    )
    alone = correct_by_unit(
        store, classifier, units, device=device, progress=named(progress, "test units alone")
    )
    span = span_of(classifier.weights, store.linearization.output_dim)
    of_heads = None
    if settings.alone:
        stage = named(progress, "correlate units with each other")
        of_heads = OutputCorrelations(store, units, parts, alone=True, device=device, progress=stage)

    def scores(half: Sequence[int] | None) -> dict[str, Sequence[float]]:
        """By all ways but at random, from the samples of half of the parts, or from all."""
        rows = slice(None) if half is None else torch.from_numpy(np.isin(parts, half))
        return {
            **given,
            "accuracy": alone[rows].double().mean(0).tolist(),
            "span": correlations.values(span, half).tolist(),
            "correlation": correlations.values(None, half).tolist(),
        } | (
            {}
            if of_heads is None
            else {
                "head_span": of_heads.values(span, half).tolist(),
                "head_correlation": of_heads.values(None, half).tolist(),
            }
        )

    of_all, counts = scores(None), settings.counts(len(units))
    chosen: dict[tuple[str, float, int], list[int]] = {}  # seed -1: all samples
    for seed, values in enumerate([of_all, *map(scores, halves)], -1):
        for share, count in counts.items():
            for name in of_all:
                chosen[name, share, seed] = top_units(values[name], count, units)
            chosen["random", share, seed] = random_units(units, count, settings.seed + max(seed, 0))
    whole = {"all units": list(range(len(store.units))), "all heads": units}
    tested = store if test is None else test
    selections = {str(keep): keep for keep in [*whole.values(), *chosen.values()]}
    means = mean_contributions(store, device=device) if settings.mode == "mean" else None
    correct = correct_by_selection(
        tested,
        classifier,
        selections,
        settings.mode,
        means,
        device=device,
        progress=named(progress, "test selections"),
    )
    if test is None:  # each seed tests on what it hasn't chosen by
        sides = np.stack([~np.isin(parts, half) for half in halves])
    else:
        half = (len(test) + 1) // 2
        sides = np.stack([random.permutation(len(test)) < half for _ in range(settings.seeds)])
    estimates = _Estimates(correct, sides, tested.groups, halved=test is None)
    column = {name: place for place, name in enumerate(selections)}
    full = column[str(whole["all units"])]
    rows = [
        {"way": name, "share": np.nan, "heads": len(keep), **estimates.of_one(column[str(keep)])}
        for name, keep in whole.items()
    ]
    for share in counts:
        drawn = [column[str(chosen["random", share, seed])] for seed in range(settings.seeds)]
        for name in [name for name in WAYS if name in (*of_all, "random")]:
            of_seeds = [column[str(chosen[name, share, seed])] for seed in range(settings.seeds)]
            point = drawn if name == "random" else [column[str(chosen[name, share, -1])]]
            row = {"way": name, "share": share, "heads": len(chosen[name, share, -1])}
            rows.append(row | estimates.compared(point, of_seeds, drawn, full))
    return Scoreboard(
        rows=pd.DataFrame(rows),
        scores=store.units.iloc[units].reset_index(drop=True).assign(**of_all),
        selections={f"{name} {share:g}": keep for (name, share, seed), keep in chosen.items() if seed == -1},
    )


def check_alike(store: Store, test: Store) -> None:
    """Refuse two stores of different encoders, poolings or classes.

    Raises:
        ResidualError: they are.
    """
    for what in ("fingerprint", "centering", "pooling", "class_names"):
        ours, theirs = getattr(store, what), getattr(test, what)
        if ours != theirs:
            raise ResidualError(
                f"{store.dataset} and {test.dataset} don't belong together: {what} {_short(ours)} and "
                f"{_short(theirs)}."
            )


def _given_scores(
    units: list[int],
    trained: Tensor | None,
    bases: SpectralBases | None,
    dictionary: TextDictionary | None,
    atoms: int,
) -> dict[str, list[float]]:
    """The scores that don't depend on which samples heads are chosen by."""
    scores: dict[str, list[float]] = {}
    if trained is not None:
        if len(trained) != len(units):
            raise ResidualError(f"{len(units)} units need as many trained weights, got {len(trained)}.")
        weights = trained.detach().abs().cpu()
        scores["trained"] = weights.tolist()
        if bases is not None:
            variances = torch.stack([own.sum() for own in bases.select(units).eigenvalues])
            scores["effect"] = (weights * variances.sqrt()).tolist()
    if bases is not None and dictionary is not None:
        scores["pursuit"] = pursuit_scores(bases.select(units), dictionary, atoms).tolist()
    return scores


class _Estimates:
    """Accuracies of selections with their intervals, from which samples they got right.

    Args:
        correct: a column a selection.
        sides: the samples that each seed tests on.
        groups: of the samples; the worst one counts only if every seed tests on all of them.
        halved: seeds test on what they haven't chosen by, so that their mean is the estimate.
    """

    def __init__(
        self,
        correct: Bool[Tensor, "n s"],
        sides: Bool[np.ndarray, "k n"],
        groups: np.ndarray | None,
        halved: bool,
    ):
        self.halved = halved
        rows = np.concatenate([np.ones_like(sides[:1]), sides]).astype(np.float32)  # the first: all samples
        right = correct.float().numpy()
        self.measures = {"accuracy": _shares(rows, right)}  # (1 + k, s)
        members = [] if groups is None else _members(groups)
        if members and all((rows[:, own].sum(1) > 0).all() for own in members):
            of_groups = [_shares(rows[:, own], right[own]) for own in members]
            self.measures["worst_group"] = np.min(of_groups, axis=0)

    def of_one(self, selection: int) -> dict[str, float]:
        """Of one selection, the same for all seeds."""
        seeds = len(self.measures["accuracy"]) - 1
        return self._row([selection], [selection] * seeds)

    def compared(
        self, point: list[int], of_seeds: list[int], drawn: list[int], full: int
    ) -> dict[str, float]:
        """Of a selection by seed, and how far it is above the mean of random ones and above all units."""
        row, accuracy = self._row(point, of_seeds), self.measures["accuracy"]
        for name, others in (("over_random", drawn), ("over_full", [full])):
            base = accuracy[:, others].mean(1)
            row |= self._interval(name, accuracy - base[:, None], point, of_seeds)
        return row

    def _row(self, point: list[int], of_seeds: list[int]) -> dict[str, float]:
        row: dict[str, float] = {}
        for name, values in self.measures.items():
            row |= self._interval(name, values, point, of_seeds)
        return row

    def _interval(
        self, name: str, values: Float[np.ndarray, "_ s"], point: list[int], of_seeds: list[int]
    ) -> dict[str, float]:
        seeds = values[np.arange(1, len(values)), of_seeds]
        centre = float(seeds.mean() if self.halved else values[0, point].mean())
        half = t95(len(seeds) - 1) * float(seeds.std(ddof=1))
        return {name: centre, f"{name}_low": centre - half, f"{name}_high": centre + half}


def _members(groups: np.ndarray) -> list[np.ndarray]:
    """Positions of the samples of each group."""
    together = np.argsort(groups, kind="stable")
    return np.split(together, np.unique(np.asarray(groups)[together], return_index=True)[1][1:])


def _shares(rows: Float[np.ndarray, "k m"], right: Float[np.ndarray, "m s"]) -> Float[np.ndarray, "k s"]:
    """Which part of the samples of each side is right. Counts of up to 2²⁴ are exact in float32."""
    return (rows @ right).astype(np.float64) / rows.sum(1, dtype=np.float64)[:, None]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 40 else f"{text[:37]}…"
