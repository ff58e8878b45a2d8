"""Datasets from a hub that is served here, in its own layouts: which files are fetched, and how much."""

import hub_server
import hubs
import numpy as np
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from hub_server import TOKEN, running_hub
from tiny import tiny_clip

import residual
from residual.data import load_dataset
from residual.data.hub import hub_entries, tables
from residual.data.lookup import look_up_dataset
from residual.errors import ResidualError, UnreachableHubError, UnreadableImageError
from residual.workflows.task import encode_task

BIRDS = ClassLabel(names=["grey_heron", "red_kite"])


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with running_hub() as hub:
        hub_server.at(monkeypatch, hub, tmp_path / "kept")
        yield hub


def birds(n: int, kind=BIRDS, hidden: bool = False):
    """A table of noise, so that pictures are most of it."""
    cells = np.random.default_rng(0).integers(0, 256, (n, 70, 70, 3), dtype=np.uint8)
    labels = [-1] * n if hidden else [index % 2 for index in range(n)]
    if kind.dtype == "string":
        labels = [f"bird {label}" for label in labels]
    columns = {"image": [{"bytes": hubs.png(cell), "path": None} for cell in cells], "label": labels}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "label": kind}))


def put(hub, tmp_path, name, splits, config="default", reference="main"):
    folder = tmp_path / name / reference
    hubs.write_repository(folder, splits, config)
    hub.put(f"datasets/{name}", folder, reference)


def offline(monkeypatch, on: bool = True) -> None:
    import datasets
    from huggingface_hub import constants

    for settings in (datasets.config, constants):
        monkeypatch.setattr(settings, "HF_HUB_OFFLINE", on)


def fetched(hub) -> dict[str, float]:
    """Of each table that was asked for, by its split, how much of it was sent."""
    shares = {}
    for path, sent in hub.sent.items():
        repo, _, file = path.partition("/data/")
        if file:
            (whole,) = {len(files[f"data/{file}"]) for files in hub.commits[repo].values()}
            shares[file.partition("-0")[0]] = sent / whole
    hub.sent.clear()
    return shares


def test_one_split_is_fetched_and_those_made_of_it_cost_nothing_more(hub, tmp_path):
    entry = hub_entries()["svhn"]
    put(hub, tmp_path, entry.repository, hubs.tables_of(entry), entry.config)
    assert len(load_dataset("svhn", "test")) == 20
    assert fetched(hub) == {"test": 1}
    train = load_dataset("svhn", "train")
    assert fetched(hub) == {"train": 1}
    val = load_dataset("svhn", "val")
    assert (len(train), len(val), fetched(hub)) == (40, 10, {})
    assert train.class_names == tuple("0123456789")


def test_of_other_splits_the_ends_of_their_files_are_read_at_most(hub, tmp_path):
    splits = {"train": birds(60), "validation": birds(30), "test": birds(60, hidden=True)}
    put(hub, tmp_path, "me/birds", splits)
    data = load_dataset("hf:me/birds", "test")  # that of the source tells nothing
    assert data.sample_ids[0] == "validation/00000"
    assert data[0][0].size == (70, 70)
    shares = fetched(hub)
    assert shares.pop("validation") >= 1
    assert max(shares.values()) < 0.1
    assert len(load_dataset("hf:me/birds", "val")) == 12


def test_names_in_cells_are_those_of_all_splits_and_no_picture_is_fetched_for_them(hub, tmp_path):
    few = birds(60, Value("string"))
    put(hub, tmp_path, "me/birds", {"train": few, "test": few.select(range(0, 60, 2))})
    data = load_dataset("hf:me/birds", "test")
    assert (data.class_names, set(data.labels)) == (("bird 0", "bird 1"), {0})
    shares = fetched(hub)
    assert shares.pop("test") >= 1
    assert shares.pop("train") < 0.2


def test_a_revision_and_a_configuration_are_asked_for(hub, tmp_path):
    put(hub, tmp_path, "me/birds", {"train": birds(20), "test": birds(8)}, "small", "refs/convert/parquet")
    put(hub, tmp_path, "me/birds", {"train": birds(20), "test": birds(6)})
    assert len(load_dataset("hf:me/birds@refs/convert/parquet:small", "test")) == 8
    assert len(load_dataset("hf:me/birds", "test")) == 6
    with pytest.raises(ResidualError, match=r"'me/birds' can't be had from .* \(it has no such revision"):
        load_dataset("hf:me/birds@v9", "test")


def test_what_was_fetched_is_there_without_a_network(hub, tmp_path, monkeypatch):
    entry = hub_entries()["svhn"]
    put(hub, tmp_path, entry.repository, hubs.tables_of(entry), entry.config)
    put(hub, tmp_path, "me/birds", {"train": birds(20), "test": birds(8)})
    names = [(name, split) for name in ("svhn", "hf:me/birds") for split in ("train", "test")]
    before = [load_dataset(*each) for each in names]
    offline(monkeypatch)
    hub.asked.clear()
    for each, data in zip(names, before, strict=True):
        again = load_dataset(*each)
        assert again.sample_ids == data.sample_ids
        assert again.load_with_digest(0)[1] == data.load_with_digest(0)[1]
    assert hub.asked == []
    with pytest.raises(ResidualError, match="can't be had from the hub"):
        load_dataset("hf:me/more", "test")
    offline(monkeypatch, False)
    with pytest.raises(ResidualError, match=r"BuilderConfig 'big' not found.*named as in hf:REPO:CONFIG"):
        load_dataset("hf:me/birds:big", "test")  # the hub answers: what is kept is no answer


def test_a_split_that_was_not_fetched_is_said_to_be_missing(hub, tmp_path, monkeypatch):
    entry = hub_entries()["svhn"]
    put(hub, tmp_path, entry.repository, hubs.tables_of(entry), entry.config)
    splits = {"train": birds(60), "validation": birds(30), "test": birds(60, hidden=True)}
    put(hub, tmp_path, "me/birds", splits)
    before = [load_dataset("svhn", "val").sample_ids, load_dataset("hf:me/birds", "test").sample_ids]
    assert before[1][0] == "validation/00000"
    offline(monkeypatch)
    assert [load_dataset("svhn", "val").sample_ids, load_dataset("hf:me/birds", "test").sample_ids] == before
    for name, split, source in (("svhn", "test", "test"), ("hf:me/birds", "train", "train")):
        missing = rf"\(its split '{source}' isn't fetched yet, and the hub is out of reach: The hub isn't"
        with pytest.raises(UnreachableHubError, match=missing):
            load_dataset(name, split)
        error = look_up_dataset(name, [split]).error
        assert type(error) is UnreachableHubError
    found = look_up_dataset("svhn", ["train", "val"])
    assert (found.error, found.kept, found.absent, found.columns) == (None, True, 0, ("image", "label"))
    found = look_up_dataset("hf:me/birds", ["test"])
    assert (found.error, found.kept, found.sizes) == (None, True, {"validation": 30})


def test_without_a_network_all_splits_are_of_the_commit_that_is_asked_for(hub, tmp_path, monkeypatch):
    put(hub, tmp_path, "me/birds", {"train": birds(20), "test": birds(8)})
    put(hub, tmp_path, "me/birds", {"train": birds(30), "test": birds(12)}, reference="refs/pr/1")
    first = hub.latest["datasets/me/birds"]
    for split in ("train", "test"):
        load_dataset("hf:me/birds", split)
    offline(monkeypatch)
    assert len(load_dataset(f"hf:me/birds@{first}", "test")) == 8
    with pytest.raises(UnreachableHubError, match="can't be had from the hub"):
        load_dataset("hf:me/birds@refs/pr/1", "test")
    offline(monkeypatch, False)
    assert len(load_dataset("hf:me/birds@refs/pr/1", "test")) == 12
    hub.latest["datasets/me/birds"] = hub.references["datasets/me/birds"]["refs/pr/1"]
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "forgotten"))  # what main was
    assert len(load_dataset("hf:me/birds", "test")) == 12
    offline(monkeypatch)
    assert len(load_dataset("hf:me/birds", "test")) == 12
    with pytest.raises(UnreachableHubError, match="split 'train' isn't fetched yet"):
        load_dataset("hf:me/birds", "train")
    assert len(load_dataset(f"hf:me/birds@{first}", "train")) == 16


def test_what_the_library_made_by_itself_is_found_too(hub, tmp_path, monkeypatch):
    import datasets

    put(hub, tmp_path, "me/OldBirds", {"train": birds(20), "test": birds(8)})
    entry = hub_entries()["gtsrb"]
    put(hub, tmp_path, entry.repository, hubs.tables_of(entry))
    datasets.load_dataset("me/OldBirds")
    datasets.load_dataset(entry.repository, data_files=dict(entry.files), verification_mode="no_checks")
    offline(monkeypatch)
    for name in ("hf:me/OldBirds", "hf:me/OldBirds@main", "gtsrb"):
        assert load_dataset(name, "test").sample_ids
        assert look_up_dataset(name).kept
    with pytest.raises(UnreachableHubError, match="can't be had from the hub"):
        load_dataset("hf:me/OldBirds@v2", "test")


def test_a_hub_that_is_down_is_tried_once(monkeypatch, tmp_path):
    from huggingface_hub import HfApi
    from huggingface_hub.utils import close_session

    entry = hub_entries()["imagenet-sketch"]
    with running_hub() as hub:
        hub_server.at(monkeypatch, hub, tmp_path / "kept")
        put(hub, tmp_path, "me/birds", {"train": birds(20), "test": birds(8)})
        hubs.write_sketches(tmp_path / "sketches", entry)
        hub.put(f"datasets/{entry.repository}", tmp_path / "sketches")
        names = ("hf:me/birds", "imagenet-sketch")
        before = [load_dataset(name, "test").sample_ids for name in names]
    close_session()
    tries = []
    ask = HfApi.dataset_info
    monkeypatch.setattr(HfApi, "dataset_info", lambda *a, **k: tries.append(a) or ask(*a, **k))
    assert [load_dataset(name, "test").sample_ids for name in names] == before
    found = [look_up_dataset(name, ["test"]) for name in names]
    assert [each.kept for each in found] == [True, True]
    assert found[1].note == "its archive isn't looked into"
    with pytest.raises(UnreachableHubError, match=r"can't be had from the hub \(The hub can't be reached"):
        load_dataset("hf:me/more", "test")
    assert len(tries) == 1


def test_a_gated_dataset_is_said_with_what_it_needs(hub, tmp_path, monkeypatch):
    put(hub, tmp_path, "me/birds", {"train": birds(20), "test": birds(8)})
    hub.gated.add("datasets/me/birds")
    for token in ("", "hf_of_another"):  # 401 and 403
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(ResidualError, match=r"\(it is gated: accept its terms on its page there, and"):
            load_dataset("hf:me/birds", "test")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(load_dataset("hf:me/birds", "test")) == 8


def test_pictures_are_streamed_part_by_part_and_none_is_kept(hub, tmp_path):
    put(hub, tmp_path, "me/birds", {"train": birds(250), "test": birds(8)})
    data = load_dataset("hf:me/birds", "train", stream=True)
    assert fetched(hub)["train"] < 0.1  # its end, and labels
    digests = [data.digest(index) for index in range(len(data))]
    assert fetched(hub) == {"train": pytest.approx(1, abs=0.05)}  # in order, each part once
    assert data.subset(range(3)).in_order
    kept = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 10**5
    whole = load_dataset("hf:me/birds", "train")
    assert not whole.in_order
    assert (whole.sample_ids, whole.labels.tolist()) == (data.sample_ids, data.labels.tolist())
    assert [whole.digest(index) for index in range(len(data))] == digests


def test_of_a_limited_task_only_the_parts_are_fetched_that_its_pictures_are_in(hub, tmp_path):
    folder = tmp_path / "parts"
    rows, names = birds(240), ("train", "validation", "test")
    splits = {name: rows.select(range(80 * k, 80 * k + 80)) for k, name in enumerate(names)}
    hubs.write_repository(folder, splits, "default")
    for file in folder.rglob("*.parquet"):
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(file), file, row_group_size=8)
    hub.put("datasets/me/birds", folder)
    task = encode_task(residual.wrap_encoder(tiny_clip()), "me/birds", limit=2)
    assert task.name == "hf:me/birds"
    assert [len(store) for store in task.stores.values()] == [2, 2, 2]
    assert all(set(store.labels) == {0, 1} for store in task.stores.values())
    assert max(fetched(hub).values()) < 0.4  # two parts of ten, its end, and labels
    kept = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 10**5


def test_a_network_that_fails_is_no_fault_of_a_picture(monkeypatch, tmp_path):
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    rows = birds(40)
    broken = rows.with_format("arrow")[:]["image"].to_pylist()
    broken[3]["bytes"] = broken[3]["bytes"][:50]
    rows = Dataset.from_dict({"image": broken, "label": rows["label"][:]}, features=rows.features)
    with running_hub() as hub:
        hub_server.at(monkeypatch, hub, tmp_path / "kept")
        put(hub, tmp_path, "me/birds", {"train": rows, "validation": birds(4), "test": birds(8)})
        data = load_dataset("hf:me/birds", "train", stream=True)
        hub.busy = 3
        data.load(0)
        assert hub.busy == 0
        with pytest.raises(UnreadableImageError, match="train/00003"):
            data.load(3)
        tables._part.cache_clear()
        hub.busy = 100
        with pytest.raises(UnreachableHubError, match=r"data/train-.* can't be read any more \(.*503"):
            data.load(0)
        hub.busy = 0
        data.load(0)
        tables._part.cache_clear()
    _http.close_session()
    with pytest.raises(UnreachableHubError, match=r"can't be read any more \(.*What is done by now is kept"):
        data.load(0)  # nobody listens any more


def test_the_end_of_a_file_is_read_once(hub, tmp_path):
    import pyarrow.parquet

    put(hub, tmp_path, "me/birds", {"train": birds(100), "test": birds(8)})
    (files,) = hub.commits["datasets/me/birds"].values()
    path = tmp_path / "parts.parquet"
    whole = pyarrow.parquet.read_table(pyarrow.BufferReader(files["data/train-00000-of-00001.parquet"]))
    pyarrow.parquet.write_table(whole, path, row_group_size=10)
    hub.put("datasets/me/birds", files | {"data/train-00000-of-00001.parquet": path.read_bytes()})
    data = load_dataset("hf:me/birds", "train", stream=True)
    hub.asked.clear()
    for index in range(len(data)):
        data.digest(index)
    assert sum("/resolve/" in each for each in hub.asked) == 10  # parts


def test_a_file_that_says_to_hold_more_than_it_can_is_not_unpacked(hub, tmp_path):
    few = birds(1)
    many = Dataset.from_dict({"image": [None] * (2**20 + 1), "label": [0] * (2**20 + 1)}, few.features)
    put(hub, tmp_path, "me/birds", {"train": many, "test": birds(8)})
    with pytest.raises(ResidualError, match=r"train-.* bytes, and says to hold 1,048,577 rows"):
        load_dataset("hf:me/birds", "train", stream=True)
