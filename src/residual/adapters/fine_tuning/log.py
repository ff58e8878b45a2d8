"""Where fine-tuning writes its epochs: Lightning's loggers for CSV, TensorBoard and Weights & Biases."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from residual.adapters.early_stopping import Epoch
from residual.errors import ResidualError

LOGGERS = ("csv", "tensorboard", "wandb")
_TALKERS = ("lightning", "lightning.fabric", "lightning.pytorch")


@contextmanager
def quiet() -> Generator[None]:
    """Without Lightning's tips and warnings, which are for those who call it themselves."""
    levels = {name: logging.getLogger(name).level for name in _TALKERS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _TALKERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


class Log:
    """One of Lightning's loggers, or none.

    Args:
        kind: one of `LOGGERS`, or None for none. CSV is at `csv/metrics.csv` in the folder, TensorBoard's
            events are in `tensorboard`, those of Weights & Biases in `wandb` (its variables `WANDB_MODE`,
            `WANDB_PROJECT` and so on hold).
        folder: of the training.
        settings: of the training.
        history: epochs that an earlier, broken-off process has logged.

    Raises:
        ResidualError: the logger isn't installed, or can't start.
    """

    def __init__(
        self,
        kind: str | None,
        folder: Path | None,
        settings: Mapping[str, Any],
        history: Sequence[Epoch] = (),
    ):
        self.kind, self.settings = kind, settings
        self.logger: Any = None
        self.finish: Callable[[], object] | None = None
        if kind is None or folder is None:
            return
        with quiet():
            if kind == "csv":
                from lightning.fabric.loggers.csv_logs import CSVLogger

                self.logger = CSVLogger(folder, name="", version="csv")
            elif kind == "tensorboard":
                from lightning.fabric.loggers.tensorboard import TensorBoardLogger

                self.logger = TensorBoardLogger(folder, name="", version="tensorboard")
            else:
                self._start_wandb(folder)
        if kind == "csv":  # the only one that begins its file anew
            for epoch in history:
                self.add(epoch)

    def _start_wandb(self, folder: Path) -> None:
        import wandb
        from lightning.pytorch.loggers.wandb import WandbLogger

        if wandb.run is not None:  # the caller's: it is used, and left open
            self.logger = WandbLogger(experiment=wandb.run)
            return
        try:
            run = wandb.init(
                dir=folder,
                project=os.environ.get("WANDB_PROJECT", "residual-vit"),
                id=hashlib.sha256(os.fspath(folder.resolve()).encode()).hexdigest()[:16],
                resume="allow",  # the same one after a break
                config=dict(self.settings),
                settings=wandb.Settings(silent=True),
            )
        except wandb.errors.Error as error:
            raise ResidualError(
                f"Weights & Biases can't start ({error}): say `wandb login`, or set WANDB_MODE=offline."
            ) from error
        self.logger, self.finish = WandbLogger(experiment=run), run.finish

    def add(self, epoch: Epoch) -> None:
        """An epoch, on the disk at once."""
        if self.logger is None:
            return
        with quiet():
            metrics = asdict(epoch)
            self.logger.log_metrics(metrics, step=metrics.pop("epoch"))
            self.logger.save()

    def close(self, best: Epoch | None = None) -> None:
        """The best epoch, if training came to its end; nothing can be added any more."""
        if self.logger is None:
            return
        with quiet():
            if best is not None and self.kind == "tensorboard":
                scores = {"best/val_accuracy": best.val_accuracy, "best/val_loss": best.val_loss}
                self.logger.log_hyperparams(dict(self.settings), scores, best.epoch)
            self.logger.finalize("success" if best is not None else "aborted")
            if self.finish is not None:
                self.finish()
