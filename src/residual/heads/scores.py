"""Scores of all units of a store, one column a score: which of them does a task need?"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from residual.devices import find_device
from residual.errors import ResidualError
from residual.finite import check_finite
from residual.heads.accuracy import batches_of, correct_by_unit
from residual.heads.contributions import check_method, mean_correlation, mean_ratio, ranks, span_of
from residual.progress import Progress
from residual.spectral.bases import SpectralBases
from residual.store.base import Store
from residual.text.classifier import ZeroShotClassifier
from residual.text.dictionary import TextDictionary
from residual.text.pursuit import somp, weighted_components
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.units import KINDS

SCORES = {
    "correlation": "(U) correlation with the output",
    "span": "(U|T) the same in the span of the classes",
    "accuracy": "(S) accuracy alone",
    "pursuit": "(P) variance that texts explain",
}


def score_units(
    store: Store,
    classifier: ZeroShotClassifier | None,
    scores: Sequence[str] = ("correlation", "span", "accuracy"),
    kinds: Sequence[str] = ("head",),
    *,
    method: str = "pearson",
    bases: SpectralBases | None = None,
    dictionary: TextDictionary | None = None,
    atoms: int = 10,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """The table of units of these kinds with a column for each score.

    Equal to `unit_correlation`, with the encoder's output as the sum and with the classes' embeddings as
    directions, and to `unit_accuracy`, of `store.contributions()`; that block is never made.

    Args:
        store: with all kinds of unit, one token an image.
        classifier: of its classes; None for scores that need none, "correlation" and "pursuit".
        scores: which of `SCORES`.
        kinds: of the units.
        method: of correlation. "pearson" needs one pass; "spearman" makes the contributions of one unit
            after the other.
        bases: for "pursuit", of these units; see `pursuit_scores`.
        dictionary: for "pursuit".
        atoms: for "pursuit".
        device: where to compute; by default the GPU if there is one, else the CPU.
        progress: told of the samples that are done, in each pass.

    Raises:
        ResidualError: an unknown score, kind or method, a store that keeps only some kinds, or a classifier,
            labels or bases that don't fit.
    """
    check_method(method)
    if unknown := [name for name in scores if name not in SCORES]:
        raise ResidualError(f"Unknown scores: {', '.join(unknown)}. Known: {', '.join(SCORES)}.")
    if classifier is None and (needy := [name for name in scores if name in ("span", "accuracy")]):
        raise ResidualError(f"These scores need a classifier: {', '.join(needy)}.")
    units = store.linearization.units.positions(kinds)
    table = store.units.iloc[units].reset_index(drop=True)
    spans: dict[str, Tensor | None] = {"correlation": None} if "correlation" in scores else {}
    if classifier is not None and "span" in scores:
        spans["span"] = span_of(classifier.weights, store.linearization.output_dim)
    if spans:
        check_whole(store)
        values = _correlations(store, units, list(spans.values()), method, device, progress)
        table = table.assign(**dict(zip(spans, values, strict=True)))
    if classifier is not None and "accuracy" in scores:
        correct = correct_by_unit(store, classifier, units, device=device, progress=progress)
        table["accuracy"] = correct.double().mean(0).numpy()
    if "pursuit" in scores:
        if bases is None or dictionary is None:
            raise ResidualError("The score 'pursuit' needs bases of the units and a dictionary.")
        table["pursuit"] = pursuit_scores(bases.select(units), dictionary, atoms).numpy()
    return table


def pursuit_scores(bases: SpectralBases, dictionary: TextDictionary, atoms: int = 10) -> Float[Tensor, " r"]:
    """The part of each unit's variance that the texts chosen by `somp` explain (Head Pursuit, Basile et al.
    2025, arXiv 2510.21518); 0 for a unit that is constant. With fewer entries than `atoms`, all are chosen.

    Raises:
        ResidualError: as `somp`.
    """
    scores = torch.zeros(len(bases), dtype=torch.float64)
    for place, unit in enumerate(bases.units):
        if bases.ranks[place]:
            rows, few = weighted_components(bases, unit), min(atoms, len(dictionary))
            scores[place] = somp(rows, dictionary, few, "std", centre=False).explained_variance[-1]
    return scores


def check_whole(store: Store) -> None:
    """Refuse a store whose units don't sum to the output.

    Raises:
        ResidualError: it was encoded without some kind of unit.
    """
    if missing := [kind for kind in KINDS if kind not in store.kinds]:
        raise ResidualError(
            f"{store.dataset} was encoded without units of kind {', '.join(missing)}, so its units don't sum "
            "to the output: encode it with all kinds."
        )


class OutputCorrelations:
    """How units go along with the output, by parts of the samples, from one pass over a store.

    Correlations of a unit's contribution with the output follow from the covariances of its few features
    with each other and with the output; the `(n, u, d)` block is never made. All is summed less its value for
    the first sample, so that little is lost to rounding.

    Args:
        store: with all kinds of unit, as their sum is the output.
        units: positions of those that are correlated.
        parts: which part each sample is in, counted from 0; by default all are in one.
        alone: the sum of these units stands for the output, as in the published code.
        device: where to compute; by default the GPU if there is one, else the CPU.
        progress: told of the samples that are done.

    Raises:
        ResidualError: a store that is empty, has several tokens an image, or holds NaN.
    """

    def __init__(
        self,
        store: Store,
        units: Sequence[int],
        parts: Int[np.ndarray, " n"] | None = None,
        *,
        alone: bool = False,
        device: str | torch.device | None = None,
        progress: Progress | None = None,
    ):
        if not len(store):
            raise ResidualError("The store is empty: there is nothing to score units by.")
        self.linearization = linearization = store.linearization
        where = find_device(device)
        part_of = torch.zeros(len(store), dtype=torch.long) if parts is None else torch.from_numpy(parts)
        self.counts = part_of.bincount()
        for rows, batch in batches_of(store, where, progress, exact=True):
            if alone:
                output = _sum_of(linearization, batch, units)
            else:
                output = linearization.output(batch.to(dtype=torch.float32)).double()
            own_part = part_of[rows].to(where)
            members = [(part, (own_part == part).nonzero()[:, 0]) for part in own_part.unique().tolist()]
            if not rows.start:
                self.output = _Sums(output[0], len(self.counts))
                firsts = {unit: linearization.features(batch[:1], unit)[0] for unit in units}
                self.units = {
                    unit: _UnitSums(first, len(self.counts), output.shape[1])
                    for unit, first in firsts.items()
                }
            output = output - self.output.origin
            outputs = [(part, output if len(members) == 1 else output[who]) for part, who in members]
            for part, mine in outputs:
                self.output.add(part, mine)
            for unit, sums in self.units.items():
                features = linearization.features(batch, unit) - sums.origin
                for (part, who), (_, theirs) in zip(members, outputs, strict=True):
                    mine = features if len(members) == 1 else features[who]
                    sums.add(part, mine)
                    sums.with_output[part].addmm_(mine.T, theirs)
        for sums in (self.output, *self.units.values()):
            check_finite(sums.products, f"Products of the coordinates of {store.dataset}")

    def values(
        self, span: Float[Tensor, "d r"] | None = None, parts: Sequence[int] | None = None
    ) -> Float[Tensor, " u"]:
        """`unit_correlation` of every unit with the output, over the samples of some parts.

        Args:
            span: orthonormal columns (`span_of`); None for the output's own coordinates.
            parts: which; by default all.

        Raises:
            ResidualError: fewer than two samples.
        """
        chosen = list(range(len(self.counts)) if parts is None else parts)
        n = int(self.counts[chosen].sum())
        if n < 2:
            raise ResidualError(f"A correlation needs at least 2 samples, got {n}.")

        total, spread = self.output.mean_and_covariance(chosen, n)
        along = _along(_along(spread, span).T, span).diagonal()
        mean_along = _along(total + self.output.origin, span)
        values = []
        for unit, sums in self.units.items():
            matrix = _along(self.linearization.matrix(unit).to(total), span)  # (f, r)
            offset = _along(self.linearization.offset(unit).to(total), span)
            mean, own = sums.mean_and_covariance(chosen, n)
            both = _along(sums.with_output[chosen].sum(0) / n - torch.outer(mean, total), span)
            variances = ((own @ matrix) * matrix).sum(0)
            means = (mean + sums.origin) @ matrix + offset
            values.append(mean_ratio((matrix * both).sum(0), (variances, along), (means, mean_along)))
        return torch.stack(values).cpu()


def _sum_of(linearization: Linearization, batch: Coordinates, units: Sequence[int]) -> Tensor:
    """The sum of some units' contributions, `(n, d)` in float64."""
    parts = (
        linearization.features(batch, unit) @ linearization.matrix(unit).to(batch.mean)
        + linearization.offset(unit).to(batch.mean)
        for unit in units
    )
    return functools.reduce(torch.add, parts)


class _Sums:
    """Of rows less `origin`, and of their products with each other, in each of `p` parts."""

    def __init__(self, origin: Float[Tensor, " f"], parts: int):
        self.origin = origin.clone()
        self.rows = origin.new_zeros(parts, len(origin))
        self.products = origin.new_zeros(parts, len(origin), len(origin))

    def add(self, part: int, rows: Float[Tensor, "m f"]) -> None:
        self.rows[part] += rows.sum(0)
        self.products[part].addmm_(rows.T, rows)

    def mean_and_covariance(self, parts: list[int], n: int) -> tuple[Tensor, Tensor]:
        mean = self.rows[parts].sum(0) / n
        return mean, self.products[parts].sum(0) / n - torch.outer(mean, mean)


class _UnitSums(_Sums):
    """Of a unit's features; and of their products with the output, less that of the first sample."""

    def __init__(self, origin: Float[Tensor, " f"], parts: int, width: int):
        super().__init__(origin, parts)
        self.with_output = origin.new_zeros(parts, len(origin), width)


def _correlations(
    store: Store,
    units: list[int],
    spans: list[Tensor | None],
    method: str,
    device: str | torch.device | None,
    progress: Progress | None,
) -> Iterator[list[float]]:
    if method == "pearson":
        correlations = OutputCorrelations(store, units, device=device, progress=progress)
        yield from (correlations.values(span).tolist() for span in spans)
        return
    where = find_device(device)
    output = check_finite(store.output().to(where, torch.float64), f"Outputs of {store.dataset}")
    for span in spans:
        total, values = ranks(_along(output, span)), []
        for done, unit in enumerate(units, 1):
            own = store.contributions(units=[unit])[:, 0].to(where, torch.float64)
            check_finite(own, f"Contributions of unit {unit}")
            values.append(mean_correlation(ranks(_along(own, span)), total).item())
            if progress is not None:
                progress("correlate units", done, len(units))
        yield values


def _along(rows: Tensor, span: Tensor | None) -> Tensor:
    """Coordinates in an orthonormal basis, its columns; or as they are."""
    return rows if span is None else rows @ span.to(rows)
