"""The loop behind `fine_tune`, on Lightning Fabric: passes, validation, checkpoints.

Fabric brings precision, scaling and clipping. The loop itself is here, so that a run that was killed goes on
from the very batch, with the same numbers as if nothing had been. Needs `lightning` and `schedulefree`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from residual.adapters.descent import cosine_schedule
from residual.adapters.early_stopping import EarlyStopping, Epoch, FitResult
from residual.adapters.fine_tuning.checkpoints import (
    FORM,
    FORM_OF_PORTIONS,
    KIND,
    ON_THE_WAY,
    PORTIONS,
    OtherTrainingError,
    alike,
    file_of,
    read,
    under,
    whole,
)
from residual.adapters.fine_tuning.gradients import Gradients
from residual.adapters.fine_tuning.log import Log, quiet
from residual.adapters.fine_tuning.memory import Portions, random_state, set_random_state
from residual.adapters.fine_tuning.pictures import Pictures
from residual.adapters.fit_settings import TrainSettings
from residual.encoders.encoder import Encoder
from residual.files import make_folder, sweep, write_errors
from residual.finite import hits
from residual.progress import Progress
from residual.store.form import check_form
from residual.tensor_files import save_tensors
from residual.text.classifier import ZeroShotClassifier

SAVE_EVERY = 120.0  # seconds between checkpoints inside of an epoch
_VALIDATED = 256  # pictures at a time, if not more


@dataclass(frozen=True)
class Work:
    """What is trained, on what.

    Args:
        encoder: on the device of the training.
        trained: its weights that are trained, by name.
        buffers: what else training changes, by name.
        pictures: reads those for training and for validation; called once there is something to train.
        classifier: from outputs to logits, on the device.
        identity: of everything that a checkpoint must have in common with what goes on from it.
    """

    encoder: Encoder
    trained: dict[str, nn.Parameter]
    buffers: dict[str, Tensor]
    pictures: Callable[[], list[Pictures]]
    classifier: ZeroShotClassifier
    identity: dict[str, str]


def run(
    work: Work,
    settings: TrainSettings,
    folder: Path | None,
    logger: str | None,
    progress: Progress | None,
    overwrite: bool = False,
) -> FitResult:
    """Train until the last epoch or until patience ends; the weights of the best epoch are what is left.

    Args:
        work: see `Work`.
        settings: of the training.
        folder: of checkpoints and logs, if any.
        logger: see `Log`.
        progress: told of every epoch.
        overwrite: whether checkpoints of another training are replaced.

    Raises:
        ResidualError: the folder holds a checkpoint of something else, or the loss isn't finite.
    """
    with _own_randomness(work.encoder.device, settings.seed):
        training = Training(work, settings, folder, progress)
        if training.resume(overwrite):
            return training.result()
        train, val = work.pictures()
        training.start(train)
        log = Log(logger, folder, settings.noted(work.encoder), training.stopping.history)
        best = None
        try:
            while not training.stopping.done:
                epoch = training.epoch(train, val)
                log.add(epoch)
                if not training.stopping.done:
                    training.save()
                training.tell()
            best = training.stopping.best
        finally:
            log.close(best)
        training.finish()
        return training.result()


class Training:
    """The state of a training: weights, optimiser, and how far it has come."""

    def __init__(
        self, work: Work, settings: TrainSettings, folder: Path | None, progress: Progress | None = None
    ):
        self.work, self.settings, self.folder, self.progress = work, settings, folder, progress
        self.device = device = work.encoder.device
        self.size = settings.batch_of(work.encoder)
        self.before, self.begun = 0.0, time.perf_counter()
        precision: Any = settings.precision
        with quiet():
            self.fabric = Fabric(
                accelerator=device.type,
                devices=1 if device.type == "cpu" else [device.index or 0],
                precision=precision,
                plugins=[LightningEnvironment()],
            )
            kind = AdamWScheduleFree if settings.optimizer == "schedule_free" else torch.optim.AdamW
            self.optimizer = kind(
                list(work.trained.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay
            )
            self.stepping: Any = self.fabric.setup_optimizers(self.optimizer)
        weights = list(work.trained.values())
        self.clipped = nn.ParameterList(weights)
        self.gradients = Gradients(
            work.encoder, weights, work.classifier, self.fabric, settings.micro_batch, self.tell
        )
        sums = torch.float32 if device.type == "mps" else torch.float64
        self.total = torch.zeros((), dtype=sums, device=device)  # of losses in this epoch
        self.number, self.step = 1, 0  # the epoch at work, and how many of its batches are done
        self.stopping = EarlyStopping(settings.epochs, settings.patience, settings.learning_rate)
        self.best: dict[str, Tensor] = {}  # weights of the best epoch
        self.order = torch.Generator().manual_seed(settings.seed)
        self.samples = 0  # that are trained on
        self.save_at = 0.0

    @property
    def state(self) -> dict[str, Tensor]:
        """All that training changes."""
        return {name: value.detach() for name, value in (self.work.trained | self.work.buffers).items()}

    def start(self, train: Pictures) -> None:
        """Once the pictures are known: shuffle on from where the checkpoint left off."""
        self.samples = len(train)
        for _ in range(self.number - 1):
            torch.randperm(len(train), generator=self.order)
        self.save_at = time.monotonic() + SAVE_EVERY

    def epoch(self, train: Pictures, val: Pictures) -> Epoch:
        """One pass over the training pictures, or the rest of one, and validation.

        Raises:
            ResidualError: the loss isn't finite.
        """
        order = torch.randperm(len(train), generator=self.order)
        self._mode(True)
        for pixels, labels in train.batches(order, self.size, self.step):
            self._step(pixels, labels)
            self.step += 1
            if time.monotonic() > self.save_at:
                self.save()
        self._mode(False)
        epoch = Epoch(self.number, self.total.item() / len(train), *self._validated(val))
        if self.stopping.add(epoch):
            self.best = {name: value.clone() for name, value in self.state.items()}
        self._mode(True)
        self.number, self.step = self.number + 1, 0
        self.total.zero_()
        return epoch

    def _step(self, pixels: Tensor, labels: Tensor) -> None:
        if self.settings.optimizer == "adamw":
            steps = -(-self.samples // self.size)
            done, total = (self.number - 1) * steps + self.step, steps * self.settings.epochs
            step, last = torch.tensor([done + 1, total], dtype=torch.float64)
            part = cosine_schedule(step, last, self.settings.warmup)
            self.optimizer.param_groups[0]["lr"] = self.settings.learning_rate * part.item()
        if self.gradients.portions is None:
            self.gradients.plan(pixels, min(self.size, self.samples), self._coming())
        loss = self.gradients.of(pixels, labels)
        if self.settings.clip:
            self.fabric.clip_gradients(
                self.clipped, self.optimizer, max_norm=self.settings.clip, error_if_nonfinite=False
            )
        self.stepping.step()
        self.total += loss * len(labels)

    def _coming(self) -> int:
        """Bytes of what is yet to be allocated: gradients, two moments, and the weights of the best epoch."""
        weights = sum(each.nbytes for each in self.work.trained.values())
        return weights * (1 + 2 * (not self.optimizer.state) + (not self.best))

    def tell(self) -> None:
        """How many epochs are done, and in what portions."""
        if self.progress is not None:
            stage = ", ".join(filter(None, ("fine-tune", self.gradients.told)))
            self.progress(stage, len(self.stopping.history), self.settings.epochs)

    def _validated(self, val: Pictures) -> tuple[float, float]:
        """Accuracy and loss on the validation pictures."""
        sums = torch.zeros(2, dtype=self.total.dtype, device=self.device)
        most = max(self.size, _VALIDATED)
        if (portions := self.gradients.portions) and self.gradients.told:
            most = min(most, 4 * portions.micro_batch)  # nothing is kept for a way back
        with torch.no_grad():
            for pixels, labels in val.batches(None, most):
                logits = self.gradients.logits(pixels)
                right = hits(logits, labels).sum()
                sums += torch.stack([right, cross_entropy(logits, labels, reduction="sum")])
        accuracy, loss = (sums / len(val)).tolist()
        return accuracy, loss

    def _mode(self, training: bool) -> None:
        """Schedule-free weights are averaged for validation (Defazio et al. 2024)."""
        self.work.encoder.module.train(training)
        if isinstance(self.optimizer, AdamWScheduleFree):
            self.optimizer.train() if training else self.optimizer.eval()

    def result(self) -> FitResult:
        """How it went."""
        result = self.stopping.result(self.before + time.perf_counter() - self.begun)
        portions = self.gradients.portions or self.gradients.before
        return replace(result, portions=portions and asdict(portions))

    def save(self) -> None:
        """Everything that it takes to go on from here, if there is a folder.

        Raises:
            ResidualError: it can't be written, or isn't finite: the last good checkpoint stays.
        """
        if self.folder is None:
            return
        numbers = (self.total, *self.work.trained.values())  # a buffer may well hold -inf, as a mask does
        if not torch.stack([each.detach().isfinite().all() for each in numbers]).all():
            raise self.stopping.diverged(self.number)
        optimizer = self.optimizer.state_dict()
        tensors = {f"state/{name}": value for name, value in self.state.items()}
        for number, moments in optimizer["state"].items():
            tensors |= {f"optimizer/{number}/{name}": value for name, value in moments.items()}
        tensors["total"] = self.total
        tensors |= {f"random/{name}": each for name, each in random_state(self.device).items()}
        note = {
            "number": self.number,
            "step": self.step,
            "groups": optimizer["param_groups"],
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        self._write("checkpoint", tensors, note)
        self.save_at = time.monotonic() + SAVE_EVERY

    def finish(self) -> None:
        """Leave the best epoch's weights, here and in the folder."""
        self._take(self.best)
        if self.folder is not None:
            self._write("finished", {}, {})
            file_of(self.folder, "checkpoint").unlink(missing_ok=True)

    def resume(self, overwrite: bool = False) -> bool:
        """Take up what the folder holds; whether that is the end already. With `overwrite`, what is of
        another training goes.

        Raises:
            ResidualError: it is of something else, or can't be read.
        """
        if self.folder is None:
            return False
        with write_errors(self.folder):
            make_folder(self.folder)
        sweep(self.folder)
        for name in ("finished", "checkpoint"):
            path = file_of(self.folder, name)
            if path.exists():
                try:
                    tensors, note = read(path, self.work.identity)
                except OtherTrainingError:
                    if not overwrite:
                        raise
                    path.unlink()
                    continue
                with whole(path):
                    check_form(note, FORM | (ON_THE_WAY if name == "checkpoint" else {}), "its note")
                    self.before = note["seconds"]
                    for epoch in note["history"]:
                        self.stopping.add(Epoch(*epoch))
                    if PORTIONS in note:
                        check_form(note[PORTIONS], FORM_OF_PORTIONS, "its portions")
                        self.gradients.before = Portions(**note[PORTIONS])
                    best = under("best/", tensors)
                    self.best = {key: value.to(self.device) for key, value in best.items()}
                    if name == "checkpoint":
                        self._go_on(tensors, note)
                        return False
                    self._take(self.best)
                file_of(self.folder, "checkpoint").unlink(missing_ok=True)
                self.begun = time.perf_counter()
                return True
        return False

    def _go_on(self, tensors: dict[str, Tensor], note: dict[str, Any]) -> None:
        """From what `save` wrote."""
        self.number, self.step = note["number"], note["step"]
        self.total.copy_(tensors["total"])
        self._take(under("state/", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in under("optimizer/", tensors).items():
            number, _, name = key.partition("/")
            state.setdefault(int(number), {})[name] = value
        if not alike(note["groups"], json.loads(json.dumps(self.optimizer.state_dict()["param_groups"]))):
            raise ValueError("its optimizer's settings are of another kind")
        self.optimizer.load_state_dict({"state": state, "param_groups": note["groups"]})
        self.fabric.strategy.precision.load_state_dict(note["precision"])
        set_random_state(self.device, under("random/", tensors))

    def _write(self, name: str, tensors: dict[str, Tensor], note: dict[str, Any]) -> None:
        if self.folder is None:
            return
        path, best = file_of(self.folder, name), {f"best/{key}": value for key, value in self.best.items()}
        common: dict[str, Any] = {
            "identity": self.work.identity,
            "seconds": self.before + time.perf_counter() - self.begun,
            "history": [astuple(epoch) for epoch in self.stopping.history],
        }
        if portions := self.gradients.portions or self.gradients.before:
            common[PORTIONS] = asdict(portions)
        save_tensors(path, KIND, tensors | best, common | note)

    def _take(self, state: dict[str, Tensor]) -> None:
        """Put these weights in place."""
        for name, mine in self.state.items():
            mine.copy_(state[name])


@contextmanager
def _own_randomness(device: torch.device, seed: int) -> Generator[None]:
    """On this device, with random numbers (of dropout) from the seed; afterwards all is as it was."""
    on_gpu = device.type == "cuda"
    with torch.cuda.device(device) if on_gpu else nullcontext():
        devices = [torch.cuda.current_device()] if on_gpu else []
        with torch.random.fork_rng(devices):
            torch.default_generator.manual_seed(seed)
            for number in devices:
                torch.cuda.default_generators[number].manual_seed(seed)
            yield
