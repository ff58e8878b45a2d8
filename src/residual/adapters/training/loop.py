"""The loop behind `fine_tune` and `train`, on Lightning Fabric: passes, validation, checkpoints.

Fabric brings precision, clipping and checkpoint files. The loop itself is here, so that a run that was killed
goes on from the very batch, with the same numbers as if nothing had been. Needs `lightning`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from residual.adapters.fit import Epoch, FitResult
from residual.adapters.training.checkpoints import SafetensorsIO
from residual.adapters.training.data import Samples
from residual.adapters.training.log import Log, quiet
from residual.adapters.training.train_settings import TrainSettings
from residual.errors import ResidualError
from residual.progress import Progress
from residual.text.classifier import ZeroShotClassifier

SAVE_EVERY = 120.0  # seconds between checkpoints inside of an epoch
_VALIDATED = 256  # samples at a time, if not more


@dataclass(frozen=True)
class Work:
    """What is trained, on what.

    Args:
        forward: from a batch's inputs to outputs `(b, d)`.
        trained: the weights, by name.
        buffers: what else training changes, by name.
        mode: called with True before training and with False before validation.
        penalty: what is added to the loss.
        samples: reads those for training and for validation; called once there is something to train.
        classifier: from outputs to logits, on the device.
        identity: of everything that a checkpoint must have in common with what goes on from it.
    """

    forward: Callable[..., Tensor]
    trained: dict[str, nn.Parameter]
    buffers: dict[str, Tensor]
    mode: Callable[[bool], object]
    penalty: Callable[[], Tensor | float]
    samples: Callable[[], tuple[Samples, Samples]]
    classifier: ZeroShotClassifier
    identity: dict[str, str]


def run(
    work: Work,
    settings: TrainSettings,
    device: torch.device,
    folder: Path | None,
    logger: str | None,
    progress: Progress | None,
) -> FitResult:
    """Train until the last epoch or until patience ends; the weights of the best epoch are what is left.

    Raises:
        ResidualError: the folder holds a checkpoint of something else, or the loss isn't finite.
    """
    with _on(device), _own_randomness(device, settings.seed):
        training = _Training(work, settings, device, folder)
        if training.resume():
            return training.result()
        train, val = work.samples()
        training.start(train)
        log = Log(logger, folder, asdict(settings), training.history)
        best = None
        try:
            while not training.done:
                epoch = training.epoch(train, val)
                log.add(epoch)
                if not training.done:
                    training.save()
                if progress is not None:
                    progress("fine-tune", epoch.epoch, settings.epochs)
            best = training.best
        finally:
            log.close(best)
        training.finish()
        return training.result()


class _Training:
    """The state of a training: weights, optimiser, and how far it has come."""

    def __init__(self, work: Work, settings: TrainSettings, device: torch.device, folder: Path | None):
        self.work, self.settings, self.device, self.folder = work, settings, device, folder
        self.before, self.begun = 0.0, time.perf_counter()
        precision: Any = settings.precision
        with quiet():
            self.fabric = Fabric(
                accelerator=device.type,
                devices=1 if device.type == "cpu" else [device.index or 0],
                precision=precision,
                plugins=[LightningEnvironment(), SafetensorsIO()],
            )
            self.optimizer = _optimizer(list(work.trained.values()), settings)
            self.stepping: Any = self.fabric.setup_optimizers(self.optimizer)
        self.clipped = nn.ParameterList(work.trained.values())
        self.total = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64).to(
            device
        )
        self.number, self.step = 1, 0  # the epoch at work, and how many of its batches are done
        self.history: list[Epoch] = []
        self.best, self.improved = Epoch(0, math.inf, -math.inf, math.inf), 0
        self.weights: dict[str, Tensor] | None = None  # of the best epoch
        self.order = torch.Generator().manual_seed(settings.seed)
        self.steps = 0  # in an epoch
        self.save_at = math.inf

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train."""
        past = len(self.history)
        return past >= self.settings.epochs or past - self.improved >= self.settings.patience

    @property
    def state(self) -> dict[str, Tensor]:
        """All that training changes."""
        return {name: value.detach() for name, value in (self.work.trained | self.work.buffers).items()}

    def start(self, train: Samples) -> None:
        """Once the samples are known: shuffle on from where the checkpoint left off."""
        self.steps = -(-len(train) // self.settings.batch_size)
        for _ in range(self.number - 1):
            torch.randperm(len(train), generator=self.order)
        self._expect_save()

    def epoch(self, train: Samples, val: Samples) -> Epoch:
        """One pass over the training samples, or the rest of one, and validation."""
        order = torch.randperm(len(train), generator=self.order)
        self._mode(True)
        for inputs, labels in train.batches(order, self.settings.batch_size, self.step):
            self._step(inputs, labels)
            self.step += 1
            if time.monotonic() > self.save_at:
                self.save()
        loss = self.total.item() / len(train)
        if not math.isfinite(loss):
            raise ResidualError(
                f"The loss is no longer finite in epoch {self.number}: try a smaller learning_rate than "
                f"{self.settings.learning_rate:g}."
            )
        self._mode(False)
        epoch = Epoch(self.number, loss, *self._validated(val))
        self._add(epoch)
        self._mode(True)
        self.number, self.step = self.number + 1, 0
        self.total.zero_()
        return epoch

    def _step(self, inputs: tuple[Tensor, ...], labels: Tensor) -> None:
        if self.settings.optimizer == "adamw":
            rate = self._rate((self.number - 1) * self.steps + self.step + 1)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(self._logits(inputs), labels)
        self.fabric.backward(loss + self.work.penalty())
        if self.settings.clip:
            self.fabric.clip_gradients(
                self.clipped, self.optimizer, max_norm=self.settings.clip, error_if_nonfinite=False
            )
        self.stepping.step()
        self.total += loss.detach() * len(labels)

    def _logits(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """In single precision or more: they are cosines times 100."""
        with self.fabric.autocast():
            outputs = self.work.forward(*inputs)
        return self.work.classifier.logits(outputs.to(torch.promote_types(outputs.dtype, torch.float32)))

    def _rate(self, step: int) -> float:
        """Of AdamW in a step (counted from 1): a linear rise, then a cosine down to zero."""
        total = self.steps * self.settings.epochs
        rising = math.floor(total * self.settings.warmup)
        if step <= rising:
            return self.settings.learning_rate * step / rising
        done = (step - 1 - rising) / max(total - rising, 1)
        return self.settings.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def _validated(self, val: Samples) -> tuple[float, float]:
        """Accuracy and loss on the validation samples."""
        found = torch.zeros(2, dtype=self.total.dtype, device=self.device)
        with torch.no_grad():
            for inputs, labels in val.batches(None, max(self.settings.batch_size, _VALIDATED)):
                logits = self._logits(inputs)
                hits = (logits.argmax(1) == labels).sum()
                found += torch.stack([hits, cross_entropy(logits, labels, reduction="sum")])
        accuracy, loss = (found / len(val)).tolist()
        return accuracy, loss

    def _add(self, epoch: Epoch) -> None:
        """The rules of `fit`: accuracy stops and chooses, among equals the lower validation loss chooses."""
        self.history.append(epoch)
        if epoch.val_accuracy > self.best.val_accuracy:
            self.improved = epoch.epoch
        if epoch.merit > self.best.merit:
            self.best = epoch
            self.weights = {name: value.clone() for name, value in self.state.items()}

    def _mode(self, training: bool) -> None:
        """Schedule-free weights are averaged for validation (Defazio et al. 2024)."""
        self.work.mode(training)
        if isinstance(self.optimizer, AdamWScheduleFree):
            self.optimizer.train() if training else self.optimizer.eval()

    def result(self) -> FitResult:
        """How it went."""
        seconds = self.before + time.perf_counter() - self.begun
        return FitResult(self.best.epoch, self.best.val_accuracy, seconds, tuple(self.history))

    # Checkpoints

    def save(self) -> None:
        """Everything that it takes to go on from here, if there is a folder."""
        if self.folder is None:
            return
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        self._write(
            "checkpoint",
            {
                "number": self.number,
                "step": self.step,
                "total": self.total,
                "state": self.state,
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "random": random,
            },
        )
        self._expect_save()

    def finish(self) -> None:
        """Leave the best epoch's weights, here and in the folder."""
        self._take(self.weights)
        if self.folder is not None:
            self._write("finished", {})
            _file(self.folder, "checkpoint").unlink(missing_ok=True)

    def resume(self) -> bool:
        """Take up what the folder holds; whether that is the end already.

        Raises:
            ResidualError: it is of something else.
        """
        if self.folder is None:
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResidualError(
                f"The folder {str(self.folder)!r} can't be made: {error.strerror}."
            ) from error
        for name in ("finished", "checkpoint"):
            path = _file(self.folder, name)
            for left in self.folder.glob(f".{path.name}.*"):  # begun by a process that was killed
                left.unlink(missing_ok=True)
            if not path.exists():
                continue
            with quiet():
                held = self.fabric.load(path)
            _check_same(held["identity"], self.work.identity, path)
            self.before, self.improved = held["seconds"], held["improved"]
            self.history = [Epoch(*each) for each in held["history"]]
            self.best = Epoch(*held["best"])
            if held["weights"] is not None:
                self.weights = {name: value.to(self.device) for name, value in held["weights"].items()}
            if name == "finished":
                self._take(self.weights)
                _file(self.folder, "checkpoint").unlink(missing_ok=True)
                self.begun = time.perf_counter()
                return True
            self.number, self.step = held["number"], held["step"]
            self.total.copy_(held["total"])
            self._take(held["state"])
            self.optimizer.load_state_dict(held["optimizer"])
            self.fabric.strategy.precision.load_state_dict(held["precision"])
            torch.set_rng_state(held["random"]["cpu"])
            if self.device.type == "cuda" and "cuda" in held["random"]:
                torch.cuda.set_rng_state(held["random"]["cuda"], self.device)
        return False

    def _write(self, name: str, more: dict[str, Any]) -> None:
        if self.folder is None:
            return
        common = {
            "identity": self.work.identity,
            "seconds": self.before + time.perf_counter() - self.begun,
            "improved": self.improved,
            "history": [astuple(epoch) for epoch in self.history],
            "best": astuple(self.best),
            "weights": self.weights,
        }
        self.fabric.save(_file(self.folder, name), common | more)

    def _expect_save(self) -> None:
        if self.folder is not None:
            self.save_at = time.monotonic() + SAVE_EVERY

    def _take(self, state: dict[str, Tensor] | None) -> None:
        """Put these weights in place."""
        mine = self.state
        for name, value in (state or {}).items():
            mine[name].copy_(value)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _optimizer(weights: list[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    kind = AdamWScheduleFree if settings.optimizer == "schedule_free" else torch.optim.AdamW
    return kind(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _check_same(held: dict[str, str], mine: dict[str, str], path: Path) -> None:
    """Refuse a checkpoint of something else.

    Raises:
        ResidualError: names what differs.
    """
    other = [
        f"{name} ({held[name]}, not {mine[name]})" if name in held and len(mine[name]) < 60 else name
        for name in mine
        if held.get(name) != mine[name]
    ]
    if other or held.keys() - mine.keys():
        raise ResidualError(
            f"The checkpoint {str(path)!r} is of another {', another '.join(other) or 'training'}: give "
            "another folder, or remove it to start anew."
        )


@contextmanager
def _on(device: torch.device) -> Generator[None]:
    """On this GPU; the current one is what it was afterwards."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield


@contextmanager
def _own_randomness(device: torch.device, seed: int) -> Generator[None]:
    """Random numbers (of dropout) from the seed; the caller's go on afterwards as if nothing had been."""
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        for number in devices:
            torch.cuda.default_generators[number].manual_seed(seed)
        yield
