"""Which samples are classified right from one unit, or from a selection of units, in coordinates.

A unit's logits need `(h + 2) × c` numbers instead of `d × c`, and those of a selection are their sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from residual.devices import find_device
from residual.errors import ResidualError
from residual.heads.agreement import mean_contributions
from residual.heads.contributions import check_labels, check_mode, kept_units
from residual.heads.passes import batches_of
from residual.progress import Progress
from residual.store.base import Store
from residual.text.classifier import ZeroShotClassifier
from residual.tracing.coordinates import Coordinates

_LOGITS = 2**24  # held at a time


def solo_hits(
    store: Store,
    classifier: ZeroShotClassifier,
    units: Sequence[int],
    *,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Bool[Tensor, "n u"]:
    """Which samples the classifier gets right from each unit's contribution alone.

    Raises:
        ResidualError: a classifier of another width, or labels that don't fit its classes.
    """
    logits_of, truth = _UnitLogits(store, classifier, find_device(device)), torch.from_numpy(store.labels)
    hits = torch.empty(len(store), len(units), dtype=torch.bool)
    for rows, batch in batches_of(store, logits_of.device, progress):
        for place, unit in enumerate(units):
            hits[rows, place] = logits_of(batch, unit).argmax(1).cpu() == truth[rows]
    return hits


def selection_hits(
    store: Store,
    classifier: ZeroShotClassifier,
    selections: Mapping[str, Sequence[int] | np.ndarray | Tensor],
    mode: str = "zero",
    means: Float[Tensor, "u d"] | None = None,
    *,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Bool[Tensor, "n s"]:
    """Which samples the classifier gets right from some units only, for many selections in one pass.

    Equal to classifying `ablate(store.contributions(), keep, mode)` for each of them.

    Args:
        store: coordinates.
        classifier: of its classes.
        selections: for each name the units that stay, positions or a mask.
        mode: "zero" or "mean", see `ablate`.
        means: contributions at which the others are put, by default their means over this store
            (`mean_contributions`).
        device: where to compute; by default the GPU if there is one, else the CPU.
        progress: called with the number of samples done and their total.

    Raises:
        ResidualError: an unknown mode or unit, a unit that the store doesn't keep, or a classifier or labels
            that don't fit.
    """
    check_mode(mode)
    count = len(store.units)
    masks = torch.stack([kept_units(keep, count) for keep in selections.values()]).float()  # (s, u)
    held = [unit for unit in range(count) if store.units["kind"].iloc[unit] in store.kinds]
    if missing := sorted(set(masks.any(0).nonzero()[:, 0].tolist()) - set(held)):
        raise ResidualError(f"The store doesn't keep units {missing}, only {', '.join(store.kinds)}.")
    logits_of, truth = _UnitLogits(store, classifier, find_device(device)), torch.from_numpy(store.labels)
    constant = torch.zeros(len(masks), len(classifier))
    if mode == "mean":
        means = mean_contributions(store, device=device) if means is None else means
        constant = (1 - masks[:, held]) @ (means[held].double() @ logits_of.weights.cpu()).float()
    masks, constant = masks[:, held].to(logits_of.device), constant.to(logits_of.device)
    hits = torch.empty(len(store), len(masks), dtype=torch.bool)
    rows_at_once = max(1, _LOGITS // (len(held) * len(classifier)))
    for rows, batch in batches_of(store, logits_of.device, progress, rows_at_once):
        logits = torch.stack([logits_of(batch, unit) for unit in held])  # (u, n, c)
        chosen = (masks @ logits.flatten(1)).view(len(masks), *logits.shape[1:]) + constant[:, None]
        hits[rows] = (chosen.argmax(2).cpu() == truth[rows]).T
    return hits


class _UnitLogits:
    """Logits of one unit's contribution alone, but for the scale and the norm that no class depends on."""

    def __init__(self, store: Store, classifier: ZeroShotClassifier, device: torch.device):
        linearization = store.linearization
        if classifier.dim != linearization.output_dim:
            raise ResidualError(
                f"The classifier takes features of width {classifier.dim}, the encoder's output has "
                f"{linearization.output_dim}."
            )
        check_labels(store.labels, len(store), len(classifier))
        self.linearization, self.device = linearization, device
        self.weights = classifier.weights.detach().double().T.to(device)  # (d, c)
        self.maps: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, batch: Coordinates, unit: int) -> Float[Tensor, "n c"]:
        if unit not in self.maps:
            parts = self.linearization.matrix(unit), self.linearization.offset(unit)
            matrix, offset = (part.to(self.weights) @ self.weights for part in parts)
            self.maps[unit] = matrix.float(), offset.float()
        matrix, offset = self.maps[unit]
        return torch.addmm(offset, self.linearization.features(batch, unit).float(), matrix)
