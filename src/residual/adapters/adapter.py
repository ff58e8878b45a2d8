"""What every adapter is: a few weights that change an encoder's output, which itself stays as it is.

All of them work on *scores*, numbers of a sample that don't change while the weights are trained:

    o' = (S ⊙ λ) Φ + rest      re-weighted components (`Reweighted`: ResiDual, Coarse, the spectral map)
    o' = S M                   a linear map of the output (`LinearMap`)

`compute_scores` makes them from a store, `fit` trains on them, `folding` makes one matrix of the weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from residual.errors import ResidualError
from residual.spectral.bases import Origin
from residual.spectral.dimension import linear_dimension
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization

TAILS = ("drop", "keep")
MEANS = ("drop", "keep")
INITS = ("randn", "ones", "eigenvalues")

Rank = int | float | Sequence[int] | np.ndarray | None
Scorer = Callable[[Coordinates], tuple[Tensor, Tensor]]
WeightedSums = Callable[[Tensor, Tensor, Tensor], Tensor]


class Adapter(nn.Module, ABC):
    """Trained weights, and how the output follows from them and from a sample's scores.

    Attributes:
        method: what files and tables call it.
        learning_rate: of schedule-free AdamW, in Basile et al. 2025.
        ranks: how many of a sample's scores belong to each unit; `K` is their sum.
        directions: `(K, d)`, what each score stands for in the output.
        origin: the encoder that it is for, if known.
    """

    method: ClassVar[str]
    learning_rate: ClassVar[float]
    ranks: tuple[int, ...]
    directions: Tensor
    origin: Origin | None

    @property
    @abstractmethod
    def weights(self) -> nn.Parameter:
        """The only parameter."""

    @property
    def dim(self) -> int:
        """Width of the output, `d`."""
        return self.directions.shape[1]

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

    def penalty(self, weights: Float[Tensor, "f P"]) -> Float[Tensor, " f"] | float:
        """What is added to the loss of each set of weights, these flattened."""
        return 0.0

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


class Reweighted(Adapter):
    """Principal components of some units, each with a weight: `o' = (S ⊙ λ) Φ + rest`.

    Args:
        components: of each unit `(k_i, d)`, orthonormal rows; all there are.
        eigenvalues: of each unit `(k_i,)`.
        means: `(r, d)`, what is subtracted from each unit.
        names: of the units, for errors.
        rank, tail, mean, init, seed: see `ResiDual`.
    """

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
        self.tail, self.mean = tail, mean
        self.ranks: tuple[int, ...] = _ranks(eigenvalues, rank, names)
        self.register_buffer("means", means.clone(), persistent=False)
        kept = [rows[:k] for rows, k in zip(components, self.ranks, strict=True)]
        self.register_buffer("directions", torch.cat(kept), persistent=False)
        self.lambdas = nn.Parameter(initial_weights(eigenvalues, self.ranks, init, seed))

    @property
    def weights(self) -> nn.Parameter:
        """λ."""
        return self.lambdas

    def expand(self, lambdas: Float[Tensor, "*f P"]) -> Float[Tensor, "*f K"]:
        """A weight for each kept component, from the trained ones: themselves."""
        return lambdas

    def choices(self) -> tuple[object, ...]:
        """The kind of adapter, and what it does with tails and means."""
        return (type(self), self.tail, self.mean, len(self.ranks))

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


def check_choice(what: str, choice: str, known: Sequence[str]) -> None:
    """Refuse a choice that isn't known.

    Raises:
        ResidualError: it isn't.
    """
    if choice not in known:
        raise ResidualError(f"{what} is {' or '.join(map(repr, known))}, got {choice!r}.")


def initial_weights(
    eigenvalues: Sequence[Tensor], ranks: Sequence[int], init: str | Tensor, seed: int
) -> Tensor:
    """The first λ, so many numbers a unit; see `ResiDual`.

    Raises:
        ResidualError: an unknown choice, or a tensor of another shape or that isn't finite.
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
    return torch.cat([ratio[:k] for ratio, k in zip(ratios, ranks, strict=True)]).float()


def _ranks(eigenvalues: Sequence[Tensor], rank: Rank, names: Sequence[object]) -> tuple[int, ...]:
    """How many components of each unit are kept."""
    most = tuple(map(len, eigenvalues))
    if rank is None:
        return most
    if isinstance(rank, float):
        if not 0 < rank < 1:
            raise ResidualError(f"A rank of explained variance lies in (0, 1), got {rank}.")
        return tuple(linear_dimension(values, rank) for values in eigenvalues)
    each = [rank] * len(most) if isinstance(rank, int | np.integer) else rank
    wanted = tuple(int(k) for k in each)
    if isinstance(rank, bool) or len(wanted) != len(most):
        raise ResidualError(f"rank is None, an int, a float in (0, 1), or {len(most)} ints; got {rank!r}.")
    for name, k, available in zip(names, wanted, most, strict=True):
        if not 1 <= k <= available:
            raise ResidualError(f"{name} has {available} components: a rank of {k} isn't between 1 and that.")
    return wanted


def _other_components(count: int, adapter: Adapter) -> ResidualError:
    return ResidualError(
        f"The scores are on {count} components, the adapter has {sum(adapter.ranks)}: compute them with this "
        "adapter."
    )
