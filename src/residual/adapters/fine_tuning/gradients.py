"""Gradients of a batch, computed in portions that the memory that is there has room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from residual.adapters.fine_tuning.memory import (
    Gauge,
    Portions,
    choose,
    random_state,
    run_again,
    set_random_state,
)
from residual.devices import free_memory
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError, is_out_of_memory
from residual.libraries import first_line
from residual.text.classifier import ZeroShotClassifier

_USED = 0.9  # of the memory that is free: what is measured leaves out gaps between tensors


class Gradients:
    """How the gradients of a training are computed.

    Args:
        encoder: on the device of the training.
        weights: of it, that are trained.
        classifier: from outputs to logits, there.
        fabric: brings precision and scaling.
        micro_batch: pictures at a time, or None for as many as there is memory for.
        tell: is told of portions that aren't whole batches.

    Raises:
        ResidualError: portions are asked for where the batch as a whole is normed.
    """

    def __init__(
        self,
        encoder: Encoder,
        weights: Sequence[nn.Parameter],
        classifier: ZeroShotClassifier,
        fabric: Fabric,
        micro_batch: int | None,
        tell: Callable[[], object],
    ):
        self.encoder, self.weights, self.classifier, self.fabric = encoder, weights, classifier, fabric
        self.micro_batch, self.tell = micro_batch, tell
        self.device = encoder.device
        self.portions: Portions | None = None
        self.before: Portions | None = None  # those before a break
        self.batch = 0
        self.draws = False  # random numbers on the way
        self.normed = [
            name
            for name, part in encoder.module.named_modules()
            if isinstance(part, _BatchNorm) and encoder.in_image_tower(f"{name}.")
        ]
        if self.normed and micro_batch:
            raise ResidualError(
                f"{encoder.name} norms whole batches (in {self.normed[0]!r}): in portions its numbers would "
                "be others.",
                "Leave out micro_batch, or take a smaller batch_size.",
            )

    @property
    def told(self) -> str:
        """What is to be said of portions; nothing of whole batches."""
        now, before = self.portions, self.before
        if now is None or (now.micro_batch == self.batch and not now.checkpointing):
            return ""
        told = f"{now}" if before is None or str(before) == str(now) else f"{now} ({before} before)"
        plain = now.checkpointing and self.encoder.compiling is not None
        return f"{told}, not compiled" if plain else told

    def plan(self, pixels: Tensor, batch: int, coming: int) -> None:
        """Choose portions.

        Args:
            pixels: some of the training `(b, 3, h, w)`.
            batch: pictures of one.
            coming: bytes of gradients and all else that is to be allocated yet.
        """
        self.batch = batch
        self.portions = Portions(min(self.micro_batch or batch, batch))
        free = free_memory(self.device)
        if free is not None and not self.normed:
            gauge = Gauge(self.encoder.module, self._blocks, self.weights, partial(self._loss_of, pixels[:1]))
            whole, room = gauge.draws(), int(_USED * free) - coming
            self.portions = choose(batch, room, gauge.cost, self.micro_batch, whole=whole, before=self.before)
            self.draws = whole
        if self.told:
            self.tell()

    def of(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Leave the gradients of the mean loss over a batch in the weights, and give that loss.

        Where memory runs out they are begun anew in smaller portions, with the same random numbers.

        Raises:
            ResidualError: memory ran out with the smallest.
        """
        state = random_state(self.device)
        while True:
            try:
                return self._summed(pixels, labels)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)
            self._take_less(reason)  # the error is gone here, and what its frames held on to
            set_random_state(self.device, state)

    def logits(self, pixels: Tensor, compiled: bool = True) -> Tensor:
        """In single precision or more: they are cosines times 100.

        Args:
            pixels: `(b, 3, h, w)`.
            compiled: if the encoder is; what is changed inside the model for a while has no effect then.
        """
        encoder = self.encoder
        with self.fabric.autocast():
            ready = encoder.checked_pixels(pixels)
            if compiled:
                outputs = encoder.run("image", ready)
            else:
                outputs = encoder.tower("image").encode(encoder.module, ready)
        return self.classifier.logits(outputs.to(torch.promote_types(outputs.dtype, torch.float32)))

    @property
    def _blocks(self) -> list[nn.Module]:
        return [each.block for each in self.encoder.parts.blocks]

    def _summed(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """The same in today's portions."""
        size, again = len(labels), False
        if self.portions is not None:
            size, again = self.portions.micro_batch, self.portions.checkpointing
        self._forget()
        total = torch.zeros((), device=self.device)
        with run_again(self._blocks) if again else nullcontext():
            for part, its in zip(pixels.split(size), labels.split(size), strict=True):
                loss = cross_entropy(self.logits(part, not again), its) * (len(its) / len(labels))
                self.fabric.backward(loss)
                total = total + loss.detach()
        return total

    def _forget(self) -> None:
        for weight in self.weights:
            weight.grad = None

    def _loss_of(self, one: Tensor, pictures: int) -> Tensor:
        """Of a picture, so many times."""
        logits = self.logits(one.expand(pictures, -1, -1, -1), compiled=False)
        return cross_entropy(logits, logits.new_zeros(pictures, dtype=torch.long))

    def _take_less(self, reason: str) -> None:
        self._forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        less = None if self.portions is None or self.normed else self.portions.smaller(self.draws)
        if less is None:
            raise ResidualError(
                f"Memory ran out in fine-tuning {self.encoder.name} with {self.portions} ({reason}).",
                "Free the device of what else is on it, or take one with more memory or a smaller encoder; "
                "with a folder the same call goes on from its last checkpoint.",
            )
        self.portions = less
        self.tell()
