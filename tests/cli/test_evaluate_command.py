"""`residual evaluate` on what `residual train` keeps: the accuracy that was told, to the last picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pictures import write_folder

from residual import load_encoder
from residual.adapters import FitSettings, TrainSettings
from residual.adapters.methods import FINE_TUNING
from residual.intervals import over_pictures, wilson
from residual.report.tables import METHOD_NAMES
from residual.workflows.task import encode_task, reference_from
from residual.workflows.train import train_adapter, train_encoder

OF_A_KIND = ("linear", "spectral", "coarse", "residual", "residual_released")  # methods that differ in kind


class Kept:
    """A folder of pictures, and adapters in folders of their own."""

    def __init__(self, place: Path):
        self.place, self.pictures = place, write_folder(place / "digits", each=20)
        self.name = f"folder:{self.pictures}"
        encoder = load_encoder("picto", device="cpu")
        self.task = encode_task(encoder, self.name)
        reference = reference_from(encoder, self.name)
        fits = [FitSettings(epochs=3, seed=seed) for seed in (0, 1)]
        self.told: dict[str, dict[str, Any]] = {}
        for method in OF_A_KIND:
            done = train_adapter(encoder, self.task, reference, method, fits)
            done.adapted.save_pretrained(place / method)
            self.told[method] = done.summary
        tuning = TrainSettings(epochs=1, batch_size=12, learning_rate=1e-4)
        done = train_encoder(encoder, self.task, [tuning])
        done.adapted.save_pretrained(place / FINE_TUNING)
        self.told[FINE_TUNING] = done.summary


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Kept:
    return Kept(tmp_path_factory.mktemp("kept"))


@pytest.mark.parametrize("method", [*OF_A_KIND, FINE_TUNING])
def test_the_accuracy_is_that_of_training(residual, kept, tmp_path, method):
    words = ("--dataset", kept.name, "--device", "cpu", "--json", tmp_path / "r.json")
    code, shown, error = residual("evaluate", kept.place / method, *words)
    assert (code, error) == (0, "")
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    trained = kept.told[method]
    assert (told["adapter"], told["encoder"], told["dataset"]) == (
        method,
        "picto",
        f"folder:{kept.pictures.name}",
    )
    assert (told["method"], told["split"], told["samples"], told["skipped"]) == (method, "test", 12, [])
    wanted = {method: trained["accuracy_of_kept"]}
    if method != FINE_TUNING:  # what it was made of isn't there any more
        wanted = {"zero_shot": trained["accuracy"]["zero_shot"], **wanted}
    assert told["accuracy"] == wanted
    assert list(told["accuracy"]) == list(wanted)
    for name, accuracy in wanted.items():
        error = math.sqrt(accuracy * (1 - accuracy) / 12)
        assert told["standard_error"][name] == pytest.approx(error)
        assert METHOD_NAMES[name] in shown
        assert f"{100 * accuracy:.1f} % {over_pictures(wilson(12 * accuracy, 12))}" in shown
    each = told["per_class"]
    assert sum(one["samples"] for one in each.values()) == 12
    right = sum(one["samples"] * one["accuracy"] for one in each.values())
    assert right / 12 == pytest.approx(wanted[method])


def test_another_split_in_small_batches(residual, kept, tmp_path):
    words = ("--dataset", kept.name, "--split", "val", "--batch-size", "5", "--json", tmp_path / "r.json")
    code, shown, _ = residual("evaluate", kept.place / "residual", "--encoder", "picto", *words)
    assert code == 0
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    best = kept.told["residual"]["per_seed"][kept.told["residual"]["kept_seed"]]
    assert (told["split"], told["accuracy"]["residual"]) == ("val", best["val_accuracy"])
    assert "/val, 12 pictures" in shown


def test_pictures_that_cannot_be_read(residual, kept, tmp_path):
    root = write_folder(tmp_path / "pictures", each=20)
    test = kept.task.datasets["test"].sample_ids
    for name in test[:2]:
        (root / name).write_bytes(b"not a picture")
    words = ("evaluate", kept.place / "coarse", "--dataset", f"folder:{root}", "--json", tmp_path / "r.json")
    code, shown, error = residual(*words)
    assert (code, shown) == (2, "")
    assert error.startswith(f"residual: Image '{test[0]}' can't be read")
    assert error.count("\n") == 1
    assert not (tmp_path / "r.json").exists()
    code, _, error = residual(*words, "--on-error", "skip")
    assert code == 0
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert (told["samples"], told["skipped"]) == (10, list(test[:2]))
    for name in test[:2]:
        assert f"left out, can't be read: {name}" in error
    for name in test:
        (root / name).write_bytes(b"")
    code, _, error = residual(*words, "--on-error", "skip", "--overwrite")
    assert code == 2
    assert "None of the 12 images" in error


def test_other_classes_are_refused(residual, kept, tmp_path):
    root = write_folder(tmp_path / "others", classes=("0", "1", "5"))
    for name, classes in (
        (f"folder:{root}", "has 3 (digit 0, digit 1, digit 5, …)"),
        ("letters", "has 26 (a, b, c, d, …)"),
    ):
        code, shown, error = residual("evaluate", kept.place / "linear", "--dataset", name)
        assert (code, shown) == (2, "")
        assert "The adapter tells 3 classes apart (digit 0, digit 1, digit 7, …)" in error
        assert classes in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--dataset", "PICTURES"], "there is no such folder, and it can't be had from the hub"),
        (["PICTURES", "--dataset", "PICTURES"], "holds no adapter_config.json"),
        (["linear", "--dataset", "mnits"], "Did you mean 'mnist'"),
        (["linear", "--dataset", "folder:nowhere"], "nowhere"),
        (["linear", "--dataset", "PICTURES", "--split", "tset"], "tset"),
        (["linear", "--dataset", "PICTURES", "--on-error", "ignore"], "on_error is 'raise' or 'skip'"),
        (["linear", "--dataset", "PICTURES", "--encoder", "pictoo"], "Did you mean 'picto'"),
        (["linear", "--dataset", "PICTURES", "--device", "abacus"], "device"),
        (["damaged", "--dataset", "PICTURES"], "is damaged, or of another save"),
    ],
)
def test_bad_input_gets_one_clear_line(residual, kept, monkeypatch, tmp_path, words, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    for name in ("adapter_config.json", "adapter.safetensors"):
        (tmp_path / "damaged").mkdir(exist_ok=True)
        data = (kept.place / "linear" / name).read_bytes()
        (tmp_path / "damaged" / name).write_bytes(data[: -9 if name.endswith("safetensors") else None])
    place, *rest = words
    known = {"linear": kept.place / "linear", "PICTURES": kept.pictures}
    rest = [kept.name if word == "PICTURES" else word for word in rest]
    code, shown, error = residual("evaluate", known.get(place, place), *rest, "--json", "r.json")
    assert code == 2
    assert shown == ""
    assert message in error
    assert error.startswith("residual: ")
    assert "Traceback" not in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r.json").exists()


def test_help_shows_the_examples(residual):
    code, shown, _ = residual("evaluate", "--help")
    text = " ".join(shown.split())
    assert code == 0
    assert "residual evaluate letters-adapter --dataset letters" in text
    assert "residual evaluate OWNER/NAME --dataset folder:pictures --split val --json result.json" in text
