"""Which samples of a store are classified correctly by one unit, or by a selection of units.

All is done in coordinates: a unit's logits need `(h + 2) × c` numbers instead of `d × c`, and those of a
selection are their sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from residual.devices import find_device
from residual.errors import ResidualError
from residual.finite import all_measured, check_finite, correct, hits
from residual.heads.contributions import kept_units
from residual.progress import Progress
from residual.store.base import Store, parts_of
from residual.text.classifier import ZeroShotClassifier, checked_labels
from residual.tracing.ablated import check_mode
from residual.tracing.coordinates import Coordinates
from residual.tracing.units import UnitsLike

_ROWS = 1024  # read at a time
_LOGITS = 2**24  # held at a time


def correct_by_unit(
    store: Store,
    classifier: ZeroShotClassifier,
    units: UnitsLike,
    *,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Bool[Tensor, "n u"]:
    """Which samples the classifier gets right from each unit's contribution alone.

    Raises:
        ResidualError: a classifier of another width, labels that don't fit its classes, a store with several
            tokens an image, or one that holds NaN.
    """
    units = store.linearization.units.checked(units)
    logits_of = _UnitLogits(store, classifier, find_device(device))
    right = torch.empty(len(store), len(units), dtype=torch.bool)
    for rows, batch in batches_of(store, logits_of.device, progress):
        measured = [hits(logits_of(batch, unit), logits_of.labels[rows]) for unit in units]
        if measured:
            right[rows] = all_measured(torch.stack(measured).cpu()).T  # one wait for the device
    return right


def correct_by_selection(
    store: Store,
    classifier: ZeroShotClassifier,
    selections: Mapping[str, UnitsLike],
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
        selections: for each name the units that stay, see `Units.checked`.
        mode: "zero" or "mean", see `ablate`.
        means: contributions at which the others are put, by default their means over this store
            (`mean_contributions`).
        device: where to compute; by default the GPU if there is one, else the CPU.
        progress: told of the samples that are done.

    Raises:
        ResidualError: an unknown mode or unit, a unit that the store doesn't keep, or a classifier or labels
            that don't fit; or a store that holds NaN.
    """
    check_mode(mode)
    units = store.linearization.units
    masks = torch.stack(
        [kept_units(keep, len(units), units) for keep in selections.values()]
    ).float()  # (s, u)
    stored = units.positions(store.kinds)
    if missing := sorted(set(masks.any(0).nonzero()[:, 0].tolist()) - set(stored)):
        raise ResidualError(f"The store doesn't keep units {missing}, only {', '.join(store.kinds)}.")
    masks = masks[:, stored]
    logits_of = _UnitLogits(store, classifier, find_device(device))
    constant = torch.zeros(len(masks), len(classifier))
    if mode == "mean":
        means = mean_contributions(store, device=device) if means is None else means
        constant = (1 - masks) @ (means[stored].double() @ logits_of.weights.cpu()).float()
    masks, constant = masks.to(logits_of.device), constant.to(logits_of.device)
    right = torch.empty(len(store), len(masks), dtype=torch.bool)
    at_once = max(1, _LOGITS // (len(stored) * len(classifier)))
    for rows, batch in batches_of(store, logits_of.device, progress, at_once):
        logits = torch.stack([logits_of(batch, unit) for unit in stored])  # (u, n, c)
        chosen = (masks @ logits.flatten(1)).view(len(masks), *logits.shape[1:]) + constant[:, None]
        right[rows] = correct(chosen, logits_of.labels[rows]).T.cpu()
    return right


def mean_contributions(
    store: Store, *, device: str | torch.device | None = None, progress: Progress | None = None
) -> Float[Tensor, "u d"]:
    """Mean contribution of every unit that the store keeps; zero for the others. Float64, on the CPU.

    Raises:
        ResidualError: a store with several tokens an image, or one that holds NaN.
    """
    linearization, stored = store.linearization, store.linearization.units.positions(store.kinds)
    sums: dict[int, Tensor] = {}
    for _, batch in batches_of(store, find_device(device), progress, exact=True):
        for unit in stored:
            own = linearization.features(batch, unit).sum(0)
            sums[unit] = sums[unit] + own if unit in sums else own
    means = torch.zeros(len(linearization.units), linearization.output_dim, dtype=torch.float64)
    for unit, total in sums.items():
        means[unit] = total.cpu() / len(store) @ linearization.matrix(unit) + linearization.offset(unit)
    return check_finite(means, f"The means of units of {store.dataset}")


def batches_of(
    store: Store,
    device: torch.device,
    progress: Progress | None,
    rows: int = _ROWS,
    *,
    units: Sequence[int] | None = None,
    exact: bool = False,
) -> Iterator[tuple[slice, Coordinates]]:
    """The store's samples in order, some at a time, on the device; and which they are.

    Args:
        store: with one token an image.
        device: where they are wanted.
        progress: told of the samples that are done.
        rows: how many at a time, at most.
        units: only what these need is read; by default all that is kept.
        exact: features made of them are in float64.

    Raises:
        ResidualError: the store keeps several tokens an image.
    """
    parts = parts_of(len(store), min(rows, _ROWS))
    some = None if units is None else (store.coordinates_of(units, part) for part in parts)
    for part, batch in zip(parts, some or store.batches(min(rows, _ROWS)), strict=True):
        if batch.mean.ndim > 1 and not store.linearization.attends:
            raise ResidualError(
                f"{store.dataset} was encoded with pooling {store.pooling!r}, several tokens an image, and "
                "labels and pictures belong to images: encode it with one token."
            )
        batch = batch.to(device)
        yield part, replace(batch, mean=batch.mean.double(), std=batch.std.double()) if exact else batch
        if progress is not None:
            progress("read store", min(part.stop, len(store)), len(store))


class _UnitLogits:
    """Logits of one unit's contribution alone, but for the scale and the norm that no class depends on."""

    def __init__(self, store: Store, classifier: ZeroShotClassifier, device: torch.device):
        linearization = store.linearization
        if classifier.dim != linearization.output_dim:
            raise ResidualError(
                f"The classifier takes features of width {classifier.dim}, the encoder's output has "
                f"{linearization.output_dim}."
            )
        self.linearization, self.device = linearization, device
        self.labels = checked_labels(store.labels, len(store), len(classifier)).to(device)
        self.weights = classifier.weights.detach().double().T.to(device)  # (d, c)
        self.maps: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, batch: Coordinates, unit: int) -> Float[Tensor, "n c"]:
        if unit not in self.maps:
            parts = self.linearization.matrix(unit), self.linearization.offset(unit)
            matrix, offset = (part.to(self.weights) @ self.weights for part in parts)
            self.maps[unit] = matrix.float(), offset.float()
        matrix, offset = self.maps[unit]
        return torch.addmm(offset, self.linearization.features(batch, unit).float(), matrix)
