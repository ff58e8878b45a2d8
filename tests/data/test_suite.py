"""The offline suite: sizes, balance, determinism and held-out splits, asserted from the data itself."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections import Counter

import numpy as np
import PIL
import pytest
from PIL import Image

from residual.data import ImageDataset, Manifest, MixedDataset, dataset_names, load_dataset
from residual.data.suite import assets, draw, textures
from residual.data.suite.datasets import FAMILIES
from residual.data.suite.draw import random_for
from residual.data.suite.generated import GeneratedDataset
from residual.errors import ResidualError

SPLITS = ("train", "val", "test")
TEN = (
    "mnist",
    "digits",
    "house-numbers",
    "letters",
    "road-signs",
    "emoji-groups",
    "emoji-concepts",
    "flags",
    "textures",
    "counting",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))


def sources(name: str, split: str) -> list[str]:
    """What each sample is drawn from, as its sample id tells."""
    return [i.split(":", 1)[1] for i in load_dataset(name, split).sample_ids]


def drawn(dataset: ImageDataset, index: int) -> np.ndarray:
    assert isinstance(dataset, GeneratedDataset)
    return dataset.draw(index)


def test_the_ten_are_there():
    assert dataset_names() == TEN


@pytest.mark.parametrize("name", TEN)
@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_what_its_description_says(name, split):
    data = load_dataset(name, split)
    spec = assets.description()[name]
    assert (data.name, data.split) == (name, split)
    assert len(data) == spec["sizes"][split] == len(data.labels) == len(set(data.sample_ids))
    assert data.labels.dtype == np.int64
    assert len(set(data.class_names)) == len(data.class_names)
    assert 4 <= len(data.templates) <= 8
    assert all(template.count("{}") == 1 for template in data.templates)
    assert data.licence
    assert "\n" not in data.licence
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    assert counts.min() > 0
    assert counts.max() - counts.min() <= (0 if name != "digits" else 0.1 * counts.max())
    for index in (0, len(data) // 2, -1):
        image, label = data[index]
        assert isinstance(image, Image.Image)
        assert (image.mode, image.size) == ("RGB", (64, 64))
        assert type(label) is int
        assert label == data.labels[index]
        assert np.asarray(image).std() > 3


@pytest.mark.parametrize("name", TEN)
def test_splits_agree_on_classes_and_share_no_sample(name):
    train, val, test = (load_dataset(name, split) for split in SPLITS)
    assert train.class_names == val.class_names == test.class_names
    assert not set(train.sample_ids) & set(test.sample_ids)
    assert not set(train.sample_ids) & set(val.sample_ids)
    assert not set(val.sample_ids) & set(test.sample_ids)
    few = [{np.asarray(data[i][0]).tobytes() for i in range(40)} for data in (train, val, test)]
    assert not few[0] & few[1]
    assert not few[0] & few[2]


def test_real_digits_are_split_without_rest_or_overlap():
    for name, n in (("mnist", 5000), ("digits", 1797)):
        ids = [i for split in SPLITS for i in load_dataset(name, split).sample_ids]
        assert len(ids) == len(set(ids)) == n


def test_real_digits_keep_their_pixels():
    images, labels = assets.real_digits("mnist")
    data = load_dataset("mnist", "test")
    for index in range(20):
        number = int(data.sample_ids[index].split("/")[1])
        image, label = data[index]
        small = np.asarray(image.convert("L").resize((28, 28), Image.Resampling.BOX), float)
        assert label == labels[number]
        assert np.corrcoef(small.ravel(), images[number].ravel())[0, 1] > 0.97


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_sample_is_the_same_alone_and_in_a_row(name):
    row = load_dataset(name, "train")
    images = [np.asarray(row[i][0]) for i in range(12)]
    alone = load_dataset(name, "train")
    assert np.array_equal(np.asarray(alone[7][0]), images[7])
    backwards = load_dataset(name, "train").subset(range(11, -1, -1))
    assert all(np.array_equal(np.asarray(backwards[11 - i][0]), images[i]) for i in range(12))
    assert len({image.tobytes() for image in images}) == 12


def test_a_sample_is_the_same_in_another_process():
    code = (
        "import hashlib, numpy as np\n"
        "from residual.data import dataset_names, load_dataset\n"
        "for n in dataset_names():\n"
        "    d = load_dataset(n, 'test')\n"
        "    print(n, hashlib.sha256(b''.join(np.asarray(d[i][0]).tobytes() for i in (5, 3))).hexdigest())\n"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for line in other.splitlines():
        name, digest = line.split()
        data = load_dataset(name, "test")
        pixels = b"".join(np.asarray(data[i][0]).tobytes() for i in (5, 3))
        assert hashlib.sha256(pixels).hexdigest() == digest, name
    assert len(other.splitlines()) == 10


@pytest.mark.parametrize("name", ["emoji-concepts", "flags", "counting"])
def test_icons_train_in_one_set_and_test_in_the_other(name):
    assert {s.split("/")[0] for s in sources(name, "train") + sources(name, "val")} == {"emojione-v1"}
    assert {s.split("/")[0] for s in sources(name, "test")} == {"openmoji"}


def test_the_sets_draw_the_same_thing_differently():
    for entry in assets.description()["emoji-concepts"]["classes"]:
        train, test = (np.asarray(assets.sprite(entry[split][0]), float) for split in ("train", "test"))
        assert np.abs(train - test).mean() > 5, entry["name"]


@pytest.mark.parametrize("name", ["letters", "house-numbers"])
def test_fonts_are_split(name):
    train, val, test = ({s.split("/")[1] for s in sources(name, split)} for split in SPLITS)
    assert len(train) == len(test) == 10
    assert val <= train
    assert not train & test
    held_out = assets.manifest()["holdouts"]["fonts"]
    assert train == set(held_out["train"])
    assert test == set(held_out["test"])


def test_road_signs_are_split_by_style():
    assert {s.split("/")[1] for s in sources("road-signs", "train") + sources("road-signs", "val")} == {
        "plain"
    }
    assert {s.split("/")[1] for s in sources("road-signs", "test")} == {"bold"}


def test_emoji_groups_are_split_by_concept():
    emoji = assets.emoji()
    concepts = {}
    for split in SPLITS:
        icons = {s.removeprefix("openmoji/") for s in sources("emoji-groups", split)}
        concepts[split] = {emoji[icon] for icon in icons}
        data = load_dataset("emoji-groups", split)
        for sample, label in zip(data.sample_ids, data.labels, strict=True):
            assert emoji[sample.split("openmoji/")[1]][0] == data.class_names[label]
    assert not concepts["train"] & concepts["test"]
    assert not concepts["train"] & concepts["val"]
    assert not concepts["val"] & concepts["test"]
    assert min(Counter(group for group, _ in concepts["test"]).values()) >= 10


def test_variants_are_one_concept():
    for one, other in (
        ("man-cook", "woman-cook"),
        ("man-red-hair", "woman-bald"),
        ("person", "old-woman"),
        ("merman", "mermaid"),
        ("family-man-boy", "family-woman-woman-girl"),
        ("red-heart", "blue-heart"),
        ("cat", "cat-face"),
        ("one-oclock", "nine-thirty"),
        ("right-arrow", "up-left-arrow"),
    ):
        assert assets.emoji()[one] == assets.emoji()[other]


def test_no_icon_has_a_skin_tone():
    assert not [icon for icon in assets.manifest()["sprites"]["openmoji"] if "skin-tone" in icon]


def test_textures_are_seen_differently_in_train_and_test():
    views = {
        split: [textures.view(random_for("test", split, i), split) for i in range(500)] for split in SPLITS
    }
    trained = views["train"] + views["val"]
    assert max(v.units for v in views["test"]) < min(v.units for v in trained)
    assert min(abs(v.angle) for v in views["test"]) > max(abs(v.angle) for v in trained)
    assert max(v.shade for v in views["test"]) < min(v.shade for v in trained)


def test_counts_are_what_the_class_says_and_nothing_overlaps(monkeypatch):
    words = dict(zip(("one", "two", "three", "four", "five", "six"), range(1, 7), strict=True))
    data = load_dataset("counting", "test")
    seen = []
    place = draw.placed

    def placed(sprite, size, centre, *args, **kwargs):
        seen.append((size, centre))
        return place(sprite, size, centre, *args, **kwargs)

    monkeypatch.setattr(draw, "placed", placed)
    for index in range(90):
        seen.clear()
        drawn(data, index)
        word, thing = data.class_names[data.labels[index]].split()
        assert len(seen) == words[word]
        assert thing.endswith("s") == (words[word] > 1)
        for i, (size, (x, y)) in enumerate(seen):
            assert 0.4 * size < x < 64 - 0.4 * size
            for _, (u, v) in seen[:i]:
                assert max(abs(x - u), abs(y - v)) > 0.9 * size


def test_flags_differ_from_each_other():
    for split in ("train", "test"):
        flags = np.stack(
            [
                np.asarray(assets.sprite(entry[split][0]).resize((16, 16)), float)
                for entry in assets.description()["flags"]["classes"]
            ]
        )
        distance = np.abs(flags[:, None] - flags[None]).mean((2, 3, 4)) + 99 * np.eye(len(flags))
        assert distance.min() > 2, split


def test_shipped_files_match_the_manifest():
    manifest = assets.manifest()
    files = {path.name: path.read_bytes() for path in assets.ASSETS.iterdir()}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == manifest["sha256"]
    assert sum(map(len, files.values())) < 12e6


def test_manifest_hashes_are_those_of_the_sprites():
    """The hash that Picto's corpus is compared with belongs to the very pixels that ship."""
    manifest = assets.manifest()
    for sheets, key in ((("openmoji", "emojione-v1", "signs"), "icons"), (("glyphs",), "glyphs")):
        hashes = {
            hashlib.sha256(np.ascontiguousarray(assets.sprite(f"{sheet}/{name}")).tobytes()).hexdigest()[:16]
            for sheet in sheets
            for name in manifest["sprites"][sheet]
        }
        assert sorted(hashes) == manifest[key]


def test_every_font_and_set_has_its_licence():
    page = (assets.FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    manifest = assets.manifest()
    for name in (*manifest["holdouts"]["fonts"]["train"], *manifest["holdouts"]["fonts"]["test"]):
        assert f"| {name} |" in page
    for name in (*manifest["holdouts"]["icon_sets"], "MNIST", "load_digits", "CC BY-SA 4.0", "OFL-1.1"):
        assert name in page


def test_nothing_shipped_is_a_pickle_or_a_font():
    kinds = {
        path.suffix for path in assets.FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert kinds == {".py", ".json", ".md", ".npz", ".png", ".webp"}
    for path in assets.ASSETS.glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            assert all(file[key].dtype == np.uint8 for key in file.files)


PINS = json.loads((assets.FOLDER / "pins.json").read_text(encoding="utf-8"))
REAL = ("mnist", "digits")


def test_every_split_is_pinned():
    assert {name: tuple(splits) for name, splits in PINS["pins"].items()} == dict.fromkeys(TEN, SPLITS)


@pytest.mark.parametrize("name", TEN)
def test_samples_and_labels_are_those_that_are_pinned(name):
    for split in SPLITS:
        assert Manifest.of(load_dataset(name, split)).checksum == PINS["pins"][name][split]["checksum"], split


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in REAL else pytest.mark.slow) for name in TEN]
)
def test_images_are_those_that_are_pinned(name):
    """Of what is drawn every seventh, of every class; all of them with RESIDUAL_EVERY_PICTURE=1."""
    here = {"numpy": np.__version__, "pillow": PIL.__version__, "machine": platform.machine()}
    if here != PINS["made_with"]:
        pytest.skip(f"pixels may differ by a rounding: pinned with {PINS['made_with']}, here {here}")
    for split, pins in PINS["pins"][name].items():
        dataset, of = load_dataset(name, split), "contents_checksum"
        if name not in REAL and "RESIDUAL_EVERY_PICTURE" not in os.environ:
            dataset, of = dataset.subset(range(0, len(dataset), 7)), "seventh_checksum"
        assert Manifest.of(dataset, contents=True).contents_checksum == pins[of], split


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("minst", "train", "Unknown dataset 'minst'. Did you mean 'mnist'"),
        ("zzz", "train", "Unknown dataset 'zzz'. Known: .*textures"),
        ("mnist", "tset", "Unknown split 'tset'. Did you mean 'test'"),
    ],
)
def test_an_unknown_name_lists_the_nearest(name, split, message):
    with pytest.raises(ResidualError, match=message):
        load_dataset(name, split)


def test_mixed_holds_the_same_pictures_of_every_dataset_each_time():
    mixed = load_dataset("mixed", "val")
    assert len(mixed) == 200 * len(dataset_names())
    assert mixed.class_names == dataset_names()
    assert np.bincount(mixed.labels).tolist() == [200] * len(dataset_names())
    assert len(set(mixed.sample_ids)) == len(mixed)
    again = MixedDataset("val", 7)
    for index, name in enumerate(dataset_names()):
        own = load_dataset(name, "val")
        places = {sample: place for place, sample in enumerate(own.sample_ids)}
        for position in range(7 * index, 7 * index + 7):
            sample = again.sample_ids[position]
            assert sample in mixed.sample_ids
            assert (
                again.load_with_digest(position)[1]
                == own.load_with_digest(places[sample.removeprefix(f"{name}/")])[1]
            )
    with pytest.raises(ResidualError, match="per_dataset must be at least 1"):
        MixedDataset("val", 0)
