"""Experiment 4: what each method makes of an encoder, dataset by dataset: the paper's main table."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from residual.adapters import adapted_output, compute_scores
from residual.adapters.methods import (
    ADAPTERS,
    FINE_TUNING,
    AdapterSettings,
    Reference,
    make_adapter,
)
from residual.adapters.scores import Scores
from residual.data import SPLITS
from residual.encoders.encoder import Encoder
from residual.experiments.adapters_settings import PAPERS_BATCH, AdaptersSettings
from residual.experiments.base import Experiment, Page, Tables
from residual.experiments.few_shots import ZERO_SHOT, few_shot_rows
from residual.experiments.plan import Plan, Work
from residual.experiments.results import leave_outputs, write_table
from residual.files import safe_name, write_text
from residual.intervals import OVER_SEEDS
from residual.progress import Progress
from residual.report.accuracies import (
    accuracies_latex,
    accuracies_markdown,
    accuracy_frame,
    pictures_lines,
    radar_figure,
    shots_figure,
    shots_lines,
    weights_figure,
)
from residual.report.geometry import records
from residual.report.tables import METHOD_NAMES, SHOTS
from residual.workflows.task import Adapted, Task, adapt, make_task
from residual.workflows.tuning import Tuned, fine_tuned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = f"accuracy on test in per cent, mean; {OVER_SEEDS} over draws, not over test pictures"
_OVER_PICTURES = "accuracy on test in per cent; in brackets Wilson's 95 % interval over test pictures"


class Adapters(Experiment):
    """A cell for each dataset and method, and number of shots: a row a seed, with accuracies, weights trained
    and seconds.

    Trained on train, the epoch chosen on val, measured on test. Features and logits of the first seed on val
    and test are kept beside the results. Fine-tuning goes on from its last checkpoint if it was stopped.
    """

    folder = "4_adapters"
    settings_of = AdaptersSettings
    later = ("recipe", "tuning_precision", "tuning_seeds", "tuning_epochs")

    def cells(self, plan: Plan) -> tuple[str, ...]:
        """Every dataset by every method, the quick ones of all datasets first, and of those all shots."""
        quick = [method for method in self.settings.methods if method != FINE_TUNING]
        slow = [method for method in self.settings.methods if method == FINE_TUNING]
        quick = [
            each
            for method in quick
            for each in (method, *(f"{method}{SHOTS}{number}" for number in self.settings.shots))
        ]
        return tuple(
            f"{name}.{method}" for some in (quick, slow) for name in plan.datasets for method in some
        )

    def layers_held(self, layers: int) -> int:
        """All: scores on every component are held for as long as a fit goes."""
        return layers

    def noted(self) -> dict[str, Any]:
        """All but which cells there are (others can be added later) and what results don't depend on."""
        noted = {**super().noted(), "tuning_batch_size": self._batch_noted}
        left_out = ("methods", "shots", "tuning_micro_batch")
        return {name: value for name, value in noted.items() if name not in left_out}

    def noted_of(self, encoder: Encoder, name: str, cell: str) -> dict[str, Any]:
        """The encoder's own batch of fine-tuning, where that isn't the one that settings are noted with."""
        batch = self.settings.tunings(False, name)[0].batch_of(encoder)
        own = cell.endswith(f".{FINE_TUNING}") and batch != self._batch_noted
        return {"tuning_batch": batch} if own else {}

    @property
    def _batch_noted(self) -> int:
        size = self.settings.tuning_batch_size
        return size if isinstance(size, int) else PAPERS_BATCH

    def depends_on(self, plan: Plan, cell: str) -> tuple[tuple[str, str], ...]:
        """All splits of the dataset, and the reference, which components are of."""
        name, _, _ = cell.rpartition(".")
        return ((plan.reference, "train"), *((name, split) for split in SPLITS))

    def stores(self, work: Work, cell: str) -> tuple[tuple[str, str, str], ...]:
        """The reference only where its components are needed."""
        reference, *own = super().stores(work, cell)
        method = cell.rpartition(".")[2].partition(SHOTS)[0]
        return (reference, *own) if method in ADAPTERS else tuple(own)

    def check(self, work: Work, cell: str) -> None:
        """There are pictures of every class, where a classifier needs them."""
        work.check_classes(cell.rpartition(".")[0])

    def measure(self, work: Work, cell: str) -> pd.DataFrame:
        """One method on one dataset, with its number of classes and of test pictures."""
        table, test = self._measured(work, cell), work.store(cell.rpartition(".")[0], split="test")
        return table.assign(classes=len(test.class_names), tested=len(test))

    def _measured(self, work: Work, cell: str) -> pd.DataFrame:
        name, _, method = cell.rpartition(".")
        method, _, shots = method.partition(SHOTS)
        if method == FINE_TUNING:
            return self._tuned(work, name)
        if shots:
            return self._few(work, name, method, int(shots))
        if method == ZERO_SHOT:
            outputs = {split: work.store(name, split=split).output() for split in ("val", "test")}
            task = work.once("task", _task, work, name)
            val = task.classifier.accuracy(outputs["val"], task.stores["val"].labels)
            row = {"seed": 0, "accuracy": task.zero_shot, "val_accuracy": val, "weights": 0}
            table = pd.DataFrame([{**row, "best_epoch": 0, "epochs": 0, "seconds": 0.0}])
        else:
            work.store(work.plan.reference, split="train")  # all is encoded before anything is made of it
            task, reference = work.once("task", _task, work, name), work.once("reference", _reference, work)
            how = self.settings.fitting(method, bool(work.plan.limit_of(name)))
            adapted = adapt(task, reference, method, how.fits, how.adapter, _named(work, cell))
            first, device = adapted[0].adapter, work.plan.device
            outputs = {
                split: adapted_output(first, compute_scores(first, task.stores[split], device=device))
                for split in ("val", "test")
            }
            table = _rows(adapted)
        for split, output in outputs.items():
            self._keep(work, cell, split, output, task)
        return table

    def _few(self, work: Work, name: str, method: str, shots: int) -> pd.DataFrame:
        """One method on a few pictures of each class."""
        fits = self.settings.fits(bool(work.plan.limit_of(name)))
        if method == ZERO_SHOT:
            return few_shot_rows(work.once("task", _task, work, name), method, shots, fits)
        work.store(work.plan.reference, split="train")  # all is encoded before anything is made of it
        task = work.once("task", _task, work, name)
        how = self.settings.fitting(method, bool(work.plan.limit_of(name)))
        scores = work.once("scores", _scores, work, name, method, how.adapter)
        fitted = (work.once("reference", _reference, work), how.adapter, scores)
        return few_shot_rows(task, method, shots, how.fits, fitted)

    def _tuned(self, work: Work, name: str) -> pd.DataFrame:
        """Fine-tuning, seed by seed."""
        folder = self._training(work.plan, work.name, name) if work.plan.out.is_dir() else None
        task, done = work.once("task", _task, work, name), []
        for each in fine_tuned(
            work.encoder, task, self.settings.tunings(bool(work.plan.limit_of(name)), work.name),
            encoding=work.encoding(),
            splits=("val", "test"), folder=folder, progress=_named(work, f"{name}.{FINE_TUNING}"),
        ):  # fmt: skip
            for split, output in each.outputs.items() if each.seed == 0 else ():
                self._keep(work, f"{name}.{FINE_TUNING}", split, output, task)
            done.append(replace(each, encoder=work.encoder, outputs={}))
        return _rows(done)

    def _training(self, plan: Plan, encoder: str, name: str) -> Path:
        """Where checkpoints are."""
        return plan.out / self.folder / "training" / safe_name(encoder) / safe_name(name)

    def clear(self, plan: Plan, encoder: str, cell: str) -> None:
        """The checkpoints."""
        name, _, method = cell.rpartition(".")
        if method == FINE_TUNING:
            shutil.rmtree(self._training(plan, encoder, name), ignore_errors=True)

    @staticmethod
    def _keep(work: Work, cell: str, split: str, features: Tensor, task: Task) -> None:
        method = cell.rpartition(".")[2]
        classifier = task.classifier if method == ZERO_SHOT else task.classifier_for(method)
        logits = classifier.to(features.device).logits(features)
        leave_outputs(work, cell, split, features, logits, task.stores[split].labels)

    def tabulate(self, folder: Path, tables: Tables) -> None:
        """`table.md` and `table.tex`, a row a method and a column a dataset; the numbers as Parquet."""
        frames = {encoder: accuracy_frame(own) for encoder, rows in tables.items() if (own := _whole(rows))}
        for file, table in (("table.md", accuracies_markdown), ("table.tex", accuracies_latex)):
            write_text(folder / file, "\n".join(table(frame, name) for name, frame in frames.items()))
        if frames:
            every = pd.concat([frame.assign(encoder=name) for name, frame in frames.items()])
            write_table(folder / "accuracy.parquet", {"experiment": self.folder}, every)

    @staticmethod
    def more(tables: Tables) -> dict[str, list[Page]]:
        """`few_shot.md`: accuracy by pictures of each class, of every dataset; `pictures.md`: intervals over
        test pictures, where cells tell how many there are."""
        pages = [
            Page(f"{encoder} on {dataset}: {_SHOWN}, by pictures of each class", *shots_lines(frame))
            for encoder, rows in tables.items()
            for dataset, frame in _by_shots(rows)
        ]
        frames = {encoder: accuracy_frame(own) for encoder, rows in tables.items() if (own := _whole(rows))}
        over = [
            Page(f"{encoder}: {_OVER_PICTURES}", *pictures_lines(frame))
            for encoder, frame in frames.items()
            if frame["tested"].notna().any()
        ]
        return {name: some for name, some in (("few_shot", pages), ("pictures", over)) if some}

    @staticmethod
    def figures(tables: Tables) -> Iterable[tuple[str, Figure]]:
        """For each encoder, accuracy by dataset and method, mean accuracy by weights trained, and accuracy by
        pictures of each class where there are shots."""
        for encoder, rows in tables.items():
            if whole := _whole(rows):
                frame = accuracy_frame(whole)
                yield (
                    f"{encoder}-accuracy",
                    radar_figure(frame, f"{encoder}: accuracy on test, mean over seeds"),
                )
                yield (
                    f"{encoder}-weights",
                    weights_figure(frame, f"{encoder}: mean accuracy by weights trained"),
                )
            for dataset, frame in _by_shots(rows):
                title = f"{encoder} on {dataset}: accuracy on test by pictures of each class"
                yield f"{encoder}-{dataset}-few_shot", shots_figure(frame, title)

    @staticmethod
    def summary(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, int | float]]:
        """Mean accuracy on test over seeds."""
        summary: dict[str, dict[str, int | float]] = {}
        whole = _whole(tables)
        for row in records(accuracy_frame(whole)) if whole else ():
            summary.setdefault(row["dataset"], {})[METHOD_NAMES[row["method"]]] = row["accuracy"]
        return summary

    @staticmethod
    def details(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
        """Accuracies with their intervals, and every seed's row."""
        return {
            "accuracies": records(accuracy_frame(tables)),
            "seeds": {cell: records(table) for cell, table in tables.items()},
        }


def _rows(fits: Sequence[Adapted] | Sequence[Tuned]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "seed": each.seed,
                "accuracy": each.accuracy,
                "val_accuracy": each.result.val_accuracy,
                "weights": each.weights,
                "best_epoch": each.result.best_epoch,
                "epochs": len(each.result.history),
                "seconds": each.result.seconds,
                **(each.result.portions or {}),
            }
            for each in fits
        ]
    )


def _whole(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The cells without shots."""
    return {cell: table for cell, table in tables.items() if SHOTS not in cell.rpartition(".")[2]}


def _by_shots(tables: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, pd.DataFrame]]:
    """By dataset, accuracies by shots; of those that have any."""
    for dataset, frame in accuracy_frame(tables).groupby("dataset", sort=False):
        if frame["shots"].any():
            yield str(dataset), frame


def _task(work: Work, name: str) -> Task:
    datasets = {split: work.dataset(name, split) for split in SPLITS}
    stores = {split: work.store(name, split=split) for split in SPLITS}
    return make_task(work.encoder, name, datasets, stores, 0.0)


def _reference(work: Work) -> Reference:
    return Reference.of(work.store(work.plan.reference, split="train"), work.plan.device)


def _scores(work: Work, name: str, method: str, how: AdapterSettings) -> dict[str, Scores]:
    adapter, device = make_adapter(method, work.once("reference", _reference, work), how), work.plan.device
    return {
        split: compute_scores(adapter, store, device=device)
        for split, store in work.once("task", _task, work, name).stores.items()
    }


def _named(work: Work, cell: str) -> Progress:
    on = cell.rpartition(".")[0]
    return lambda stage, done, total: work.progress(f"{work.name}: {stage} on {on}", done, total)
