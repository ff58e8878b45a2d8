"""Datasets from a hub that is served here, in its own layouts: which files are fetched, and how much."""

import hub_server
import hubs
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from hub_server import TOKEN, running_hub

from residual.data import load_dataset
from residual.data.hub import hub_entries, tables
from residual.errors import ResidualError

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
    import datasets
    from huggingface_hub import constants

    entry = hub_entries()["svhn"]
    put(hub, tmp_path, entry.repository, hubs.tables_of(entry), entry.config)
    put(hub, tmp_path, "me/birds", {"train": birds(20), "test": birds(8)})
    names = [(name, split) for name in ("svhn", "hf:me/birds") for split in ("train", "test")]
    before = [load_dataset(*each) for each in names]
    for settings in (datasets.config, constants):
        monkeypatch.setattr(settings, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    for each, data in zip(names, before, strict=True):
        again = load_dataset(*each)
        assert again.sample_ids == data.sample_ids
        assert again.load_with_digest(0)[1] == data.load_with_digest(0)[1]
    assert hub.asked == []
    with pytest.raises(ResidualError, match="can't be had from the hub"):
        load_dataset("hf:me/more", "test")
    for settings in (datasets.config, constants):
        monkeypatch.setattr(settings, "HF_HUB_OFFLINE", False)
    with pytest.raises(ResidualError, match=r"BuilderConfig 'big' not found.*named as in hf:REPO:CONFIG"):
        load_dataset("hf:me/birds:big", "test")  # the hub answers: what is kept is no answer


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
    data = load_dataset("hf:me/birds", "train", stream=True)
    hub.commits.clear()
    tables._part.cache_clear()
    with pytest.raises(ResidualError, match=r"data/train-00000-of-00001\.parquet can't be read any more \("):
        data[0]
