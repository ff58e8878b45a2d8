"""Every dataset of the paper's suite, on a tiny repository of the hub's schema, by the real reader."""

import json
import math

import hubs
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from residual.data import hub_dataset_names, load_dataset
from residual.data.hub import catalogue, fetch, hub_entries, splits
from residual.data.hub.catalogue import classes_of, matched, plain, templates_of
from residual.data.hub.splits import halves
from residual.errors import ResidualError, UnreadableImageError

SPLITS = ("train", "val", "test")
# The paper's list: what its code makes of each source (share of train that val is, or 80/10/10), else None.
CARVED = {
    "imagenet": 0.2, "imagenet-sketch": "80/10/10", "pacs": "80/10/10", "waterbirds": None, "mnist-full": 0.1,
    "svhn": 0.2, "gtsrb": 0.1, "eurosat": "80/10/10", "cifar10": 0.1, "cifar100": 0.1, "dtd": 0.2,
    "resisc45": None, "sun397": "80/10/10", "stanford-cars": 0.2,
}  # fmt: skip
COUNTS = {
    "imagenet": 1000, "imagenet-sketch": 1000, "pacs": 7, "waterbirds": 2, "mnist-full": 10, "svhn": 10,
    "gtsrb": 43, "eurosat": 10, "cifar10": 10, "cifar100": 100, "dtd": 47, "resisc45": 45, "sun397": 397,
    "stanford-cars": 196,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Repositories, written when they are first asked for, and what the library keeps of them."""
    return tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("kept")


@pytest.fixture
def hub(folders, monkeypatch, tmp_path):
    root, kept = folders
    hubs.serve(monkeypatch, root, kept)
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))

    def written(name):
        entry = hub_entries()[name]
        if not (root / entry.repository).is_dir():
            hubs.write_entry(root / entry.repository, entry)
        return entry

    return written


@pytest.fixture
def own_hub(monkeypatch, tmp_path):
    """A hub of this test's own: call it with tables."""
    hubs.serve(monkeypatch, tmp_path / "hub", tmp_path / "kept")
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))

    def write(name, tables):
        entry = hub_entries()[name]
        hubs.write_repository(tmp_path / "hub" / entry.repository, tables, entry.config or "default")

    return write


def rows(dataset, source):
    """The source's row numbers, by the sample ids."""
    return [int(i.removeprefix(f"{source}/")) for i in dataset.sample_ids if i.startswith(f"{source}/")]


def test_the_suite_is_the_papers():
    assert set(hub_dataset_names()) == set(CARVED)
    for name, entry in hub_entries().items():
        made = "80/10/10" if entry.splits["test"] is None else entry.val_share
        assert made == CARVED[name]
        assert len(classes_of(entry.classes).names) == COUNTS[name]


@pytest.mark.parametrize("name", list(CARVED))
def test_a_dataset_of_the_hubs_schema(hub, name):
    entry = hub(name)
    parts = {split: load_dataset(name, split) for split in SPLITS}
    classes = classes_of(entry.classes)
    for split, data in parts.items():
        assert (data.name, data.split) == (name, split)
        assert data.class_names == classes.names
        assert data.templates == templates_of(name)
        assert data.licence == entry.licence
        assert len(set(data.sample_ids)) == len(data) == len(data.labels)

    # Every row of the source is in one split, once; rows of what wasn't asked for are in none.
    for source in {source or "train" for source in entry.splits.values()}:
        used = sorted(row for data in parts.values() for row in rows(data, source))
        assert used == list(range(COUNTS[name] * hubs.per_class(entry, source)))
    sizes = [len(parts[split]) for split in SPLITS]
    n = COUNTS[name] * hubs.per_class(entry, "train")
    if CARVED[name] == "80/10/10":
        assert sizes == [0.8 * n, 0.1 * n, 0.1 * n]
    elif CARVED[name]:
        assert sizes[:2] == [n - math.ceil(CARVED[name] * n), math.ceil(CARVED[name] * n)]
        assert all(np.bincount(parts["val"].labels, minlength=COUNTS[name]) == 1)

    # Labels are ours, whatever the source's order, and the images are those of their rows.
    if entry.folders is None:
        table = hubs.tables_of(entry)
        names = hubs.source_names(entry)
        order = matched(names, classes, name)
        for split, data in parts.items():
            source = entry.splits[split] or "train"
            numbers = np.array(table[source][entry.label])[rows(data, source)]
            assert np.array_equal(data.labels, order[numbers])
            for index in (0, len(data) - 1):
                image, label = data[index]
                assert image.mode == "RGB"
                assert image.getpixel((0, 0))[0] == rows(data, source)[index] % 200
                assert label == data.labels[index]
    if COUNTS[name] < 50:
        again = load_dataset(name, "val")
        assert again.sample_ids == parts["val"].sample_ids
        assert again.load_with_digest(0)[1] == parts["val"].load_with_digest(0)[1]


@pytest.mark.parametrize("name", hubs.UNWANTED)
def test_only_the_splits_that_are_wanted_are_fetched(hub, name):
    entry = hub(name)
    tables = fetch.from_hub(name, entry.repository, entry.config, files=entry.files)
    assert set(tables) == ({"train", "test"} if entry.files else {"train", "test", *hubs.UNWANTED[name]})


def test_sketches_are_of_the_folder_they_lie_in(hub):
    hub("imagenet-sketch")
    data = load_dataset("imagenet-sketch", "test")
    for index in range(0, 1000, 97):
        row = rows(data, "train")[index]
        assert data.labels[index] == row // 10  # folders by name, files by name in them
        assert data[index][0].getpixel((0, 0))[0] == row % 10


def test_the_order_of_a_sources_classes_does_not_matter_to_ours(hub):
    entry = hub("sun397")
    names = hubs.source_names(entry)
    data = load_dataset("sun397", "train")
    source = np.array(hubs.tables_of(entry)["train"]["label"])[rows(data, "train")]
    assert [plain(data.class_names[label]) for label in data.labels] == [plain(names[i]) for i in source]


def test_waterbirds_are_divided_by_class_and_place(hub):
    hub("waterbirds")
    places = np.array(hubs.tables_of(hub_entries()["waterbirds"])["test"]["place"])
    data = load_dataset("waterbirds", "test")
    assert data.group_names == (
        "landbird on land", "landbird on water", "waterbird on land", "waterbird on water"
    )  # fmt: skip
    assert np.array_equal(data.groups, 2 * data.labels + places)
    assert np.array_equal(data.subset([2, 1]).groups, data.groups[[2, 1]])
    hub("pacs")
    assert load_dataset("pacs", "test").groups is None


def test_whole_numbers_are_trusted_as_far_as_there_are_classes(own_hub):
    entry = hub_entries()["mnist-full"]
    labels = {"train": np.arange(100) % 10, "test": np.arange(20) % 10}
    kinds = {entry.label: Value("int64")}
    own_hub("mnist-full", {source: hubs.table(numbers, kinds) for source, numbers in labels.items()})
    data = load_dataset("mnist-full", "test")
    assert data.class_names == tuple("0123456789")
    assert data.labels.tolist() == labels["test"].tolist()


@pytest.mark.parametrize(
    ("kinds", "labels", "message"),
    [
        ({"label": Value("int64")}, np.arange(110) % 11, r"has label 10 in its 'train', where 10 classes"),
        ({"label": Value("int64")}, np.arange(100) % 10 - 1, r"10 samples of its 'train' have no class"),
        ({"label": Value("float32")}, np.arange(100) % 10, r"'label' holds no labels.*Columns: image"),
        ({"digit": ClassLabel(num_classes=10), "label": Value("string")}, None, r"other classes than ours"),
        ({"label": ClassLabel(names=list("abcdefghij"))}, np.arange(100) % 10, "only there 'a'.* and 5 more"),
    ],
)  # fmt: skip
def test_another_schema_is_refused(own_hub, kinds, labels, message):
    tables = {}
    for source in ("train", "test"):
        if labels is None:
            tables[source] = hubs.table(np.arange(100) % 10, {"digit": kinds["digit"]}, label="digit")
            tables[source] = tables[source].add_column("label", [f"sign {i % 10}" for i in range(100)])
        else:
            tables[source] = hubs.table(labels, kinds)
    own_hub("mnist-full", tables)
    with pytest.raises(ResidualError, match=message):
        load_dataset("mnist-full", "train")


def test_a_missing_column_or_split_is_named(own_hub, tmp_path):
    kinds = {"digit": ClassLabel(names=list("0123456789"))}
    own_hub("mnist-full", {"train": hubs.table(np.arange(100) % 10, kinds, label="digit")})
    with pytest.raises(ResidualError, match="has no split 'test', only 'train'"):
        load_dataset("mnist-full", "train")
    tables = {source: hubs.table(np.arange(100) % 10, kinds, label="digit") for source in ("train", "test")}
    own_hub("cifar10", tables)
    with pytest.raises(ResidualError, match=r"has no column 'img'\. Columns: image .*, digit"):
        load_dataset("cifar10", "train")


def test_too_few_images_to_split(own_hub):
    kinds = {"label": ClassLabel(names=list("0123456789"))}
    own_hub("mnist-full", {source: hubs.table(np.arange(30) % 10, kinds) for source in ("train", "test")})
    with pytest.raises(ResidualError, match="too few images to make a split of 10%: 30 of 10 classes"):
        load_dataset("mnist-full", "train")


def test_a_broken_image_is_named_by_its_row(own_hub):
    kinds = {"label": ClassLabel(names=list("0123456789"))}
    tables = {source: hubs.table(np.arange(100) % 10, kinds) for source in ("train", "test")}
    images = tables["test"].with_format("arrow")[:]["image"].to_pylist()
    images[7]["bytes"] = images[7]["bytes"][:30]
    images[8]["bytes"] = b"no image"
    images[9] = None
    tables["test"] = Dataset.from_dict(
        {"image": images, "label": np.arange(100) % 10}, features=tables["test"].features
    )
    own_hub("mnist-full", tables)
    data = load_dataset("mnist-full", "test")
    assert data[6][0].size == (3, 3)
    for row, reason in ((7, "test/00007"), (8, "no image of a known format; mnist-full"), (9, "it is empty")):
        with pytest.raises(UnreadableImageError, match=reason) as caught:
            data[row]
        assert caught.value.sample_id == f"test/{row:05d}"


@pytest.mark.parametrize("name", list(CARVED))
def test_what_is_gone_is_said_with_where_else_it_is(monkeypatch, tmp_path, name):
    hubs.serve(monkeypatch, tmp_path, tmp_path)
    with pytest.raises(ResidualError, match="can't be had from the hub") as caught:
        load_dataset(name, "test")
    said = str(caught.value)
    assert all(place in said for place in hub_entries()[name].elsewhere)
    assert "PATH/train/CLASS/" in said
    assert "\n" not in said


def test_bars_of_the_library_are_left_as_they_were(hub):
    import datasets

    hub("pacs")
    before = datasets.are_progress_bars_disabled()
    load_dataset("pacs", "val")
    with pytest.raises(ResidualError, match="can't be had"):
        load_dataset("hf:nobody/nothing", "val")
    assert datasets.are_progress_bars_disabled() == before


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(10, 40), min_size=2, max_size=8), st.sampled_from((0.1, 0.2, 0.5)), st.data())
def test_splits_are_those_of_the_library(counts, share, data):
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(labels)
    table = Dataset.from_dict(
        {"label": labels, "row": np.arange(len(labels))},
        features=Features({"label": ClassLabel(num_classes=len(counts)), "row": Value("int64")}),
    )
    parts = table.train_test_split(test_size=share, stratify_by_column="label", seed=42)
    large, small = halves(labels, share, "x")
    assert large.tolist() == parts["train"]["row"][:]
    assert small.tolist() == parts["test"]["row"][:]
    assert sorted([*large, *small]) == list(range(len(labels)))
    expected = np.array(counts) * share
    assert np.all(np.abs(np.bincount(labels[small], minlength=len(counts)) - expected) <= 1)
    public = splits._by_library(labels, share, "x")
    assert [part.tolist() for part in public] == [large.tolist(), small.tolist()]


@pytest.mark.parametrize("name", list(CARVED))
def test_sizes_are_those_that_the_splits_have(name):
    entry = hub_entries()[name]
    if entry.splits["val"] is not None:
        assert entry.sizes == {ours: entry.rows[source] for ours, source in entry.splits.items()}
        return
    labels = np.arange(entry.rows["train"]) % COUNTS[name]
    share = None if entry.splits["test"] is None else entry.val_share
    sizes = {s: len(splits.made_split(labels, s, share, name)) for s in SPLITS[: 3 if share is None else 2]}
    if share is not None:
        sizes["test"] = entry.rows[entry.splits["test"]]
    assert sizes == entry.sizes


@given(st.permutations(range(47)), st.sampled_from((str, str.upper, str.title, lambda s: f"/x/{s}")))
def test_names_are_found_in_any_order_and_case(order, spell):
    classes = classes_of("dtd")
    names = [spell(classes.names[index].replace("-", "_")) for index in order]
    assert matched(names, classes, "x").tolist() == list(order)


def test_a_few_odd_spellings_are_taken_at_their_places():
    classes = classes_of("imagenet")
    names = list(classes.spellings[0])
    names[3], names[900] = "tiger sharks", "thing of a watertower"
    assert matched(names, classes, "x").tolist() == list(range(1000))
    names[4], names[5] = names[5], names[4]  # these are two classes of ours, at each other's place
    with pytest.raises(ResidualError, match="other classes than ours"):
        matched(names, classes, "x")
    with pytest.raises(ResidualError, match="only there 'cow'; only here 'dog'"):
        matched(["cow", "elephant", "giraffe", "guitar", "horse", "house", "person"], classes_of("pacs"), "x")
    assert matched([str(i) for i in range(43)], classes_of("gtsrb"), "x").tolist() == list(range(43))


def test_data_files_name_their_source_and_licence():
    files = [catalogue.FOLDER / "templates.json", *(catalogue.FOLDER / "classes").glob("*.json")]
    assert len(files) == len({entry.classes for entry in hub_entries().values()}) + 1
    for file in files:
        held = json.loads(file.read_text(encoding="utf-8"))
        assert list(held)[:2] == ["source", "licence"]
        for spelling in held.get("spellings", ()):
            assert len(spelling) == len(set(spelling)) == len(held["classes"])
            assert held["spellings_source"]
    assert "not within reach" in json.loads((catalogue.FOLDER / "hub.json").read_text())["source"]
    templates = json.loads((catalogue.FOLDER / "templates.json").read_text(encoding="utf-8"))["datasets"]
    for name, count in {"imagenet": 80, "cifar10": 18, "resisc45": 18, "dtd": 8, "stanford-cars": 8}.items():
        assert len(templates_of(name)) == count
    for entry in hub_entries().values():
        held = templates[entry.name]
        assert held["source"]
        assert held["licence"]
        assert all(template.count("{}") == 1 and "{c}" not in template for template in held["templates"])
        assert entry.about
        assert entry.licence
        assert entry.elsewhere
