"""Of how many pictures at a time the gradients of a batch are computed: as many as there is memory for.

The gradient of a batch is that of a mean over its pictures, so it is the sum of those of its portions: the
same numbers but for rounding. Where even a few pictures are too many, blocks are run again on the way back
instead of being remembered (Chen et al. 2016, arXiv 1604.06174), with the same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from residual.encoders.running import modules_of, tensors_of
from residual.errors import is_out_of_memory

FEWEST = 8  # pictures that keep a device busy: before there are fewer at a time, blocks are run again
_TOO_MUCH = 2**62  # bytes of what there was no memory to measure


@dataclass(frozen=True)
class Cost:
    """Bytes that gradients of `n` pictures at a time take, `fixed + n * each`, beside the gradients."""

    fixed: int
    each: int

    def of(self, pictures: int) -> int:
        """Of so many; 0 where that couldn't be measured."""
        return 0 if self.fixed == _TOO_MUCH else self.fixed + pictures * self.each

    def most(self, room: int) -> int:
        """How many pictures have room."""
        return max(0, (room - self.fixed) // max(self.each, 1))


@dataclass(frozen=True)
class Portions:
    """How a batch is gone through.

    Args:
        micro_batch: pictures at a time.
        checkpointing: whether blocks are run again on the way back, instead of being remembered.
        estimated_bytes: that it takes at once, beside weights, gradients and what the optimiser keeps; 0
            where that isn't known.
    """

    micro_batch: int
    checkpointing: bool = False
    estimated_bytes: int = 0

    def smaller(self, whole: bool = False) -> Portions | None:
        """What takes less, or None; as long as can be in a `whole` batch."""
        if not self.checkpointing and (whole or self.micro_batch <= FEWEST):
            return replace(self, checkpointing=True, estimated_bytes=0)
        if self.micro_batch == 1:
            return None
        return replace(self, micro_batch=-(-self.micro_batch // 2), estimated_bytes=0)

    def __str__(self) -> str:
        return f"{self.micro_batch} at a time{', blocks run again' if self.checkpointing else ''}"


def choose(
    batch: int,
    room: int,
    cost: Callable[[bool], Cost],
    micro_batch: int | None = None,
    *,
    whole: bool = False,
    before: Portions | None = None,
) -> Portions:
    """The portions of a batch: all of it if it has room, else `FEWEST` pictures or more, else blocks again.

    Args:
        batch: pictures.
        room: bytes that there are.
        cost: of pictures whose blocks are run again (True) or not: it is asked for what is needed.
        micro_batch: pictures at a time, if that is given already.
        whole: rather run blocks again than take less than the batch: random numbers are drawn, and which
            depends on how many pictures are at a time.
        before: the portions of the same training before a break: they stay if they have room.
    """
    most = min(micro_batch or batch, batch)

    def portions(fits: int, again: bool) -> Portions:
        size = fits if micro_batch else -(-batch // -(-batch // fits))  # as few portions, as even
        return Portions(size, again, cost(again).of(size))

    if before and micro_batch in (None, before.micro_batch) and before.micro_batch <= batch:
        known = replace(before, estimated_bytes=cost(before.checkpointing).of(before.micro_batch))
        if known.estimated_bytes <= room:
            return known
    fits = min(most, cost(False).most(room))
    if fits == most:
        return portions(most, False)
    enough = micro_batch is None and fits >= FEWEST
    if enough and not whole:
        return portions(fits, False)
    again = min(most, cost(True).most(room))
    if enough and again < most:
        return portions(fits, False)
    return portions(most if micro_batch else max(1, again), True)


class Gauge:
    """What gradients take, measured on a few pictures; weights, gradients, random numbers stay as they are.

    On a GPU it is the peak of what is allocated. Elsewhere what autograd keeps for the way back is counted;
    on that way there is in addition about what one block keeps, twice that where it is run again.

    Args:
        module: the model, whose own tensors don't count.
        blocks: of the model.
        weights: that are trained.
        loss: of so many pictures, with its graph.
    """

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[nn.Module],
        weights: Sequence[Tensor],
        loss: Callable[[int], Tensor],
    ):
        self.module, self.blocks, self.weights, self.loss = module, blocks, weights, loss
        self.device = weights[0].device
        self._costs: dict[bool, Cost] = {}
        self._draws = False

    def draws(self) -> bool:
        """Whether random numbers are drawn on the way."""
        self.cost(False)
        return self._draws

    def cost(self, again: bool) -> Cost:
        """Of pictures whose blocks are run again, or not."""
        if again not in self._costs:
            state = random_state(self.device)
            try:
                with run_again(self.blocks) if again else nullcontext():
                    self._costs[again] = self._on_gpu() if self.device.type == "cuda" else self._kept(again)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._costs[again] = Cost(_TOO_MUCH, 0)
            now = random_state(self.device)
            self._draws = not all(torch.equal(now[name], state[name]) for name in now)
            set_random_state(self.device, state)
        return self._costs[again]

    def _kept(self, again: bool) -> Cost:
        own = {each.untyped_storage().data_ptr() for each in tensors_of(modules_of(self.module))}
        one, two = (kept_bytes(partial(self.loss, pictures), own) for pictures in (1, 2))
        each = two - one
        block = (2 * self.cost(False).each if again else each) // len(self.blocks)
        return Cost(max(0, one - each), each + block)

    def _on_gpu(self) -> Cost:
        held = [each.grad for each in self.weights]
        try:
            self.loss(2).backward()  # now there are gradients, and what libraries keep
            two, four = self._peak(2), self._peak(4)
        finally:
            for weight, gradient in zip(self.weights, held, strict=True):
                weight.grad = gradient
        each = max(0, -(-(four - two) // 2))
        return Cost(max(0, two - 2 * each), each)

    def _peak(self, pictures: int) -> int:
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.loss(pictures).backward()
        return torch.cuda.max_memory_allocated(self.device) - before


def kept_bytes(run: Callable[[], Tensor], without: Collection[int] = ()) -> int:
    """Bytes that autograd keeps of a run for its way back, each storage once.

    Args:
        run: from inputs to a loss.
        without: addresses of storages that don't count.
    """
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself it would hold on to the graph that holds it

    with saved_tensors_hooks(keep, lambda kept: kept):
        run()
    return sum(size for place, size in found.items() if place not in without)


@contextmanager
def run_again(blocks: Sequence[nn.Module]) -> Generator[None]:
    """In here each block remembers what it is given, and is run again on the way back."""
    own = [(block, vars(block).get("forward")) for block in blocks]
    try:
        for block in blocks:
            vars(block)["forward"] = partial(checkpoint, block.forward, use_reentrant=False)
        yield
    finally:
        for block, forward in own:
            if forward is None:
                vars(block).pop("forward", None)
            else:
                vars(block)["forward"] = forward


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Of torch's random numbers, of the CPU and of this GPU."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(device: torch.device, state: Mapping[str, Tensor]) -> None:
    """To what `random_state` gave; one without that of a GPU leaves it alone."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
