"""Moments of every unit's small features: what has to be kept of a pass over samples to fit bases.

Memory doesn't grow with the samples, and the moments of several passes, on several machines, merge into those
of all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError
from residual.files import shareable_split
from residual.outputs import check_file
from residual.products import MOMENTS
from residual.spectral.bases import Origin, SpectralBases, whole_note
from residual.spectral.pca import PCA, Moments, components_of, components_of_image
from residual.store.base import Store
from residual.store.form import FormError, check_form
from residual.tensor_files import load_tensors, save_tensors
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.units import KINDS, checked_kinds
from residual.versions import told_by_version

_NOTE = {"split": str, "kinds": [str], "held": [str], "counts": [int], "progress": {}}
Contents = tuple[int, list[tuple[int, dict[str, Tensor]]]]
_ROOM = 2**23  # numbers in float64 that are held of a group of units' features at a time: 64 MB


class UnitMoments:
    """Moments of the features of an encoder's units, from which their bases follow.

    Means are kept of all units that coordinates hold, covariances of those of some kinds. A unit whose
    features are more than twice as wide as the output, as the MLPs of an encoder with an attention pool, has
    the moments of its contribution taken instead.

    Args:
        linearization: of the encoder.
        kinds: the kinds of unit that get a basis.
        stored: the kinds of unit that coordinates hold.
        origin: what the samples are of; `samples` is counted here.
        device: where to keep them.

    Attributes:
        progress: what whoever fills this notes of how far it is; saved along. `"roads"` in it tells of a
            dataset whose pictures weren't decoded by Pillow where they were, see `decode` of `Encoding`.

    Raises:
        ResidualError: a kind isn't known, or isn't stored.
    """

    def __init__(
        self,
        linearization: Linearization,
        kinds: Sequence[str],
        stored: Sequence[str],
        origin: Origin,
        device: torch.device | str = "cpu",
    ):
        self.linearization, self.device = linearization, torch.device(device)
        self.kinds = checked_kinds(kinds)
        self.chosen = linearization.units.positions(self.kinds)
        if missing := [kind for kind in self.kinds if kind not in stored]:
            raise ResidualError(
                f"The coordinates hold no units of kind {', '.join(missing)}, only {', '.join(stored)}."
            )
        self.stored = tuple(kind for kind in KINDS if kind in stored)
        self.origin = replace(origin, samples=0)
        self.progress: dict[str, Any] = {}
        self._room = torch.empty(0, dtype=torch.float64, device=self.device)
        groups = []  # all heads together, whatever is wide by itself
        for kind in self.stored:
            units = linearization.units.positions(kind)
            groups += [(kind, units)] if kind == "head" else [(kind, [unit]) for unit in units]
        self.groups = [
            _Group(linearization, units, kind in self.kinds, self.device) for kind, units in groups
        ]

    @classmethod
    def of_store(cls, store: Store, kinds: Sequence[str], device: torch.device | str = "cpu") -> UnitMoments:
        """For the coordinates of a store; nothing is taken in yet."""
        return cls(store.linearization, kinds, store.kinds, Origin.of_store(store), device)

    def add_store(self, store: Store) -> None:
        """Make ready for the coordinates of one more store; nothing is taken in yet.

        Raises:
            ResidualError: it is of another encoder, or keeps other kinds of unit.
        """
        origin = Origin.of_store(store)
        self._check(origin, tuple(kind for kind in KINDS if kind in store.kinds))
        self.origin = replace(self.origin, datasets=self.origin.datasets + origin.datasets)

    def update(self, batch: Coordinates) -> None:
        """Take in samples.

        Raises:
            ResidualError: they hold NaN or infinity.
        """
        batch = batch.to(self.device)
        rows = batch if self.linearization.attends else batch.tokens_as_samples()
        for group in self.groups:
            for start in range(0, len(rows), group.rows):
                group.update(rows[start : start + group.rows], self._room)
        self.origin = replace(self.origin, samples=self.origin.samples + len(rows))

    def check(self, other: UnitMoments) -> None:
        """Refuse moments of another encoder or of other units.

        Raises:
            ResidualError: they are.
        """
        self._check(other.origin, other.stored)
        if self.kinds != other.kinds:
            raise ResidualError(
                f"Bases of {', '.join(self.kinds)} can't be made of moments for {', '.join(other.kinds)}."
            )

    def _check(self, theirs: Origin, stored: tuple[str, ...]) -> None:
        self.origin.check_shared(theirs)
        if self.stored != stored:
            raise ResidualError(
                f"The coordinates hold units of other kinds: {', '.join(self.stored)}; {', '.join(stored)}."
                " Keep the same ones in all of them."
            )

    def merge(self, other: UnitMoments) -> None:
        """Take in all that another one has seen; a dataset of both, as of two parts, is named once.

        Raises:
            ResidualError: it is of another encoder or of other units, or a dataset of both was decoded
                otherwise.
        """
        self.check(other)
        theirs, ours = (each._roads() for each in (other, self))
        for name in theirs.keys() & ours.keys():
            if ours[name] != theirs[name]:
                raise ResidualError(
                    f"The parts of {name} can't be merged: pictures of one were decoded on the {ours[name]}, "
                    f"those of the other on the {theirs[name]}.",
                    'Encode one of them again: decode="cpu" goes everywhere.',
                )
        elsewhere = {name: where for name, where in (ours | theirs).items() if where != "cpu"}
        self.progress |= {"roads": elsewhere} if elsewhere else {}
        for group, more in zip(self.groups, other.groups, strict=True):
            group.moments.merge(more.moments)
        self.origin = replace(
            self.origin,
            datasets=tuple(dict.fromkeys(self.origin.datasets + other.origin.datasets)),
            samples=self.origin.samples + other.origin.samples,
        )

    def _roads(self) -> dict[str, str]:
        """Where the pictures of each dataset were decoded."""
        told = self.progress.get("roads", {})
        return {name: told.get(name, "cpu") for name in map(shareable_split, self.origin.datasets)}

    @property
    def contents(self) -> Contents:
        """What was seen, without the linearization: for another process that has that."""
        return self.origin.samples, [(group.moments.count, group.moments.state) for group in self.groups]

    def take_in(self, contents: Contents) -> None:
        """Take in the `contents` of moments of the same units of the same encoder."""
        samples, states = contents
        for group, (count, state) in zip(self.groups, states, strict=True):
            more = Moments(len(group.units), group.width, self.device, scatter=group.whole)
            more.go_on(count, state)
            group.moments.merge(more)
        self.origin = replace(self.origin, samples=self.origin.samples + samples)

    def compute(self) -> SpectralBases:
        """The bases.

        Raises:
            ResidualError: fewer than two samples were seen.
        """
        if self.origin.samples < 2:
            raise ResidualError(f"Principal components need at least 2 samples, got {self.origin.samples}.")
        means, fitted = {}, {}
        for unit, mean, basis in (result for group in self.groups for result in group.results()):
            means[unit] = mean
            if basis is not None:
                fitted[unit] = basis
        everything = len(means) == len(self.linearization.units)
        return SpectralBases(
            units=self.chosen,
            means=torch.stack([fitted[unit].mean for unit in self.chosen]),
            components=[fitted[unit].components for unit in self.chosen],
            eigenvalues=[fitted[unit].eigenvalues for unit in self.chosen],
            all_means=torch.stack([means[unit] for unit in sorted(means)]) if everything else None,
            origin=self.origin,
            structure=self.linearization.units,
        )

    def save(self, path: str | Path, unfinished: bool = False, overwrite: bool = False) -> None:
        """Write as safetensors, with the linearization: enough to merge and to compute; where `unfinished`,
        to go on as if nothing had been between, and in the place of what was there.

        Raises:
            ExistingError, ForeignError: one is there already, see `overwrite`; or something else is.
            ResidualError: the place can't be written to.
        """
        if not unfinished:
            check_file(path, MOMENTS, overwrite)
        tensors = {f"linearization.{name}": value for name, value in self.linearization.state.items()}
        for place, group in enumerate(self.groups):
            moments = group.moments
            kept = moments.state if unfinished else {"mean": moments.mean, "scatter": moments.scatter}
            tensors |= {f"{place}.{name}": value for name, value in kept.items() if value is not None}
        note = {
            "split": self.linearization.centering,
            "kinds": self.kinds,
            "held": self.stored,
            "counts": [group.moments.count for group in self.groups],
            "origin": self.origin.to_json(),
            "progress": self.progress,
        }
        save_tensors(path, "moments", tensors, note)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> UnitMoments:
        """Read what `save` wrote.

        Raises:
            ResidualError: the file isn't there, is damaged, or holds something else, or numbers that aren't
                finite.
        """
        got, note = load_tensors(path, "moments", (*_NOTE, "origin"))
        with told_by_version(path):
            return cls._of_file(got, note, path, device)

    @classmethod
    def _of_file(
        cls, got: dict[str, Tensor], note: dict[str, Any], path: str | Path, device: torch.device | str
    ) -> UnitMoments:
        state = {name.removeprefix("linearization."): got[name] for name in got if name.startswith("lin")}
        with whole_note(path):
            check_form(note, _NOTE, "the note")
            check_form(note["progress"].get("roads", {}), {str: str}, "the roads")
            origin = Origin.of_json(note["origin"], path)
            made = cls(Linearization(state, note["split"]), note["kinds"], note["held"], origin, device)
            if len(note["counts"]) != len(made.groups):
                raise FormError("the note is of other units")
            if set(note["counts"]) != {origin.samples} or origin.samples < 0:
                raise FormError("the note has other counts than its origin")
        for place, (group, count) in enumerate(zip(made.groups, note["counts"], strict=True)):
            kept = {
                name: got.get(f"{place}.{name}") for name in ("shift", "total", "products", "mean", "scatter")
            }
            group.take(count, kept, str(path))
        made.origin, made.progress = origin, note["progress"]
        return made


class _Group:
    """Units whose features are of one width: all heads; or one MLP, or the embedding."""

    def __init__(self, linearization: Linearization, units: list[int], whole: bool, device: torch.device):
        self.linearization, self.units, self.whole = linearization, units, whole
        self.kind = linearization.units.kind(units[0])
        width, output = linearization.matrix(units[0]).shape
        self.narrow = not whole or width <= 2 * output
        self.width = width if self.narrow else output
        self.moments = Moments(len(units), self.width, device, scatter=whole)
        self.rows = max(1, _ROOM // (len(units) * self.width))  # samples taken in at a time

    def take(self, count: int, kept: dict[str, Tensor | None], where: str) -> None:
        """What `UnitMoments.save` wrote of this group, if it can be."""
        exact = kept["shift"] is not None
        vector = (len(self.units), self.width)
        shapes: dict[str, tuple[int, ...]] = {"shift": vector, "total": vector} if exact else {"mean": vector}
        if self.whole:
            shapes["products" if exact else "scatter"] = (*vector, self.width)
        found = {name: value for name, value in kept.items() if value is not None}
        if {name: value.shape for name, value in found.items()} != shapes:
            raise ResidualError(f"{where!r} holds moments of other units than it says.")
        if wrong := [name for name, value in found.items() if not value.sum().isfinite()]:
            raise ResidualError(f"{where!r} holds NaN or infinity in {wrong[0]}.")
        if exact:
            self.moments.go_on(count, found)
        else:
            self.moments.restore(count, found["mean"], found.get("scatter"))

    def update(self, part: Coordinates, room: Tensor) -> None:
        shape = len(self.units), len(part), self.width
        rows = room.resize_(max(room.numel(), math.prod(shape)))[: math.prod(shape)].view(shape)
        self._fill(rows, part)
        self.moments.update(rows, overwrite_x=True)

    def _fill(self, rows: Float[Tensor, "u n f"], part: Coordinates) -> None:
        of = self.linearization
        if self.narrow and not of.attends:  # as `Linearization.features`, with nothing made on the way
            over = 1 / part.std.double()
            rows[..., :-2].copy_(self._own(part).transpose(0, 1)).mul_(over[:, None])
            rows[..., -2] = over
            rows[..., -1] = part.mean.double() * over
            return
        part = replace(part, mean=part.mean.double(), std=part.std.double())  # so that quotients are, too
        for place, unit in enumerate(self.units):
            features = of.features(part, unit)
            if not self.narrow:
                features = features @ of.matrix(unit).to(features) + of.offset(unit).to(features)
            rows[place] = features

    def _own(self, part: Coordinates) -> Float[Tensor, "n u w"]:
        if self.kind == "head":
            return part.field("z").flatten(1, 2)
        return part.of(self.units[0], self.linearization.units)[:, None]

    def results(self) -> Iterator[tuple[int, Tensor, PCA | None]]:
        """Each unit's mean, and its basis if it gets one."""
        of, means = self.linearization, self.moments.mean.cpu()
        covariances = self.moments.covariance.cpu() if self.whole else None
        # Kept in one piece: among what is needed only for a while, many pieces would hold on to all of it.
        most = min(self.width, of.output_dim)
        kept = torch.empty(len(self.units), most if self.whole else 0, of.output_dim, dtype=torch.float64)
        for place, (unit, mean) in enumerate(zip(self.units, means, strict=True)):
            image = (of.matrix(unit), of.offset(unit)) if self.narrow else None
            if covariances is None:
                yield unit, mean if image is None else mean @ image[0] + image[1], None
                continue
            own = covariances[place]
            basis = components_of(mean, own) if image is None else components_of_image(mean, own, *image)
            rows = kept[place, : len(basis.components)]
            yield unit, basis.mean, replace(basis, components=rows.copy_(basis.components))
