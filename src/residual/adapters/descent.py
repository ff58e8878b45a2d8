"""Optimisers of several sets of weights at once, each with its learning rate, decay and count of steps.

Everything that changes from step to step is in tensors, so that a step can be recorded once and replayed
(CUDA graphs). For one set they are the optimisers of `schedulefree` and of torch, to rounding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

# Those of Defazio et al. 2024 and of torch.
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


def cosine_schedule(step: Tensor, total: Tensor, warmup: float | int) -> Tensor:
    """The part of its learning rate that AdamW takes in each of `total` steps, counted from 1.

    It rises linearly on the part `warmup` of all steps, then falls by a cosine down to zero.
    """
    rising = (total * float(warmup)).floor()
    done = (step - 1 - rising) / (total - rising).clamp(min=1)
    falling = (1 + torch.cos(math.pi * done.clamp(0, 1))) / 2
    return torch.where(step <= rising, step / rising.clamp(min=1), falling)


class Descent(ABC):
    """Sets of weights on their way down.

    Args:
        first: `(f, P)`, where they start.
        rates: learning rates, one a set.
        weight_decay: decoupled, as in AdamW; of all sets, or one a set.
        own: `(f, P)`, 1 for the weights that are trained, 0 for those that stay; None trains all.
        towards: what decay pulls to: "zero", or the "start", where they start.

    Attributes:
        at: `(f, P)`, where the next gradient is taken.
    """

    def __init__(
        self,
        first: Float[Tensor, "f P"],
        rates: Sequence[float | int],
        weight_decay: float | int | Sequence[float | int] = 0.0,
        own: Float[Tensor, "f P"] | None = None,
        towards: str = "zero",
    ):
        self.at, self.own = first.clone(), own
        self.home = first.clone() if towards == "start" else torch.zeros_like(first)
        self.square = torch.zeros_like(first)
        self.rates = first.new_tensor(rates, dtype=torch.float64)[:, None]
        decays = [weight_decay] * len(first) if isinstance(weight_decay, float | int) else weight_decay
        self.decay = first.new_tensor(decays)[:, None] if any(decays) else None
        self.steps = torch.zeros_like(self.rates)

    def update(self, gradient: Float[Tensor, "a P"]) -> None:
        """One step of the first `a` sets."""
        a = len(gradient)
        if self.own is not None:
            gradient = gradient * self.own[:a]
        steps = self.steps[:a].add_(1)
        square = self.square[:a].mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        spread = (square / (1 - _BETA2**steps).to(square)).sqrt_().add_(_EPS)
        self._move(a, gradient, spread, steps)

    def _decayed(self, at: Tensor, decay: Tensor) -> Tensor:
        """What weight decay pulls by."""
        pull = (at - self.home[: len(at)]) * decay[: len(at)]
        return pull if self.own is None else pull * self.own[: len(at)]

    @abstractmethod
    def _move(self, a: int, gradient: Tensor, spread: Tensor, steps: Tensor) -> None: ...

    @abstractmethod
    def weights(self) -> Float[Tensor, "f P"]:
        """The weights to use now."""


class ScheduleFreeAdamW(Descent):
    """Defazio et al. 2024, arXiv 2405.15682, with a constant learning rate and no warm-up."""

    def __init__(
        self,
        first: Float[Tensor, "f P"],
        rates: Sequence[float | int],
        weight_decay: float | int | Sequence[float | int] = 0.0,
        own: Float[Tensor, "f P"] | None = None,
        towards: str = "zero",
    ):
        super().__init__(first, rates, weight_decay, own, towards)
        self.z = first.clone()

    def _move(self, a: int, gradient: Tensor, spread: Tensor, steps: Tensor) -> None:
        at, z, rates = self.at[:a], self.z[:a], self.rates[:a]
        direction = gradient / spread
        if self.decay is not None:
            direction.add_(self._decayed(at, self.decay))
        share = 1 / steps  # of z in the average
        at.lerp_(z, share.to(at))
        at.addcmul_(direction, (rates * (_BETA1 * (1 - share) - 1)).to(at))
        z.addcmul_(direction, -rates.to(z))

    def weights(self) -> Float[Tensor, "f P"]:
        """The averaged ones."""
        return self.at.lerp(self.z, 1 - 1 / _BETA1)


class AdamW(Descent):
    """Loshchilov and Hutter 2019, arXiv 1711.05101: linear warm-up, then a cosine down to zero.

    Args:
        first, rates, weight_decay, own, towards: see `Descent`.
        total: how many steps each set makes in all.
        warmup: the part of them that warm up.
    """

    def __init__(
        self,
        first: Float[Tensor, "f P"],
        rates: Sequence[float | int],
        weight_decay: float | int | Sequence[float | int] = 0.0,
        own: Float[Tensor, "f P"] | None = None,
        towards: str = "zero",
        *,
        total: Sequence[int],
        warmup: float | int,
    ):
        super().__init__(first, rates, weight_decay, own, towards)
        self.mean = torch.zeros_like(first)
        self.total, self.warmup = self.rates.new_tensor(total)[:, None], warmup

    def _move(self, a: int, gradient: Tensor, spread: Tensor, steps: Tensor) -> None:
        at, mean = self.at[:a], self.mean[:a].lerp_(gradient, 1 - _BETA1)
        rate = self.rates[:a] * cosine_schedule(steps, self.total[:a], self.warmup)
        if self.decay is not None:
            at.sub_(self._decayed(at, self.decay) * rate.to(at))
        at.addcmul_(mean / spread, (-rate / (1 - _BETA1**steps)).to(at))

    def weights(self) -> Float[Tensor, "f P"]:
        """The last ones."""
        return self.at
