"""One step of several fits at once, each on samples of its own; on a GPU recorded once, then replayed.

At batch 64 a step is so little work that a GPU would wait for Python: a recorded step (a CUDA graph) is one
launch. Where there is much to do, `quick_directions` makes the sums over components on tensor cores.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from residual.adapters.adapter import Adapter, WeightedSums
from residual.adapters.descent import Descent
from residual.adapters.scores import Scores
from residual.libraries import first_line
from residual.read_ahead import ahead

_WARM = 3  # steps before one is recorded: the libraries beneath choose their ways in the first ones
_WORTH_RECORDING = 32  # steps in a pass
WORTH_COMPILING = 1e14  # operations, some three seconds of a GPU in float32


class Steps:
    """The passes of several fits over their samples.

    Args:
        adapters: of each fit, for its penalty and its shape.
        logits: from `a` sets of weights `(a, P)`, scores `(a, b, K)` and rest `(a, b, d)` to `(a b, c)`.
        train: scores, on the device of the fits or elsewhere (then each batch is brought there).
        labels: `(n,)`.
        descent: the weights `(f, P)`; what they are on is the device of the fits.
        subsets: positions of each fit's samples, the most samples first.
        batch_size: samples a step.
        seeds: of each fit's order of samples.
    """

    def __init__(
        self,
        adapters: Sequence[Adapter],
        logits: Callable[[Tensor, Tensor, Tensor], Tensor],
        train: Scores,
        labels: Int[Tensor, " n"],
        descent: Descent,
        subsets: Sequence[Int[Tensor, " _"]],
        batch_size: int,
        seeds: Sequence[int],
    ):
        self.adapters, self.logits, self.train, self.descent = adapters, logits, train, descent
        device = self.device = descent.at.device
        self.subsets, self.labels = subsets, labels.to(device)
        self.orders = [torch.Generator().manual_seed(seed) for seed in seeds]
        sizes = [len(subset) for subset in subsets]
        self.batch_size = min(batch_size, sizes[0])
        self.counts = [-(-size // self.batch_size) for size in sizes]  # steps of each fit in a pass
        self.shares = self._shares(sizes).to(device)
        self.order = torch.zeros(self.shares.shape, dtype=torch.long, device=device)
        self.columns = torch.arange(self.batch_size, device=device)
        self.next = torch.zeros((), dtype=torch.long, device=device)
        self.total = torch.zeros(len(sizes), dtype=torch.float64, device=device)
        self.sizes = self.total.new_tensor(sizes)
        self.prepared = self._shuffled()
        self.recorded: dict[int, torch.cuda.CUDAGraph] = {}
        self.warm: dict[int, int] = {}

    def epoch(self) -> Float[Tensor, " f"]:
        """One pass of every fit over its samples; their mean losses on the way."""
        order = self.prepared
        self.order.copy_(order)
        self.next.zero_()
        self.total.zero_()
        active = [sum(count > step for count in self.counts) for step in range(self.counts[0])]
        if self.train.scores.device == self.device:
            for count in active:
                self._replay(count)
        else:
            parts = order.split(self.batch_size, 1)
            rows = [part[:count] for part, count in zip(parts, active, strict=True)]
            for count, given in zip(active, ahead(self._fetch, rows), strict=True):
                self._step(count, *given)
        self.prepared = self._shuffled()  # while a GPU is still at work
        return self.total / self.sizes

    def _shuffled(self) -> Tensor:
        """Positions of the samples of one pass, `(f, steps · batch)`, each fit's in an order of its own."""
        order = torch.zeros(self.shares.shape, dtype=torch.long)
        for row, subset, generator in zip(order, self.subsets, self.orders, strict=True):
            row[: len(subset)] = subset[torch.randperm(len(subset), generator=generator)]
        return order

    def _replay(self, count: int) -> None:
        """A step of the first `count` fits: as it is on a CPU, else recorded and replayed."""
        if self.device.type != "cuda" or self.counts[0] < _WORTH_RECORDING:
            self._step(count)
            return
        if count not in self.recorded:
            self.warm[count] = self.warm.get(count, 0) + 1
            if self.warm[count] <= _WARM:
                self._aside(count)
                return
            self.recorded[count] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.recorded[count]):
                self._step(count)
        self.recorded[count].replay()

    def _aside(self, count: int) -> None:
        """A step on a stream of its own, as one has to be before it can be recorded."""
        main, aside = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        aside.wait_stream(main)
        with torch.cuda.stream(aside):
            self._step(count)
        main.wait_stream(aside)

    def _step(self, count: int, scores: Tensor | None = None, rest: Tensor | None = None) -> None:
        columns = self.columns + self.next * self.batch_size
        picked = self.order[:count].index_select(1, columns)  # (a, b)
        shares = self.shares[:count].index_select(1, columns)
        if scores is None or rest is None:
            scores, rest = self.train.scores[picked], self.train.rest[picked]
        weights = self.descent.at[:count].detach().requires_grad_()
        logits = self.logits(weights, scores, rest)
        losses = cross_entropy(logits, self.labels[picked].flatten(), reduction="none").view(picked.shape)
        loss = (losses * shares).sum()
        for adapter, own in zip(self.adapters, weights, strict=False):
            penalty = adapter.penalty(own[None])
            if isinstance(penalty, Tensor):
                loss = loss + penalty.sum()
        (gradient,) = torch.autograd.grad(loss, weights)
        self.descent.update(gradient)
        self.total[:count] += (losses.detach() * (shares > 0)).sum(1, dtype=torch.float64)
        self.next += 1

    def _fetch(self, picked: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and rest of some samples, brought to the fits' device."""
        where = picked.to(self.train.scores.device)
        scores, rest = self.train.scores[where], self.train.rest[where]
        return scores.to(self.device), rest.to(self.device)

    def _shares(self, sizes: Sequence[int]) -> Tensor:
        """What each place of the order counts for in its batch: one over the batch's samples, 0 if empty."""
        places = torch.arange(self.counts[0] * self.batch_size)
        rows = []
        for size in sizes:
            last = (size - 1) // self.batch_size * self.batch_size  # where the last batch begins
            samples = torch.where(places < last, self.batch_size, size - last)
            rows.append((1 / samples).where(places < size, 0.0))
        return torch.stack(rows).to(self.descent.at.dtype)


def quick_directions(
    directions: Float[Tensor, "K d"], fits: int, batch_size: int, samples: int
) -> Float[Tensor, "K d"] | WeightedSums:
    """`Φ`, or what is twice as fast, to the same rounding, where that makes up for being compiled.

    Args:
        directions: `Φ`, on the device of the fits.
        fits: at once.
        batch_size: samples of each in a step.
        samples: of all steps of all fits.
    """
    if (
        4 * samples * directions.numel() < WORTH_COMPILING
        or directions.dtype != torch.float32
        or not has_hopper(directions.device)
    ):
        return directions
    (components, dim), zeros = directions.shape, directions.new_zeros
    try:
        from residual.adapters.tensor_cores import WeightedSum

        quick = WeightedSum(directions)
        quick(zeros(fits, batch_size, components), zeros(fits, components), zeros(fits, batch_size, dim))
    except Exception as error:  # whatever triton, or the C compiler that it needs, says
        warnings.warn(
            f"Kernels for this GPU can't be compiled, so the fit is slower: {first_line(error)}", stacklevel=2
        )
        return directions
    return quick


def has_hopper(device: torch.device) -> bool:
    """Whether this is an NVIDIA GPU of the Hopper generation (H100, H200), and triton is there."""
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device) == (9, 0)
        and importlib.util.find_spec("triton") is not None
    )
