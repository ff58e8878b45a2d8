"""What every dataset does: subsets keep all fields, and what is remembered doesn't outlive its source."""

import threading

import fsspec
import hubs
import numpy as np
import pytest
import torch
from datasets import ClassLabel
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import OnAGpu

from residual.data import ImageDataset, PixelDataset, dataset_descriptions, load_dataset
from residual.data.hub import hub_entries
from residual.data.shard_files import find_shards
from residual.data.splits import stratified_split
from residual.data.suite import generated
from residual.errors import ResidualError

FIELDS = ("name", "split", "class_names", "templates", "licence", "group_names")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))


def four(kind: type) -> ImageDataset:
    """Four samples of two classes with groups."""
    labels, ids, groups = np.array([0, 1, 0, 1]), list("abcd"), np.array([0, 2, 1, 3])
    if kind is PixelDataset:
        pixels = torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2)
        return PixelDataset(pixels, labels, ["x", "y"], "four", "val", ids, ["a {}"], groups, list("ghij"))
    return ImageDataset("four", "val", ["x", "y"], ["a {}"], labels, ids, "free", groups, list("ghij"))


@pytest.mark.parametrize("kind", [ImageDataset, PixelDataset])
def test_a_subset_keeps_every_field_and_its_own_rows(kind):
    data = four(kind)
    part = data.subset(np.array([3, 1, 2])).subset([2, -2])
    assert all(getattr(part, field) == getattr(data, field) for field in FIELDS)
    assert part.sample_ids == ("c", "b")
    assert (part.labels.tolist(), part.groups.tolist()) == ([0, 1], [1, 2])
    assert len(data.subset([])) == 0
    if kind is PixelDataset:
        assert part.pixels[:, 0, 0, 0].tolist() == [2, 1]
        with pytest.raises(ResidualError, match="four holds pixels, not images"):
            data[0]
    with pytest.raises(IndexError, match="four val has 4 samples, there is no number 4"):
        data.subset([0, 4])
    assert len(data.sample(9)) == 4
    assert data.sample(2).sample_ids == data.sample(2).sample_ids
    with pytest.raises(ResidualError, match="four/val: -1 samples can't be chosen"):
        data.sample(-1)


def test_as_many_ids_and_groups_as_labels():
    labels, pixels = np.array([0, 1]), torch.zeros(2, 3, 4, 4)
    with pytest.raises(ResidualError, match="pixels/train has 2 labels but 1 ids"):
        PixelDataset(pixels, labels, ["x", "y"], sample_ids=["a"])
    with pytest.raises(ResidualError, match="pixels/train has 2 labels but 3 groups"):
        ImageDataset("pixels", "train", ["x"], (), labels, ["a", "b"], "", np.zeros(3, int))
    with pytest.raises(ResidualError, match=r"'xxx.* has 1,001 letters; a name or a template may have 1,000"):
        ImageDataset("pixels", "train", ["a", "x" * 1001], (), labels, ["a", "b"], "")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.sampled_from([(0.8, 0.2), (0.6, 0.2, 0.2)]))
def test_a_stratified_split_shares_out_every_class(counts, shares):
    labels = np.repeat(np.arange(len(counts)), counts)
    parts = stratified_split(labels, shares)
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    for part, again, share in zip(parts, stratified_split(labels, shares), shares, strict=True):
        assert part.tolist() == sorted(part) == again.tolist()
        for label, count in enumerate(counts):
            mine = int((labels[part] == label).sum())
            assert mine >= (count >= len(shares))
            assert abs(mine - share * count) <= 1 + (count < 2 * len(shares))


@pytest.mark.parametrize("kind", [ImageDataset, PixelDataset])
def test_a_mask_chooses_what_it_is_true_of(kind):
    data = four(kind)
    there = torch.tensor([True, False, False, True]).as_subclass(OnAGpu)
    for mask in (
        [True, False, False, True],
        np.array([True, False, False, True]),
        there,
        there.nonzero()[:, 0],
    ):
        assert data.subset(mask).sample_ids == ("a", "d")
    assert data.subset([False] * 4).sample_ids == data.subset([]).sample_ids == ()
    with pytest.raises(ResidualError, match="has 4 samples, but the mask 3 booleans"):
        data.subset([True, False, True])


def test_a_tensor_of_positions_is_not_gone_through_number_by_number(monkeypatch):
    data, gone = four(ImageDataset), []
    monkeypatch.setattr(torch.Tensor, "__index__", lambda self: gone.append(self) or self.item())
    assert data.subset(torch.arange(4)[[3, 0]]).sample_ids == ("d", "a")
    assert data.subset(torch.tensor([True, False, False, True])).sample_ids == ("a", "d")
    assert data.subset(torch.tensor([])).sample_ids == ()
    assert not gone
    with pytest.raises(TypeError, match=r"integer|SupportsIndex"):
        data.subset(torch.tensor([0.0, 1.0]))
    with pytest.raises(IndexError, match="there is no number 4"):
        data.subset(torch.tensor([4]))


def test_a_stratified_split_is_what_going_through_the_classes_one_by_one_gives():
    labels = np.random.default_rng(0).integers(0, 50, 400) * 3
    random, expected = np.random.RandomState(42), []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        at = min(max(int(0.8 * len(members) + 0.5), 1), max(len(members) - 1, 0))
        expected += members[:at].tolist()
    assert stratified_split(labels, (0.8, 0.2))[0].tolist() == sorted(expected)


def test_what_is_known_of_datasets_cannot_be_changed_by_who_asks():
    before = {each.name: dict(each.sizes) for each in dataset_descriptions()}
    for each in dataset_descriptions():
        each.sizes.clear()
    assert {each.name: dict(each.sizes) for each in dataset_descriptions()} == before
    with pytest.raises(TypeError, match="not support item assignment"):
        hub_entries()["mine"] = None
    assert len(load_dataset("random", "val")) == before["random"]["val"]


def test_two_threads_that_begin_together_see_whole_pictures(own_cache, monkeypatch):
    """The second one is held up where it makes room for the pictures, until the first has drawn one."""
    data = load_dataset("flags", "val")
    expected, images = data.draw(0), []
    both, second_is_there, first_has_drawn = threading.Barrier(2), threading.Event(), threading.Event()
    zeros = np.zeros

    def zeros_in_turn(*args, **kwargs):
        second = threading.current_thread().name == "second"
        if second:
            second_is_there.set()
        (first_has_drawn if second else second_is_there).wait(20)
        return zeros(*args, **kwargs)

    def load():
        images.append(np.asarray(data.load(0)))
        first_has_drawn.set()

    monkeypatch.setattr(generated, "read_kept", lambda *_: [both.wait(20)].clear())
    monkeypatch.setattr(generated.np, "zeros", zeros_in_turn)
    threads = [threading.Thread(target=load, name=name) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [np.array_equal(image, expected) for image in images] == [True, True]


def test_manifests_of_columns_and_of_repositories_are_kept_apart(own_cache, tmp_path, monkeypatch):
    hubs.serve(monkeypatch, tmp_path / "hub", tmp_path / "kept")
    kinds = {"label": ClassLabel(names=["a", "b"]), "kind": ClassLabel(names=["c", "d", "e"])}
    for name, n in (("birds", 20), ("birds-kind", 30)):
        tables = {source: hubs.table(np.arange(n) % 2, kinds) for source in ("train", "test")}
        hubs.write_repository(tmp_path / "hub" / "me" / name, tables)
    assert len(load_dataset("hf:me/birds", "test", label_column="kind")) == 20
    assert len(load_dataset("hf:me/birds-kind", "test", label_column="label")) == 30
    monkeypatch.setattr("residual.data.hub.columns.LABELS", ("label",))
    assert len(load_dataset("hf:me/birds-kind", "test", label_column="kind")) == 30


def test_a_bucket_is_asked_anew_whenever_shards_are_looked_for(monkeypatch):
    """The clients of s3 and gs remember what they were told of a file."""
    system, told = fsspec.filesystem("memory"), {}
    info = type(system).info

    def remembered(self, path, **_):
        if path not in told:
            told[path] = info(self, path)
        return told[path]

    monkeypatch.setattr(type(system), "info", remembered)
    monkeypatch.setattr(type(system), "invalidate_cache", lambda self, path=None: told.clear())
    for size in (100, 200):
        system.pipe_file("/asked-anew/0.tar", bytes(size))
        assert find_shards("memory://asked-anew/0.tar")[""][0].size == size
