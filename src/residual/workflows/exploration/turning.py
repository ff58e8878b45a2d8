"""Logits of every sample while units are turned, so fast that a drag is answered.

A unit's contribution is affine in its few features, `c = f M + o` (`Linearization`), and a class's logit, but
for the scale and the output's length, is `⟨Σ c, w⟩`: which class is the largest depends on no length. So the
sums `(n, c)` of the last state are kept, and another state changes them by what differs:

    Σ_u f_u (M_u ΔB_u W) + const                          a unit as a whole
    Σ_k Δa_k (f_u M_u φ_k + ⟨o_u − m_u, φ_k⟩) ⊗ φ_k W     single components of it

with `B_u = w (1 + Σ_k (λ_k − 1) φ_k φ_kᵀ)` (`UnitEdit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import RLock

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from residual.adapters.methods import Edited, UnitEdit
from residual.errors import ResidualError
from residual.finite import check_finite
from residual.heads.accuracy import batches_of
from residual.heads.scores import check_whole
from residual.text.classifier import ZeroShotClassifier
from residual.tracing.linearization import Linearization
from residual.workflows.exploration.bounded import Bounded, once
from residual.workflows.exploration.parts import Parts
from residual.workflows.exploration.states import PLAIN, Edit, State

_STEPS = 64  # by differences, before sums are made anew
_DOUBLE = 2**22  # sums of fewer numbers are held in float64
_LARGEST = 2**28  # sums of all bases: 1 GB, and as much for the states of them
_ROWS = 1024
_MAPS = 2**28  # bytes of units' maps that are kept
_KEPT = 4096  # outputs of pictures that were looked at


UnitMap = tuple[Float[Tensor, "f d"], Float[Tensor, " d"], Float[Tensor, " d"]]


@dataclass(frozen=True)
class Base:
    """What is turned: the encoder itself, or with an adapter.

    Args:
        adapter: its key, or None.
        linearization: each unit's contribution from its features.
        classifier: of the output.
    """

    adapter: str | None
    linearization: Linearization
    classifier: ZeroShotClassifier


class Turning:
    """Sums of logits of the last few states of a store, and what follows from them.

    Args:
        parts: with a store of all kinds of unit.

    Raises:
        ResidualError: the store keeps only some kinds of unit, nothing tells its classes apart, or there are
            too many samples and classes.
    """

    def __init__(self, parts: Parts):
        check_whole(parts.store)
        parts.directions()
        samples, classes = len(parts.store), len(parts.store.class_names)
        if samples * classes * (1 + len(parts.adapters)) > _LARGEST:
            raise ResidualError(
                f"Turning units takes a number of each sample, class and adapter: {samples:,} samples, "
                f"{classes:,} classes and {len(parts.adapters)} adapters are more than the {_LARGEST:,} that "
                "are held in memory.",
                "Encode fewer of the samples to turn units.",
            )
        self.parts, self._lock = parts, RLock()
        self._whole: dict[str | None, Tensor] = {}
        self._last: dict[str | None, tuple[State, Tensor, int]] = {}
        self._maps: Bounded[UnitMap] = Bounded(_MAPS, lambda parts: sum(part.nbytes for part in parts))
        self._outputs: dict[tuple[str | None, int], Tensor] = {}

    @once
    def plain(self) -> Int[np.ndarray, " n"]:
        """The class that each sample is taken for where nothing is turned."""
        return self.answers(State()).numpy()

    def base(self, adapter: str | None) -> Base:
        """What a state of this adapter is of.

        Raises:
            ResidualError: there is no such adapter.
        """
        if adapter is None:
            return Base(None, self.parts.store.linearization, self.parts.classifier)
        held = self.parts.adapter(adapter)
        return Base(adapter, held.linearization, held.classifier or self.parts.classifier)

    def sums(self, state: State) -> Float[Tensor, "n c"]:
        """`⟨o', w⟩` of every sample and class: logits but for the scale and the length of `o'`. The next call
        changes it.
        """
        with self._lock:
            whole = self._whole_of(state.adapter)
            last, sums, steps = self._last.get(state.adapter, (None, whole, _STEPS))
            if last is None or steps >= _STEPS or last.mode != state.mode or _further(last, state):
                last, sums, steps = State(adapter=state.adapter, mode=state.mode), whole.clone(), 0
            self._last.pop(state.adapter, None)  # what fails half-way leaves nothing behind
            before, after = dict(last.edits), dict(state.edits)
            for unit in sorted({*before, *after}):
                old, new = before.get(unit, PLAIN), after.get(unit, PLAIN)
                if old != new:
                    self._change(sums, state, unit, old, new)
            self._last[state.adapter] = state, sums, steps + (last != state)
            return sums

    def answers(self, state: State) -> Int[Tensor, " n"]:
        """The class that each sample is taken for.

        Raises:
            ResidualError: an unknown adapter, a component that a unit hasn't got, or sums that aren't finite.
        """
        with self._lock:
            sums = self.sums(state)
            if not bool(sums.sum().isfinite()):
                check_finite(sums, "The logits")
            return sums.argmax(1)

    def outputs(self, state: State, positions: list[int]) -> Float[Tensor, "m d"]:
        """`o'` itself, of some samples, in float64."""
        with self._lock:
            base = self.base(state.adapter)
            output = self._outputs_of(state.adapter, base, positions)
            for unit, edit in state.edits:
                matrix, offset = self._added(base, state.mode, unit, edit)
                output = output + self.parts.features(unit, positions).double() @ matrix + offset
            return output

    def adapter(self, state: State) -> Edited:
        """The same as an adapter of the encoder."""
        base, dim = self.base(state.adapter), self.parts.store.linearization.output_dim
        edits = [self.edit(base, unit, edit) for unit, edit in state.edits]
        own = None if state.adapter is None else self.parts.adapter(state.adapter).adapter
        return Edited(edits, state.mode, own, dim, self.parts.bases.origin)

    def edited(self, state: State) -> Linearization:
        """Each unit's contribution as it is turned, which sum to `o'`."""
        return self.adapter(state).adapted(self.parts.store.linearization)

    def map_of(self, base: Base, unit: int) -> UnitMap:
        """Matrix and offset of a unit, and its mean contribution over the store; in float64."""

        def make() -> UnitMap:
            matrix, offset = base.linearization.matrix(unit), base.linearization.offset(unit)
            return matrix, offset, self.parts.mean(unit) @ matrix + offset

        return self._maps.get((base.adapter, unit), make)

    def _outputs_of(self, adapter: str | None, base: Base, positions: list[int]) -> Tensor:
        """Outputs where nothing is turned, in float64; those of pictures in view are kept."""
        if missing := sorted({place for place in positions if (adapter, place) not in self._outputs}):
            read = self.parts.store.coordinates_of(range(len(self.parts.units)), missing)
            for place, own in zip(
                missing, base.linearization.output(read.to(dtype=torch.float64)), strict=True
            ):
                self._outputs[adapter, place] = own
        found = torch.stack([self._outputs[adapter, place] for place in positions])
        while len(self._outputs) > _KEPT:
            self._outputs.pop(next(iter(self._outputs)))
        return found

    def _whole_of(self, adapter: str | None) -> Tensor:
        """Of the state in which nothing is turned."""
        if adapter not in self._whole:
            base, store = self.base(adapter), self.parts.store
            weights = base.classifier.weights.double().T.cpu()
            if weights.shape[0] != base.linearization.output_dim:
                raise ResidualError(
                    f"The classifier takes features of width {weights.shape[0]}, the encoder's output has "
                    f"{base.linearization.output_dim}."
                )
            wide = torch.float64 if len(store) * weights.shape[1] <= _DOUBLE else torch.float32
            sums = torch.empty(len(store), weights.shape[1], dtype=wide)
            for rows, batch in batches_of(store, torch.device("cpu"), None, _ROWS):
                output = base.linearization.output(batch.to(dtype=torch.float32))
                sums[rows] = (output @ weights.float()).to(wide)
            self._whole[adapter] = check_finite(sums, "The logits")
        return self._whole[adapter]

    def _change(self, sums: Tensor, state: State, unit: int, old: Edit, new: Edit) -> None:
        """Add what becomes of the sums where one unit is turned otherwise."""
        base = self.base(state.adapter)
        weights = base.classifier.weights.double().T.cpu()
        differing, width = _differing(old, new), base.linearization.matrix(unit).shape[0]
        if old.weight == new.weight and len(differing) < min(width, weights.shape[1]):
            rows = self._components(unit, [k for k, _ in differing])
            by = torch.tensor([value for _, value in differing], dtype=torch.float64)
            matrix, offset, mean = self.map_of(base, unit)
            about, along = ((offset - mean) @ rows.T).float(), (matrix @ rows.T).float()
            after = (by[:, None] * rows @ weights).float()  # (r, c)
            for part, block in self.parts.blocks(unit):
                sums[part] += torch.addmm(about, block, along) @ after
        else:
            (matrix, offset), (before, constant) = (
                self._added(base, state.mode, unit, edit) for edit in (new, old)
            )
            after = ((matrix - before) @ weights).float()
            sums += ((offset - constant) @ weights).to(sums.dtype)
            for part, block in self.parts.blocks(unit):
                sums[part] += block @ after

    def edit(self, base: Base, unit: int, edit: Edit) -> UnitEdit:
        """What is done to a unit, with its mean and the components that have a `λ`.

        Raises:
            ResidualError: the unit hasn't got such a component.
        """
        rows = self._components(unit, [k for k, _ in edit.lambdas])
        values = torch.tensor([value for _, value in edit.lambdas], dtype=torch.float64)
        return UnitEdit(unit, edit.weight, self.map_of(base, unit)[2], rows, values)

    def _added(self, base: Base, mode: str, unit: int, edit: Edit) -> tuple[Tensor, Tensor]:
        """What that adds to the unit's map."""
        matrix, offset, _ = self.map_of(base, unit)
        return self.edit(base, unit, edit).added(matrix, offset, mode)

    def _components(self, unit: int, indices: list[int]) -> Float[Tensor, "k d"]:
        bases = self.parts.bases
        (place,) = bases.places([unit])
        if wrong := [k for k in indices if k >= bases.ranks[place]]:
            name, last = self.parts.units.name(unit), bases.ranks[place] - 1
            raise ResidualError(f"Components of {name} are 0 to {last}, got {wrong[0]}.")
        return bases.components[place][indices]


def _further(last: State, state: State) -> bool:
    """Whether the state is nearer to the whole than to the last one."""
    before, after = dict(last.edits), dict(state.edits)
    return len(after) < sum(before.get(unit) != after.get(unit) for unit in {*before, *after})


def _differing(old: Edit, new: Edit) -> list[tuple[int, float]]:
    """Components, and by how much `w (λ − 1)` differs."""
    factors: dict[int, float] = {}
    for edit, sign in ((old, -1.0), (new, 1.0)):
        for k, value in edit.lambdas:
            factors[k] = factors.get(k, 0.0) + sign * edit.weight * (value - 1)
    return [(k, value) for k, value in sorted(factors.items()) if value]
