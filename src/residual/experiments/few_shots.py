"""A method on a few pictures of each class, in experiment 4: what they alone make of an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from residual.adapters import evaluate, few_shot, fit
from residual.adapters.fit_settings import FitSettings
from residual.adapters.methods import METHODS, AdapterSettings, Reference, make_adapter
from residual.adapters.scores import Scores
from residual.text.classifier import ZeroShotClassifier
from residual.workflows.task import Task

ZERO_SHOT = "zero_shot"


def few_shot_rows(
    task: Task,
    method: str,
    shots: int,
    fits: Sequence[FitSettings],
    fitted: tuple[Reference, AdapterSettings, Mapping[str, Scores]] | None = None,
) -> pd.DataFrame:
    """A row a draw: `shots` pictures of each class, at random; tested on all of test.

    A draw sees no other picture with its label: where the classifier is of class means they are the means of
    the pictures drawn, and the epoch is chosen on as many of val (or on as many of each class as val has of
    its smallest). Components are those of the whole reference, which knows no labels.

    Args:
        task: a dataset, encoded.
        method: "zero_shot", or one of `ADAPTERS`.
        shots: pictures of each class.
        fits: of each draw; the seed draws.
        fitted: of an adapter, what its components are of, its settings, and the scores of each split.

    Returns:
        Columns `seed, accuracy, val_accuracy, weights, best_epoch, epochs, seconds`.

    Raises:
        ResidualError: a class has fewer training pictures.
    """
    train, val, test = (task.stores[split] for split in ("train", "val", "test"))
    most = int(np.unique(val.labels, return_counts=True)[1].min())
    text = None if task.released else task.classifier
    outputs = {} if text and fitted else {split: store.output() for split, store in task.stores.items()}
    table = []
    for settings in fits:
        rows = few_shot(train.labels, shots, settings.seed)
        held = few_shot(val.labels, min(shots, most), settings.seed)
        normalized = method == ZERO_SHOT or not METHODS[method].released
        classifier = text or ZeroShotClassifier.from_class_means(
            outputs["train"][rows], train.labels[rows], train.class_names, fingerprint=train.fingerprint,
            normalized=normalized,
        )  # fmt: skip
        row = {"seed": settings.seed, "weights": 0, "best_epoch": 0, "epochs": 0, "seconds": 0.0}
        if fitted is None:
            row["accuracy"] = classifier.accuracy(outputs["test"], test.labels)
            row["val_accuracy"] = classifier.accuracy(outputs["val"][held], val.labels[held])
        else:
            reference, how, scores = fitted
            adapter = make_adapter(method, reference, how, settings.seed)
            result = fit(adapter, scores["train"].take(rows), scores["val"].take(held), classifier, settings)
            row["accuracy"] = evaluate(adapter, scores["test"], classifier)
            row["val_accuracy"], row["weights"] = result.val_accuracy, adapter.weights.numel()
            row["best_epoch"], row["epochs"] = result.best_epoch, len(result.history)
            row["seconds"] = result.seconds
        table.append(row)
    columns = ["seed", "accuracy", "val_accuracy", "weights", "best_epoch", "epochs", "seconds"]
    return pd.DataFrame(table)[columns]
