"""Generated splits are kept on disk, and a bad or impossible cache does no harm."""

import numpy as np
import pytest

from residual.data import load_dataset
from residual.data.suite import generated

NAME, SPLIT = "emoji-groups", "val"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def images(data) -> np.ndarray:
    return np.stack([np.asarray(data[i][0]) for i in range(len(data))])


def test_a_whole_split_is_kept_and_read_back(folder, monkeypatch):
    first = images(load_dataset(NAME, SPLIT))
    path = generated.kept_path(NAME, SPLIT)
    assert [p.name for p in (folder / "suite").rglob("*") if p.is_file()] == [path.name]
    assert np.array_equal(np.load(path, allow_pickle=False), first)

    again = load_dataset(NAME, SPLIT)
    monkeypatch.setattr(type(again), "draw", lambda self, index: pytest.fail("drawn again"))
    assert np.array_equal(images(again), first)


def test_a_few_samples_are_not_the_whole_split(folder):
    data = load_dataset(NAME, SPLIT).subset(range(20))
    images(data)
    assert not (folder / "suite").exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "shape", "text"])
def test_a_bad_file_is_drawn_anew_and_mended(folder, damage):
    first = images(load_dataset(NAME, SPLIT))
    path = generated.kept_path(NAME, SPLIT)
    good = path.read_bytes()
    if damage == "flip":
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 1
        path.write_bytes(bytes(bad))
    elif damage == "cut":
        path.write_bytes(good[: len(good) // 3])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "shape":
        with path.open("wb") as file:
            np.save(file, first[:10])
    else:
        path.write_text("no array")
    assert np.array_equal(images(load_dataset(NAME, SPLIT)), first)
    assert path.read_bytes() == good


def test_a_pickle_in_the_cache_is_never_loaded(folder):
    path = generated.kept_path(NAME, SPLIT)
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert generated.read_kept(NAME, SPLIT, (1,)) is None


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "file" / "cache"))
    data = load_dataset(NAME, SPLIT)
    assert len(images(data)) == len(data)
    assert (tmp_path / "file").read_text() == "in the way"


def test_other_code_or_assets_are_kept_apart(folder, monkeypatch):
    before = generated.kept_path(NAME, SPLIT)
    assert generated.kept_path(NAME, "train") != before
    images(load_dataset(NAME, SPLIT))
    monkeypatch.setattr(generated, "fingerprint", lambda: "f" * 64)
    assert generated.kept_path(NAME, SPLIT) != before
    images(load_dataset(NAME, SPLIT))
    assert list(before.parent.iterdir()) == [generated.kept_path(NAME, SPLIT)]
