"""Generated splits are kept on disk, and a bad or impossible cache does no harm."""

import io

import numpy as np
import pytest

from residual.data import load_dataset
from residual.data.suite import generated

NAME, SPLIT = "emoji-groups", "val"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cache folder; a picture's colour is its number, since drawing isn't what is tested here."""
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))
    colour = lambda _, index: np.full((64, 64, 3), index % 251, np.uint8)  # noqa: E731
    monkeypatch.setattr(generated.GeneratedDataset, "draw", colour)
    return tmp_path / "cache"


def images(data) -> np.ndarray:
    return np.stack([np.asarray(data[i][0]) for i in range(len(data))])


def test_a_whole_split_is_kept_and_read_back(folder, monkeypatch):
    data = load_dataset(NAME, SPLIT)
    images(data.subset(range(20)))  # a few samples are not the whole split
    assert not (folder / "suite").exists()
    first = images(data)
    path = generated.kept_path(NAME, SPLIT)
    assert [p.name for p in (folder / "suite").rglob("*") if p.is_file()] == [path.name]
    assert np.array_equal(np.load(path, allow_pickle=False), first)
    monkeypatch.setattr(generated.GeneratedDataset, "draw", lambda *_: pytest.fail("drawn again"))
    assert np.array_equal(images(load_dataset(NAME, SPLIT)), first)


def test_a_bad_file_is_drawn_anew_and_mended(folder):
    first = images(load_dataset(NAME, SPLIT))
    path = generated.kept_path(NAME, SPLIT)
    good = path.read_bytes()
    flipped, short, pickled = bytearray(good), io.BytesIO(), io.BytesIO()
    flipped[len(good) // 2] ^= 1
    np.save(short, first[:10])
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    damaged = (bytes(flipped), good[: len(good) // 3], b"", b"no array", short.getvalue(), pickled.getvalue())
    for content in damaged:
        path.write_bytes(content)
        assert generated.read_kept(NAME, SPLIT, first.shape) is None
        assert np.array_equal(images(load_dataset(NAME, SPLIT)), first)
        assert path.read_bytes() == good


def test_a_cache_that_cannot_be_written_does_no_harm(folder, tmp_path, monkeypatch):
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
