"""Scores of all units of a store, one column a score: which of them does a task need?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.devices import find_device
from residual.errors import ResidualError
from residual.heads.agreement import agreement_of
from residual.heads.contributions import check_method, mean_correlation, ranks, span_of
from residual.heads.hits import solo_hits
from residual.progress import Progress
from residual.spectral.bases import SpectralBases
from residual.store.base import Store
from residual.text.classifier import ZeroShotClassifier
from residual.text.dictionary import TextDictionary
from residual.text.pursuit import somp, weighted_components
from residual.tracing.units import KINDS

SCORES = {
    "correlation": "(U) correlation with the output",
    "span": "(U|T) the same in the span of the classes",
    "accuracy": "(S) accuracy alone",
    "pursuit": "(P) variance that texts explain",
}


def score_units(
    store: Store,
    classifier: ZeroShotClassifier,
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
        classifier: of its classes.
        scores: which of `SCORES`.
        kinds: of the units.
        method: of correlation. "pearson" needs one pass; "spearman" makes the contributions of one unit
            after the other.
        bases: for "pursuit", of these units; see `pursuit_scores`.
        dictionary: for "pursuit".
        atoms: for "pursuit".
        device: where to compute; by default the GPU if there is one, else the CPU.
        progress: called with the number of samples done and their total, in each pass.

    Raises:
        ResidualError: an unknown score, kind or method, a store that keeps only some kinds, or a classifier,
            labels or bases that don't fit.
    """
    check_method(method)
    if unknown := [name for name in scores if name not in SCORES]:
        raise ResidualError(f"Unknown scores: {', '.join(unknown)}. Known: {', '.join(SCORES)}.")
    units = store.linearization.units.positions(kinds)
    found = store.units.iloc[units].reset_index(drop=True)
    spans = {"correlation": None, "span": classifier.weights}
    wanted = {name: span for name, span in spans.items() if name in scores}
    if wanted:
        check_whole(store)
        values = _correlations(store, units, list(wanted.values()), method, device, progress)
        found = found.assign(**dict(zip(wanted, values, strict=True)))
    if "accuracy" in scores:
        hits = solo_hits(store, classifier, units, device=device, progress=progress)
        found["accuracy"] = hits.double().mean(0).numpy()
    if "pursuit" in scores:
        if bases is None or dictionary is None:
            raise ResidualError("The score 'pursuit' needs bases of the units and a dictionary.")
        found["pursuit"] = pursuit_scores(bases.select(units), dictionary, atoms).numpy()
    return found


def pursuit_scores(bases: SpectralBases, dictionary: TextDictionary, atoms: int = 10) -> Float[Tensor, " r"]:
    """The part of each unit's variance that the texts chosen by `somp` explain (Head Pursuit, Basile et al.
    2025, arXiv 2510.21518); 0 for a unit that is constant. With fewer entries than `atoms`, all are chosen.

    Raises:
        ResidualError: as `somp`.
    """
    found, atoms = [], min(atoms, len(dictionary))
    for unit, own in zip(bases.units, bases.components, strict=True):
        rows = weighted_components(bases, unit)
        pursuit = somp(rows, dictionary, atoms, "std", centre=False) if len(own) else None
        found.append(0.0 if pursuit is None else pursuit.explained_variance[-1].item())
    return torch.tensor(found, dtype=torch.float64)


def check_whole(store: Store) -> None:
    """Refuse a store whose units don't sum to the output."""
    if missing := [kind for kind in KINDS if kind not in store.kinds]:
        raise ResidualError(
            f"{store.dataset} was encoded without units of kind {', '.join(missing)}, so its units don't sum "
            "to the output: encode it with all kinds."
        )


def _correlations(
    store: Store,
    units: list[int],
    spans: list[Tensor | None],
    method: str,
    device: str | torch.device | None,
    progress: Progress | None,
) -> Iterator[list[float]]:
    width = store.linearization.output_dim
    bases = [None if span is None else span_of(span, width) for span in spans]
    if method == "pearson":
        agreement = agreement_of(store, units, device=device, progress=progress)
        for basis in bases:
            yield agreement.correlation(basis).tolist()
        return
    where = find_device(device)
    output = store.output().to(where, torch.float64)
    for basis in bases:
        turn = _turn(basis, where)
        total, values = ranks(turn(output)), []
        for done, unit in enumerate(units, 1):
            own = store.contributions(units=[unit])[:, 0].to(where, torch.float64)
            values.append(mean_correlation(ranks(turn(own)), total).item())
            if progress is not None:
                progress("match texts", done, len(units))
        yield values


def _turn(basis: Tensor | None, device: torch.device) -> Callable[[Tensor], Tensor]:
    if basis is None:
        return lambda rows: rows
    columns = basis.to(device)
    return lambda rows: rows @ columns
