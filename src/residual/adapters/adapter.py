"""What every adapter is: a few weights that change an encoder's output, which itself stays as it is.

All of them work on *scores*, numbers of a sample that don't change while the weights are trained:

    o' = (S ⊙ λ) Φ + rest      re-weighted components (`Reweighted`: ResiDual, Coarse, the spectral map)
    o' = S M                   a linear map of the output (`LinearMap`)

`compute_scores` makes them from a store, `fit` trains on them, `Adapter.fold` makes one matrix of the
weights. Each method is one file in `methods/`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from residual.adapters.adapter_settings import (
    INITS,
    MEANS,
    TAILS,
    AdapterSettings,
    Rank,
    Reference,
    check_choice,
)
from residual.adapters.folding import OUTPUT, FoldedMap
from residual.errors import ResidualError
from residual.finite import check_finite, plain
from residual.spectral.bases import Origin
from residual.spectral.dimension import linear_dimension
from residual.store.shared import Seen
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization

Scorer = Callable[[Coordinates], tuple[Tensor, Tensor]]
WeightedSums = Callable[[Tensor, Tensor, Tensor], Tensor]


class Method:
    """What tables, cards, figures and commands say of a method.

    Attributes:
        method: its name in files, commands and JSON.
        label: its name in tables and figures.
        about: what it is, in Markdown, for a model card.
        trained: what is trained, for a sentence, with a place for the number of weights.
        look: colour, marker and line in figures.
        released: whether it is as the code has it that was published with the paper, where that differs.
    """

    method: ClassVar[str]
    label: ClassVar[str]
    about: ClassVar[str]
    trained: ClassVar[str]
    look: ClassVar[tuple[str, str, str]]
    released: ClassVar[bool] = False


@dataclass(frozen=True)
class UnitWeights:
    """One unit: the weights of its first components, beside all its eigenvalues and what its components are
    written along.
    """

    unit: int
    weights: Float[Tensor, " k"]
    eigenvalues: Float[Tensor, " m"]
    directions: Float[Tensor, "m d"]


class Adapter(nn.Module, Method, ABC):
    """Trained weights, one parameter, and how the output follows from them and from a sample's scores.

    Attributes:
        ranks: how many of a sample's scores belong to each unit; `K` is their sum.
        directions: `(K, d)`, what each score stands for in the output.
        origin: the encoder that it is for, if known.
        inits: the first weights that it can be made with by name, the paper's first.
        takes: the fields of `AdapterSettings` that `make` looks at.
        learning_rate: of schedule-free AdamW in Basile et al. 2025.
        decay: of weights towards their start, where that is asked for (docs/adapters.md, "Doing no harm").
        of_units: whether it weights units, or components of them, so that there are `unit_weights` to draw.
        seen: the samples that it was fitted on and chosen by, in this process.
        of_components: whether each component of a unit has a weight of its own.
    """

    inits: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[tuple[str, ...]] = ()
    learning_rate: ClassVar[float]
    decay: ClassVar[float] = 0.0
    of_units: ClassVar[bool] = False
    of_components: ClassVar[bool] = False
    seen: Seen | None = None
    ranks: tuple[int, ...]
    directions: Tensor
    origin: Origin | None

    @classmethod
    @abstractmethod
    def make(cls, reference: Reference, settings: AdapterSettings, seed: int) -> Adapter:
        """One with its first weights.

        Raises:
            ResidualError: choices that it can't have, or components that aren't there.
        """

    @abstractmethod
    def scorer(self, linearization: Linearization) -> Scorer:
        """From a batch of coordinates to its scores `(n, K)` and what no weight changes, `(n, d)`.

        Raises:
            ResidualError: they aren't of an encoder that this adapter can be of.
        """

    @abstractmethod
    def outputs(
        self,
        weights: Float[Tensor, "f ..."],
        scores: Float[Tensor, "f n K"],
        directions: Float[Tensor, "K d"] | WeightedSums,
        rest: Float[Tensor, "f n d"],
    ) -> Float[Tensor, "f n d"]:
        """The outputs of `f` sets of weights, each on samples of its own.

        `directions` are Φ, or what makes `(S ⊙ λ) Φ + rest` of S, λ and rest.
        """

    @abstractmethod
    def adapted(self, linearization: Linearization) -> Linearization:
        """Each unit's contribution as it is adapted, from its features: they sum to the adapted output.

        What a unit's own weights make of it is the unit's; the constant of a map of the output is shared out
        as the encoder's own is (see `Linearization`, which is of an image tower as it pools itself).

        Raises:
            ResidualError: the adapter can't be of this encoder: another width or number of units; or its
                weights or means aren't finite.
        """

    def fold(self, linearization: Linearization) -> FoldedMap:
        """The adapter on an encoder as one matrix, so that the adapter isn't needed any more.

        Later changes of the weights don't reach the matrix. Where an attention pool with `P` heads makes the
        output, it has `P` times as many rows.

        Raises:
            ResidualError: as `adapted`.
        """
        return FoldedMap.of(self.adapted(linearization))

    @abstractmethod
    def to_saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON from which `from_saved` makes it again.

        All components are kept, also those beyond the rank, so that it can be read and trained on; in
        float32, which is what scores are computed in. Trained weights are kept as they are.
        """

    @classmethod
    @abstractmethod
    def from_saved(
        cls, tensors: dict[str, Tensor], choices: dict[str, Any], origin: Origin | None
    ) -> Adapter:
        """What `to_saved` told of."""

    @property
    def weights(self) -> nn.Parameter:
        """The only parameter."""
        (parameter,) = self.parameters()
        return parameter

    @property
    def dim(self) -> int:
        """Width of the output, `d`."""
        return self.directions.shape[1]

    def penalty(self, weights: Float[Tensor, "f P"]) -> Float[Tensor, " f"] | float:
        """What is added to the loss of each set of weights, these flattened."""
        return 0.0

    def unit_weights(self) -> list[UnitWeights]:
        """The weights of each unit's components; none where it doesn't weight units."""
        return []

    def widened(self, weights: Tensor, ranks: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """The weights on scores of more components, `ranks` a unit: with the same output, and which are own.

        Raises:
            ResidualError: the scores are of other components.
        """
        if tuple(ranks) != self.ranks:
            raise _other_components(sum(ranks), self)
        return weights, None

    def choices(self) -> tuple[object, ...]:
        """What two adapters must have in common to be fitted on the same scores, but for their rank."""
        return (type(self),)

    def at_ranks(self, ranks: Sequence[int]) -> Adapter:
        """One like this that keeps so many components of each unit; its weights are to be set."""
        return self


class OutputMap(Adapter):
    """An adapter of the encoder's own output, `o' = o W + b`, which doesn't look inside.

    By default the output itself is all the scores that there are.
    """

    def scored(self, output: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n K"], Float[Tensor, "n d"]]:
        """The scores of outputs, and what no weight changes."""
        return output, torch.zeros_like(output)

    def forward(self, output: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The adapted output.

        Raises:
            ResidualError: outputs of another width.
        """
        if output.shape[1] != self.dim:
            raise ResidualError(f"The map takes outputs of width {self.dim}, got {output.shape[1]}.")
        scores, rest = self.scored(output)
        weights, directions = self.weights.to(output)[None], self.directions.to(output)
        return self.outputs(weights, scores[None], directions, rest[None])[0]

    def scorer(self, linearization: Linearization) -> Scorer:
        """The scores of the encoder's output."""
        self._check_width(linearization)
        return lambda batch: self.scored(linearization.output(batch))

    def fold(self, linearization: Linearization) -> FoldedMap:
        """`b` is what becomes of 0, and `W` what becomes of each unit vector beyond that."""
        self._check_width(linearization)
        on_cpu = copy.deepcopy(self).cpu()  # not every device has float64
        with torch.no_grad():
            offset = on_cpu(torch.zeros(1, self.dim, dtype=torch.float64))
            matrix = on_cpu(torch.eye(self.dim, dtype=torch.float64)) - offset
        return FoldedMap((OUTPUT,), matrix, offset[0])

    def adapted(self, linearization: Linearization) -> Linearization:
        """`c_u W + w_u b`."""
        folded = self.fold(linearization)
        return linearization.mapped(folded.matrix, folded.offset)

    def _check_width(self, linearization: Linearization) -> None:
        if linearization.output_dim != self.dim:
            raise ResidualError(
                f"The map is of width {self.dim}, the encoder's output of width {linearization.output_dim}."
            )


class Reweighted(Adapter):
    """Principal components of some units, each with a weight: `o' = (S ⊙ λ) Φ + rest`.

    Args:
        components: of each unit `(k_i, d)`, orthonormal rows; all there are.
        eigenvalues: of each unit `(k_i,)`.
        means: `(r, d)`, what is subtracted from each unit.
        names: of the units, for errors.
        rank, tail, mean, init, seed: see `ResiDual`.

    Attributes:
        write_back: see `ResiDual`.
    """

    write_back: str = "equation"
    inits: ClassVar[tuple[str, ...]] = INITS
    lambdas: nn.Parameter
    means: Tensor

    def __init__(
        self,
        components: Sequence[Float[Tensor, "_ d"]],
        eigenvalues: Sequence[Float[Tensor, " _"]],
        means: Float[Tensor, "r d"],
        names: Sequence[object],
        rank: Rank,
        tail: str,
        mean: str,
        init: str | Tensor,
        seed: int,
    ):
        super().__init__()
        for what, choice, known in (("tail", tail, TAILS), ("mean", mean, MEANS)):
            check_choice(what, choice, known)
        for what, parts in (("means", [means]), ("components", components), ("eigenvalues", eigenvalues)):
            for part in parts:
                check_finite(part, f"The adapter's {what}")
        self.tail, self.mean = tail, mean
        self.ranks: tuple[int, ...] = _ranks(eigenvalues, rank, names)
        self.register_buffer("means", means.clone(), persistent=False)
        kept = [rows[:k] for rows, k in zip(components, self.ranks, strict=True)]
        self.register_buffer("directions", torch.cat(kept), persistent=False)
        self.lambdas = nn.Parameter(initial_weights(eigenvalues, self.ranks, init, seed))

    @property
    def rows(self) -> Float[Tensor, "K d"]:
        """The kept components, which scores are of; `directions` are what these are written along."""
        return self.directions

    def expand(self, lambdas: Float[Tensor, "*f P"]) -> Float[Tensor, "*f K"]:
        """A weight for each kept component, from the trained ones: themselves."""
        return lambdas

    def choices(self) -> tuple[object, ...]:
        """The kind of adapter, and what it does with tails, means and components."""
        return (type(self), self.tail, self.mean, self.write_back, len(self.ranks))

    def outputs(
        self,
        weights: Float[Tensor, "f P"],
        scores: Float[Tensor, "f n K"],
        directions: Float[Tensor, "K d"] | WeightedSums,
        rest: Float[Tensor, "f n d"],
    ) -> Float[Tensor, "f n d"]:
        """`(S ⊙ λ) Φ + rest`."""
        if not isinstance(directions, Tensor):
            return directions(scores, self.expand(weights), rest)
        weighted = (scores * self.expand(weights)[:, None]).flatten(0, 1)  # (f n, K)
        return torch.addmm(rest.flatten(0, 1), weighted, directions).view(rest.shape)

    def widened(
        self, weights: Float[Tensor, " P"], ranks: Sequence[int]
    ) -> tuple[Float[Tensor, " Q"], Tensor | None]:
        """λ on more components: 0 where the tail is dropped, 1 where it is kept; and a mask of its own."""
        if tuple(ranks) == self.ranks:
            return weights, None
        if len(ranks) != len(self.ranks) or any(few > k for few, k in zip(self.ranks, ranks, strict=True)):
            raise _other_components(sum(ranks), self)
        own = torch.cat([torch.arange(k) < few for few, k in zip(self.ranks, ranks, strict=True)])
        wide = weights.new_full((len(own),), 0.0 if self.tail == "drop" else 1.0)
        wide[own.to(wide.device)] = weights
        return wide, own

    def to_saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """λ, and the choices that all of these have."""
        choices = {"dim": self.dim, "ranks": list(self.ranks), "tail": self.tail, "mean": self.mean}
        if self.write_back != "equation":  # older versions know no other
            choices["write_back"] = self.write_back
        return {"lambdas": self.lambdas}, choices


def initial_weights(
    eigenvalues: Sequence[Tensor], ranks: Sequence[int], init: str | Tensor, seed: int
) -> Tensor:
    """The first λ, so many numbers a unit; see `ResiDual`.

    Raises:
        ResidualError: an unknown choice, a tensor of another shape, or weights that aren't finite.
    """
    count = sum(ranks)
    if isinstance(init, Tensor):
        if init.shape != (count,) or not init.isfinite().all():
            raise ResidualError(f"An initial λ needs {count} finite numbers, got shape {tuple(init.shape)}.")
        return init.detach().clone().to(torch.promote_types(init.dtype, torch.float32))
    if init not in INITS:
        raise ResidualError(f"init is {' or '.join(map(repr, INITS))} or a tensor, got {init!r}.")
    if init == "randn":
        return 1 + torch.randn(count, generator=torch.Generator().manual_seed(seed))
    if init == "ones":
        return torch.ones(count)
    ratios = [values / values.sum() for values in eigenvalues]
    weights = torch.cat([ratio[:k] for ratio, k in zip(ratios, ranks, strict=True)]).float()
    return check_finite(weights, "The first λ, eigenvalues over their sums,")


def _ranks(eigenvalues: Sequence[Tensor], rank: Rank, names: Sequence[object]) -> tuple[int, ...]:
    """How many components of each unit are kept."""
    most = tuple(map(len, eigenvalues))
    if rank is None:
        return most
    rank = plain(rank)
    if isinstance(rank, float):
        if not 0 < rank < 1:
            raise ResidualError(f"A rank of explained variance lies in (0, 1), got {rank}.")
        return tuple(linear_dimension(values, rank) for values in eigenvalues)
    each = [rank] * len(most) if isinstance(rank, int) else rank
    wanted = tuple(map(plain, each)) if isinstance(each, Iterable) else ()
    if isinstance(rank, bool) or len(wanted) != len(most) or any(type(k) is not int for k in wanted):
        raise ResidualError(f"rank is None, an int, a float in (0, 1), or {len(most)} ints; got {rank!r}.")
    for name, k, available in zip(names, wanted, most, strict=True):
        if not min(1, available) <= k <= available:  # a unit that never varies has none
            raise ResidualError(f"{name} has {available} components: a rank of {k} isn't between 1 and that.")
    return wanted


def _other_components(count: int, adapter: Adapter) -> ResidualError:
    return ResidualError(
        f"The scores are on {count} components, the adapter has {sum(adapter.ranks)}: compute them with this "
        "adapter."
    )
