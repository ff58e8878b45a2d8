"""Pictures of the user's own, in whatever they are: the same coordinates, labels, names and ids from each."""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from tiny import OnAGpu, TinyImages, fittings, tiny_encoder
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import residual
from residual.data import as_dataset, own_splits
from residual.errors import (
    OtherResultError,
    RawPixelsWarning,
    ResidualError,
    UnclearColumnError,
    UnreadableImageError,
)
from residual.store import encode_dataset
from residual.workflows import evaluate_encoder, run_tasks

N = 6
LABELS = [1, 0, 2, 1, 0, 2]
NAMES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(layers=1, heads=2)


@pytest.fixture(scope="module")
def arrays():
    return np.random.default_rng(0).integers(0, 256, (N, 40, 36, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(arrays):
    return [Image.fromarray(each) for each in arrays]


@pytest.fixture(scope="module")
def pixels(encoder, pictures):
    return encoder.pixels(pictures)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures):
    """In torchvision's order: by class, then by name."""
    root = tmp_path_factory.mktemp("pictures")
    for number, (picture, label) in enumerate(zip(pictures, LABELS, strict=True)):
        (root / NAMES[label]).mkdir(exist_ok=True)
        picture.save(root / NAMES[label] / f"{number}.png")
    return root


class Pairs(Dataset):
    def __init__(self, pictures, labels=LABELS, make=lambda picture, label: (picture, label)):
        self.pictures, self.own, self.make, self.read = pictures, labels, make, 0

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        self.read += 1
        return self.make(self.pictures[index], self.own[index])


def test_the_same_pictures_in_every_form(encoder, arrays, pictures, pixels, folder):
    with torch.no_grad():
        expected = encoder.encode_image(pixels)
    paths = sorted(folder.rglob("*.png"), key=lambda path: path.name)
    table = datasets.Dataset.from_dict(
        {"photo": pictures, "kind": LABELS},
        features=datasets.Features({"photo": datasets.Image(), "kind": datasets.ClassLabel(names=[*NAMES])}),
    )
    made = table.with_transform(lambda rows: {"image": rows["photo"], "label": rows["kind"]})
    channels_first = torch.from_numpy(arrays).movedim(-1, 1)
    with_labels = {
        "pairs": list(zip(pictures, LABELS, strict=True)),
        "torch": Pairs(pictures),
        "labels of numpy and torch": Pairs(pictures, [np.int64(1), torch.tensor(0), *LABELS[2:]]),
        "dictionaries": Pairs(pictures, make=lambda image, label: {"image": image, "label": label}),
        "pixels": Pairs(pixels),
        "pixels of numpy": Pairs(pixels.numpy()),
        "tensors": TensorDataset(pixels, torch.tensor(LABELS)),
        "bytes": TensorDataset(channels_first, torch.tensor(LABELS)),
        "table": table,
        "table with a transform": made,
        "joined": ConcatDataset([Pairs(pictures[:2], LABELS[:2]), Pairs(pictures[2:], LABELS[2:])]),
    }
    alone = {
        "list": pictures, "paths": paths, "bytes": arrays, "bytes, torch": channels_first,
        "pixels": pixels, "pixels of numpy": pixels.numpy(), "pixels alone": TensorDataset(pixels),
    }  # fmt: skip
    for name, data in with_labels.items():
        store = encode_dataset(encoder, data)
        torch.testing.assert_close(store.output(), expected, msg=lambda text, name=name: f"{name}: {text}")
        assert store.labels.tolist() == LABELS, name
    for name, data in alone.items():
        store = encode_dataset(encoder, data, labels=LABELS, class_names=NAMES)
        torch.testing.assert_close(store.output(), expected, msg=lambda text, name=name: f"{name}: {text}")
        assert (store.labels.tolist(), store.class_names) == (LABELS, NAMES), name
        assert len(set(store.sample_ids)) == N
    assert encode_dataset(encoder, table).class_names == NAMES
    assert encode_dataset(encoder, pictures).class_names == ("unlabelled",)


def test_a_folder_of_torchvision_keeps_its_classes_and_files(encoder, folder, pixels):
    whole = torchvision.datasets.ImageFolder(str(folder))
    store = encode_dataset(encoder, whole)
    assert store.class_names == NAMES
    assert store.sample_ids == ("ant/1.png", "ant/4.png", "bee/0.png", "bee/3.png", "cat/2.png", "cat/5.png")
    assert store.labels.tolist() == [0, 0, 1, 1, 2, 2]
    part = encode_dataset(encoder, Subset(Subset(whole, [5, 4, 0]), [2, 0]), groups=["x", "y"])
    assert part.sample_ids == ("ant/1.png", "cat/5.png")
    assert (part.labels.tolist(), part.class_names) == ([0, 2], NAMES)
    assert (part.groups.tolist(), part.group_names) == ([0, 1], ("x", "y"))
    torch.testing.assert_close(part.output(), store.subset([0, 5]).output())
    renamed = as_dataset(whole, class_names=("Ameise", "Biene", "Katze"))
    assert renamed.class_names[renamed.labels[-1]] == "Katze"
    reordered = as_dataset(whole, class_names=NAMES[::-1])
    assert reordered.labels.tolist() == [2, 2, 1, 1, 0, 0]
    joined = as_dataset(ConcatDataset([whole, whole]))
    assert (joined.sample_ids[0], joined.sample_ids[6]) == ("0/ant/1.png", "1/ant/1.png")
    merged = torchvision.datasets.ImageFolder(str(folder), target_transform=lambda label: label // 2)
    assert (as_dataset(merged).labels.tolist(), len(as_dataset(merged).class_names)) == ([0] * 4 + [1] * 2, 2)
    fake = torchvision.datasets.FakeData(4, (3, 20, 20), 10)
    assert as_dataset(fake).labels.tolist() == [fake[index][1] for index in range(4)]
    with pytest.raises(ResidualError, match=r"joined have other classes than each other \(.*ant, bee, cat"):
        as_dataset(ConcatDataset([whole, fake]))


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (["b", "a", "b", "c", "a", "a"], ("a", "b", "c"), [1, 0, 1, 2, 0, 0]),
        (np.array(["b", "a", "b", "c", "a", "a"]), ("a", "b", "c"), [1, 0, 1, 2, 0, 0]),
        (pd.Series(["b", "a"] * 3, dtype="category"), ("a", "b"), [1, 0] * 3),
        (np.array(LABELS, np.uint8), ("class 0", "class 1", "class 2"), LABELS),
        (torch.tensor(LABELS).as_subclass(OnAGpu), ("class 0", "class 1", "class 2"), LABELS),
        (iter(LABELS), ("class 0", "class 1", "class 2"), LABELS),
        ([True, False] * 3, ("class 0", "class 1"), [1, 0] * 3),
    ],
)
def test_labels_of_any_kind(pictures, labels, names, numbers):
    data = as_dataset(pictures, labels=labels)
    assert (data.class_names, data.labels.tolist(), data.labels.dtype) == (names, numbers, np.int64)


def test_labels_that_are_listed_are_not_read_and_those_that_are_not_once(encoder, pictures):
    data = Pairs(pictures)
    encode_dataset(encoder, data, labels=LABELS)
    assert data.read == N
    encode_dataset(encoder, data)
    assert data.read == 3 * N
    data.targets = LABELS[::-1]
    with pytest.raises(ResidualError, match=r"'000000' comes with the label 1, and its data lists 2"):
        encode_dataset(encoder, data)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"labels": LABELS[:-1]}, "has 6 pictures but 5 labels"),
        ({"class_names": NAMES}, r"own/train has no labels, but names of classes\. Give them"),
        ({"labels": "kind"}, r"got a text, 'kind'\. A column or key is named by label_column='kind'"),
        ({"labels": LABELS, "groups": [0]}, "has 6 pictures but 1 groups"),
        ({"labels": np.eye(6)[:, :3]}, r"sample 0 is a row of 3 numbers.*one-hot.*argmax"),
        ({"labels": np.array(LABELS) / 1}, r"is 1\.0, a fraction's number.*astype\(int\)"),
        ({"labels": [0.5] * 6}, r"sample 0 is 0\.5; wanted is a whole number or a text"),
        ({"labels": ["a", None, "b", "a", "b", "b"]}, "label of sample 1 is missing"),
        ({"labels": 5}, "labels are one a picture, got 5"),
        ({"labels": [0, "a", 1, 1, 1, 1]}, "sample 1 is 'a', where others are no texts"),
        ({"labels": [0, -1, 1, 1, 1, 1]}, "sample 1 is -1; class numbers are from 0"),
        ({"labels": LABELS, "class_names": ["a", "b"]}, "label of sample 2 is 2; there are names for 0 to 1"),
        ({"labels": ["ant"] * 5 + ["bees"], "class_names": NAMES}, "'bees'.*Did you mean 'bee'"),
        ({"labels": [""] * 6}, "the label '' is empty"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_labels_that_are_none(pictures, given, says):
    with pytest.raises(ResidualError, match=says):
        as_dataset(pictures, **given)


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("letters", r"got a name, 'letters'\. Load it first: residual\.load_dataset"),
        ((each for each in ()), r"generator, which can be read only once.*list\(data\)"),
        (Endless(), r"Endless, which can be read only once"),
        (DataLoader(TensorDataset(torch.zeros(2, 3, 4, 4))), r"a DataLoader.*loader\.dataset"),
        ({"train": [], "test": []}, r"a dictionary \(train, test\)"),
        (np.zeros((2, 4, 4)), r"numbers of the shape \(2, 4, 4\)"),
        ((np.zeros((2, 3, 4, 4)), [0, 1]), r"pair of pictures and labels.*labels="),
        (np.zeros((20, 20, 3), np.uint8), r"shape \(20, 20, 3\).*Of one picture say data\[None\]"),
        (pd.DataFrame({"image": [1]}), r"a DataFrame.*columns apart"),
        ([], "has no samples"),
        (7, r"got int"),
        ([(1, 2, 3)], r"got 3 parts \(int, int, int\).*labels="),
        ([{"image": 1, "img": 2}], r"several that may be the image \('image', 'img'\)"),
        (datasets.Dataset.from_dict({"a": [1]}), "no column of images"),
        (datasets.DatasetDict({"train": datasets.Dataset.from_dict({"a": [1]})}), r"a dictionary \(train\)"),
    ],
)
def test_what_is_no_dataset_is_told_with_the_way_out(data, says):
    with pytest.raises(ResidualError, match=says):
        as_dataset(data)


def test_pixels_that_were_never_normalised_are_told(encoder, pictures):
    raw = [(torchvision.transforms.functional.to_tensor(each.resize((32, 32))), 0) for each in pictures]
    with pytest.warns(RawPixelsWarning, match=r"own/train are from 0 to 1.*encoder\.preprocess"):
        encode_dataset(encoder, raw)
    encode_dataset(encoder, [Image.new("RGB", (32, 32), (140, 140, shade)) for shade in (140, 150)])


@pytest.mark.usefixtures("unchecked")
def test_pixels_that_cannot_be(encoder, pixels, arrays):
    with pytest.raises(ResidualError, match=r"takes images of 32 by 32 pixels, got 20 by 32.*preprocess"):
        encode_dataset(encoder, [(pixels[0, :, :20], 0)])
    with pytest.raises(ResidualError, match=r"takes images of 32 by 32 pixels, got 20 by 32.*preprocess"):
        encode_dataset(encoder, pixels[:, :, :20].numpy())
    with pytest.raises(ResidualError, match=r"\(n, 3, height, width\), got \(1, 32, 32, 3\).*bytes"):
        encode_dataset(encoder, [(np.zeros((32, 32, 3)), 0)])
    broken = pixels.clone()
    broken[3, 0, 0, 0] = torch.nan
    with pytest.raises(ResidualError, match=r"pixels of '000003' hold NaN"):
        encode_dataset(encoder, broken, labels=LABELS)
    for use in (encoder.encode_image, lambda given: residual.decompose(encoder, given)):
        with pytest.raises(ResidualError, match=r"fractions; got uint8\. Give pictures.*encoder\.pixels"):
            use(arrays.transpose(0, 3, 1, 2))
    with pytest.raises(ResidualError, match=r"'000000' is no picture but int"):
        encode_dataset(encoder, [(7, 0)])
    with pytest.raises(UnclearColumnError, match="no image"):
        encode_dataset(encoder, [{"x": 1}], labels=[0])
    with pytest.raises(UnreadableImageError, match="cut off"):
        encode_dataset(encoder, TinyImages(4, broken=(2,)))
    with pytest.raises(ResidualError, match="has labels, groups and names of its own"):
        encode_dataset(encoder, TinyImages(4), labels=[0] * 4)


def test_pixels_of_numpy_wherever_pixels_are_taken(encoder, pixels, arrays, pictures):
    numbers = pixels.numpy()
    torch.testing.assert_close(encoder.pixels(arrays), pixels)
    torch.testing.assert_close(encoder.pixels([arrays[0], pictures[1], numbers[2]]), pixels[:3])
    adapted = residual.AdaptedEncoder(encoder, residual.adapters.LinearMap(encoder.output_dim))
    for use in (
        encoder.encode_image,
        adapted,
        lambda given: residual.trace(encoder, given)[1],
        lambda given: residual.decompose(encoder, given).contributions,
    ):
        with torch.no_grad():
            torch.testing.assert_close(use(numbers), use(pixels))


def test_workflows_take_own_pictures_in_place_of_a_name(encoder, tmp_path):
    def split(seed, n=24):
        some = TinyImages(n, 3, seed=seed)
        return [(some.load(index), NAMES[label]) for index, label in enumerate(some.labels)]

    given = {"train": split(0), "validation": split(1), "test": split(2)}
    bases = str(tmp_path / "bases.safetensors")
    residual.fit_bases(encode_dataset(encoder, given["train"]), kinds=("mlp", "head")).save(bases)
    (run,) = run_tasks(encoder, [given], fittings(1), bases=bases)
    assert (run.summary["dataset"], run.summary["n_val"], run.summary["classes"]) == ("own", 24, 3)
    (run,) = run_tasks(encoder, [split(0, 60)], fittings(1), bases=bases)
    assert [run.summary[f"n_{name}"] for name in ("train", "val", "test")] == [36, 12, 12]
    assert run.task.datasets["test"].full_name == "own/test"

    classifier = run.task.classifier
    adapted = residual.AdaptedEncoder(encoder, run.adapters["residual"], classifier)
    images, names = zip(*split(2), strict=True)
    numbers = [NAMES.index(name) for name in names]
    found = [evaluate_encoder(adapted, split(2)), evaluate_encoder(adapted, images, labels=numbers)]
    assert found[0].summary["accuracy"] == found[1].summary["accuracy"]
    with pytest.raises(ResidualError, match=r"'test' has other classes \(class 0, .*than 'train'"):
        own_splits({"train": given["train"], "test": TinyImages(4)})
    store = encode_dataset(encoder, [(images[0], "ant"), (images[1], "cat")])
    with pytest.raises(ResidualError, match="test samples have 'cat' as class 1, the classifier as class 2"):
        residual.adapters.evaluate(run.adapters["residual"], store, classifier)


@pytest.mark.parametrize("form", ["pictures", "pixels", "table"])
def test_a_store_of_own_pictures_is_gone_on_with_by_their_content(encoder, arrays, tmp_path, form):
    def given(values):
        if form == "pixels":
            return list(zip(encoder.pixels(values), LABELS, strict=True))
        images = [Image.fromarray(each) for each in values]
        if form == "table":
            return datasets.Dataset.from_dict(
                {"image": images, "label": LABELS},
                features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
            )
        return list(zip(images, LABELS, strict=True))

    store = encode_dataset(encoder, given(arrays), tmp_path / "store", dtype="float32")
    again = encode_dataset(encoder, given(arrays), tmp_path / "store", dtype="float32", check="all")
    torch.testing.assert_close(again.output(), store.output(), rtol=0, atol=0)
    other = arrays.copy()
    other[4] = 255 - other[4]
    with pytest.raises(OtherResultError, match=r"0004' is another image"):
        encode_dataset(encoder, given(other), tmp_path / "store", dtype="float32")
