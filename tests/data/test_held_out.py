"""Groups and patterns of ids held out for validation: which pictures go where, and what it is good for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pictures import write_folder
from tiny import tiny_clip, tiny_vision

import residual
from residual.adapters import ResiDual, Scores, evaluate, fit, fitting
from residual.data import ImageDataset
from residual.data.held_out import hold_out
from residual.errors import ResidualError
from residual.spectral import SpectralBases
from residual.text import ZeroShotClassifier
from residual.workflows.store_origin import dataset_of
from residual.workflows.task import encode_task, load_splits

STYLES = ("ink", "wood", "clay")


def styled(split: str, n: int, styles: list[int], groups: bool = True) -> ImageDataset:
    """Labels and styles in turn, so that every style has every class."""
    labels, own = np.arange(n) % 4, np.array(styles)[np.arange(n) // 4 % len(styles)]
    ids = [f"{labels[k]}/{STYLES[own[k]]}/{split}-{k}.png" for k in range(n)]
    given = (own, STYLES) if groups else (None, ())
    return ImageDataset("crafts", split, list("abcd"), ["a {}"], labels, ids, "ours", *given)


def splits(groups: bool = True) -> dict[str, ImageDataset]:
    mixed = [0] * 5 + [1]
    return {
        "train": styled("train", 480, mixed, groups),
        "val": styled("val", 240, mixed, groups),
        "test": styled("test", 800, [2], groups),
    }


@pytest.mark.parametrize(("name", "groups"), [("wood", True), ("*/wood/*", True), ("?/wood/*.png", False)])
def test_all_pictures_of_a_name_are_val_and_test_stays(name, groups):
    given = splits(groups)
    made = hold_out(given, [name])
    assert made["test"] is given["test"]
    assert all("/wood/" in sample for sample in made["val"].sample_ids)
    assert not any("/wood/" in sample for sample in made["train"].sample_ids)
    wanted, got = ({*of["train"].sample_ids, *of["val"].sample_ids} for of in (given, made))
    assert wanted == got
    assert len(made["val"]) == 80 + 40
    for part in (made["train"], made["val"]):
        assert [f"{label}" for label in part.labels] == [sample[0] for sample in part.sample_ids]
        assert part.split not in given
        if groups:
            assert {STYLES[group] for group in part.groups} <= {"ink", "wood"}
    assert hold_out(given, []) == given


def test_an_id_with_brackets_is_that_sample_and_brackets_choose_letters():
    for held, count in (("0/ink/train-[0].png", 1), ("*-[[]*", 2), ("[01]/ink/train-[[]?]*", 2)):
        train, *more = (styled(split, 80, [0]) for split in ("train", "val", "test"))
        renamed = (each.replace("-0.", "-[0].").replace("-1.", "-[1].") for each in train.sample_ids)
        train.sample_ids = tuple(renamed)
        made = hold_out(dict(zip(("train", "val", "test"), (train, *more), strict=True)), [held])
        assert len(made["val"]) == count
        assert all("[" in sample for sample in made["val"].sample_ids)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["glass"],
            r"held out by 'glass': .* \('ink', 'wood', 'clay'\), .* '0/ink/tr.* whole id: '\*/sketch",
        ),
        (["clay"], "can be held out by 'clay'"),  # of test alone
        (["ink", "wood"], "Holding out 'ink', 'wood' leaves no picture of crafts"),
        (["[01]/*"], "Holding out .* leaves crafts without training pictures of 'a', 'b'"),
    ],
)
def test_what_cannot_be_held_out(names, message):
    with pytest.raises(ResidualError, match=message):
        hold_out(splits(), names)


def scores_of(adapter: ResiDual, dataset: ImageDataset, seed: int) -> Scores:
    """Unit 0 tells the class, with noise. Unit 1 tells it without in ink; elsewhere it says anything."""
    generator, labels = torch.Generator().manual_seed(seed), torch.from_numpy(dataset.labels)
    ink = torch.tensor(["/ink/" in sample for sample in dataset.sample_ids])
    said = torch.where(ink, labels, torch.randint(0, 4, labels.shape, generator=generator))
    told, style = (torch.nn.functional.one_hot(each, 4).float() for each in (labels, said))
    told = told + 0.5 * torch.randn(told.shape, generator=generator)
    rest = torch.zeros(len(labels), 4)
    return Scores(torch.cat([told, style / 5], 1), adapter.directions.float(), rest, labels, "crafts", (4, 4))


def test_a_style_that_tells_the_class_in_training_alone_does_no_harm():
    bases = SpectralBases([0, 1], torch.zeros(2, 4), [torch.eye(4)] * 2, [torch.ones(4)] * 2)
    classifier = ZeroShotClassifier(torch.eye(4), list("abcd"))
    found = {}
    for names in ((), ("wood",)):
        how = fitting("residual")
        adapter, given = ResiDual(bases, init="ones", mean="keep"), hold_out(splits(), names)
        train, val, test = (
            scores_of(adapter, given[split], seed) for seed, split in enumerate(("train", "val", "test"))
        )
        before = evaluate(adapter, test, classifier)
        fit(adapter, train, val, classifier, how.fits[0])
        found[names] = evaluate(adapter, test, classifier) - before
    assert found[()] < -0.05
    assert found["wood",] >= 0


def test_a_limit_takes_the_cut_of_experiments_with_every_class_and_keeps_it_apart(tmp_path):
    name = str(write_folder(tmp_path / "digits", each=20))
    encoder, stores = residual.wrap_encoder(tiny_clip()), tmp_path / "stores"
    task = encode_task(encoder, name, stores=stores, held_out=["digit 1/0*"], limit=4)
    assert task.name == f"folder:{name}"
    assert {split: len(store) for split, store in task.stores.items()} == {"train": 4, "val": 4, "test": 4}
    classes = [np.unique(each.labels).tolist() for each in task.datasets.values()]
    assert classes == [[0, 1, 2], [1], [0, 1, 2]]
    cut = residual.load_dataset(name, "test").sample(4, every_class=True)
    assert task.stores["test"].sample_ids == cut.sample_ids
    whole = encode_task(encoder, name, stores=stores)
    assert [len(store) for store in whole.stores.values()] == [36, 12, 12]
    again = encode_task(encoder, name, stores=stores, limit=4).stores["test"]
    assert again.sample_ids == cut.sample_ids
    with pytest.raises(ResidualError, match=r"has no text, .* of 2 pictures some .* smallest .* is 3"):
        load_splits(name, residual.wrap_encoder(tiny_vision()), limit=2)


def test_what_is_kept_of_other_splits_is_not_taken(tmp_path):
    name = f"folder:{write_folder(tmp_path / 'digits')}"
    encoder, stores = residual.wrap_encoder(tiny_clip()), tmp_path / "stores"
    usual = encode_task(encoder, name, stores=stores)
    held = usual.datasets["train"].sample_ids[0]
    files = {path.name for path in next(stores.iterdir()).iterdir()}
    task = encode_task(encoder, name, stores=stores, held_out=[held])
    assert task.stores["val"].sample_ids == (held,)
    assert len(task.stores["train"]) == len(usual.stores["train"]) + len(usual.stores["val"]) - 1
    assert len({path.name for path in next(stores.iterdir()).iterdir()} - files) == 2  # test is as it was
    image, label = task.datasets["val"][0]
    wanted, number = usual.datasets["train"][0]
    assert (image.tobytes(), label) == (wanted.tobytes(), number)
    shown = dataset_of(task.stores["val"], name=name)  # pictures of what is kept are found again
    assert (shown.notes, shown.templates) == ((), usual.datasets["train"].templates)
    assert shown.images.shared_name == task.stores["val"].dataset
    assert shown.images[shown.images.sample_ids.index(held)][0].tobytes() == wanted.tobytes()
