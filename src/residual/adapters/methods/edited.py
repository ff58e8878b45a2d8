"""Edited: units switched off or weighted by hand, and single components of them; nothing of it is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from residual.adapters.adapter import Adapter, Scorer, WeightedSums
from residual.adapters.adapter_settings import AdapterSettings, Reference, check_choice
from residual.errors import ResidualError
from residual.finite import check_finite
from residual.spectral.bases import Origin
from residual.tracing.linearization import Linearization

EDIT_MODES = ("zero", "mean")
_BASE = "base."  # names of the tensors of what is edited begin so


@dataclass(frozen=True)
class UnitEdit:
    """What is done to one unit: `c' = w (c + Σ_k (λ_k − 1) ⟨c − m, φ_k⟩ φ_k)`, and `(1 − w) m` more where
    what is taken off is put at its mean.

    Args:
        unit: its position.
        weight: `w`; 0 switches it off, 1 leaves it as it is.
        mean: `m (d,)`, its mean contribution.
        components: `φ (k, d)`, orthonormal rows; those with a `λ` alone.
        lambdas: `λ (k,)`.
    """

    unit: int
    weight: float
    mean: Float[Tensor, " _"]
    components: Float[Tensor, "_ _"]
    lambdas: Float[Tensor, " _"]

    def added(
        self, matrix: Float[Tensor, "f d"], offset: Float[Tensor, " d"], mode: str
    ) -> tuple[Float[Tensor, "f d"], Float[Tensor, " d"]]:
        """What is added to a unit's map, `c = f M + o`."""
        by, about = self.weight - 1, offset - self.mean
        more, constant = by * matrix, by * (about if mode == "mean" else offset)
        if len(self.lambdas):
            along = (self.weight * (self.lambdas - 1))[:, None] * self.components
            more = more + matrix @ self.components.T @ along
            constant = constant + about @ self.components.T @ along
        return more, constant


class Edited(Adapter):
    """An encoder, or one with an adapter, with some of its units turned by hand, see `UnitEdit`.

    Args:
        edits: of units, none twice.
        mode: "zero", or "mean" to put what is taken off a unit at its mean, as `ablate` has them.
        base: what is edited: an adapter, or None for the encoder itself.
        dim: width of the output.
        origin: the encoder that it is for, if known.

    Raises:
        ResidualError: an unknown mode, a unit that comes twice, or shapes or numbers that aren't an edit's.
    """

    method: ClassVar[str] = "edited"
    label: ClassVar[str] = "edited"
    about: ClassVar[str] = "edited by hand: units of the encoder switched off or weighted"
    learning_rate: ClassVar[float] = 0.0
    adapters: ClassVar[Mapping[str, type[Adapter]]] = {}  # that may be edited: set where they are listed

    def __init__(
        self,
        edits: Sequence[UnitEdit],
        mode: str,
        base: Adapter | None,
        dim: int,
        origin: Origin | None = None,
    ):
        super().__init__()
        check_choice("mode", mode, EDIT_MODES)
        self.edits, self.mode, self.origin = tuple(edits), mode, origin
        self.ranks = (0,)  # nothing is fitted, so a sample has no scores
        self.register_buffer("directions", torch.zeros(0, dim), persistent=False)
        _check(self.edits, dim)
        held = [torch.tensor([edit.weight for edit in edits]).double(), *(edit.lambdas for edit in edits)]
        self.factors = nn.Parameter(torch.cat(held).double(), requires_grad=False)
        self._base = (base,)  # no part of this module, whose only parameter is its own

    @property
    def base(self) -> Adapter | None:
        """What is edited."""
        return self._base[0]

    @classmethod
    def make(cls, reference: Reference, settings: AdapterSettings, seed: int) -> Adapter:
        """Nothing of it is fitted."""
        raise ResidualError(f"{cls.label} is what is set by hand; it isn't fitted.")

    def scorer(self, linearization: Linearization) -> Scorer:
        """No scores, and the edited output, which no weight changes."""
        edited = self.adapted(linearization)

        def scores(batch: Any) -> tuple[Tensor, Tensor]:
            output = edited.output(batch)
            return output[:, :0], output

        return scores

    def outputs(
        self,
        weights: Float[Tensor, "f P"],
        scores: Float[Tensor, "f n 0"],
        directions: Float[Tensor, "0 d"] | WeightedSums,
        rest: Float[Tensor, "f n d"],
    ) -> Float[Tensor, "f n d"]:
        """The edited outputs, which are all the rest."""
        return rest

    def adapted(self, linearization: Linearization) -> Linearization:
        """Each unit's map as it is edited, after that of the base."""
        own = linearization if self.base is None else self.base.adapted(linearization)
        units = own.units.checked([edit.unit for edit in self.edits])
        if own.output_dim != self.dim:
            raise ResidualError(
                f"The edits are of width {self.dim}, the encoder's output of width {own.output_dim}."
            )
        every = range(len(own.units))
        offsets = torch.stack([own.offset(unit) for unit in every]).cpu()
        matrices = {unit: own.matrix(unit).cpu() for unit in every if unit not in own.constants}
        for unit, edit in zip(units, self.edits, strict=True):
            more, constant = edit.added(own.matrix(unit).cpu(), offsets[unit], self.mode)
            offsets[unit] = offsets[unit] + constant
            if unit in matrices:
                matrices[unit] = matrices[unit] + more
        return own.rewritten(matrices, offsets)

    def to_saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All edits in float64, and all there is of the base."""
        none = torch.zeros(0, self.dim, dtype=torch.float64)
        tensors = {
            "factors": self.factors.detach(),
            "units": torch.tensor([edit.unit for edit in self.edits], dtype=torch.int64),
            "counts": torch.tensor([len(edit.lambdas) for edit in self.edits], dtype=torch.int64),
            "means": torch.cat([none, *(edit.mean[None] for edit in self.edits)]),
            "components": torch.cat([none, *(edit.components for edit in self.edits)]),
        }
        base = None
        if self.base is not None:
            own, choices = self.base.to_saved()
            origin = self.base.origin
            tensors |= {_BASE + name: value for name, value in own.items()}
            base = {
                "method": self.base.method,
                "choices": choices,
                "bases": origin and origin.to_json(),
            }
        return tensors, {"dim": self.dim, "mode": self.mode, "base": base}

    @classmethod
    def from_saved(cls, tensors: dict[str, Tensor], choices: dict[str, Any], origin: Origin | None) -> Edited:
        """What `to_saved` told of."""
        base, held = None, choices["base"]
        if held is not None:
            if (method := held["method"]) not in cls.adapters:
                raise ResidualError(f"An adapter of method {method!r:.40} isn't known to this version.")
            of = None if held["bases"] is None else Origin.of_json(held["bases"], "the base of an edit")
            if of is not None and origin is not None:
                of = replace(of, fingerprint=origin.fingerprint)
            own = {name.removeprefix(_BASE): part for name, part in tensors.items() if name.startswith(_BASE)}
            base = cls.adapters[method].from_saved(own, held["choices"], of)
        units, counts = tensors["units"].tolist(), tensors["counts"].tolist()
        weights, lambdas = tensors["factors"].double().split([len(units), sum(counts)])
        each = zip(
            units,
            weights.tolist(),
            tensors["means"].double(),
            tensors["components"].double().split(counts),
            lambdas.split(counts),
            strict=True,
        )
        return cls([UnitEdit(*parts) for parts in each], choices["mode"], base, choices["dim"], origin)

    def extra_repr(self) -> str:
        """What shows in `repr`."""
        of = "the encoder" if self.base is None else self.base.method
        return f"{len(self.edits)} units of {of}, mode={self.mode!r}"


def _check(edits: Sequence[UnitEdit], dim: int) -> None:
    """Refuse what is no edit of units with outputs of this width.

    Raises:
        ResidualError: it isn't.
    """
    units = [edit.unit for edit in edits]
    if len(set(units)) < len(units):
        raise ResidualError(f"Each unit is edited once, got units {units}.")
    for edit in edits:
        shapes = edit.mean.shape, edit.components.shape, edit.lambdas.shape
        if shapes != ((dim,), (len(edit.lambdas), dim), (len(edit.lambdas),)):
            raise ResidualError(
                f"An edit of unit {edit.unit} has a mean ({dim},), components (k, {dim}) and k weights; got "
                f"{', '.join(str(tuple(shape)) for shape in shapes)}."
            )
        for part in (edit.mean, edit.components, edit.lambdas, torch.tensor(edit.weight)):
            check_finite(part, f"The edit of unit {edit.unit}'s numbers")
