"""Pictures on their way to the encoder: through a thread or processes, and whatever goes wrong with them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys

import pytest
import torch
from PIL import Image
from store_files import files_of, float32_encoder, same_files, small_shards
from tiny import TinyImages, tiny_encoder
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from residual.encoders.preprocess import Preprocess
from residual.errors import ResidualError
from residual.store.encode import encode_dataset

N = 21


class OddImages(TinyImages):
    """Some are what no decoder has refused: shapes that can't be resized, errors of any kind."""

    def load(self, index):
        if index in (3, 19):
            return Image.new("RGB", (100_000, 1))
        if index == 4:
            raise RecursionError("too deep")
        return super().load(index)


def test_other_processes_read_the_images(tmp_path, monkeypatch):
    small_shards(monkeypatch)
    dataset, encoder = OddImages(N, broken=(2, 20)), float32_encoder()
    how = {"batch_size": 5, "on_error": "skip"}
    store = encode_dataset(encoder, dataset, tmp_path / "0", workers=0, **how)
    assert list(store.skipped) == [f"tiny/{index}" for index in (2, 3, 4, 19, 20)]
    assert store.reasons["tiny/4"] == "too deep"
    encode_dataset(encoder, dataset, tmp_path / "2", workers=2, **how)

    def full(tensor):
        raise RuntimeError("unable to allocate shared memory")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    encode_dataset(encoder, dataset, tmp_path / "copied", workers=2, **how)
    monkeypatch.setattr(multiprocessing.get_context(), "Lock", lambda: os.open("/nowhere", os.O_RDONLY))
    with pytest.warns(UserWarning, match="read in one thread: worker processes can't be had here .*No such"):
        encode_dataset(encoder, dataset, tmp_path / "thread", workers=2, **how)
    for other in ("2", "copied", "thread"):
        same_files(files_of(tmp_path / other), files_of(tmp_path / "0"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes that read are spawned")
def test_readers_are_forked_also_by_a_process_that_was_spawned():
    class Local(TinyImages):
        """Can't be sent to a process that is spawned."""

    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)  # as in each worker of an executor
    try:
        store = encode_dataset(float32_encoder(), Local(3), workers=1)
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert len(store) == 3


def test_processes_that_read_end_well(tmp_path, monkeypatch):
    """Those that end with an error would be told of where the program has used a loader itself."""
    before = signal.getsignal(signal.SIGCHLD)
    monkeypatch.setattr("torch.utils.data._utils.signal_handling._SIGCHLD_handler_set", False)
    assert list(DataLoader([1, 2], batch_size=None, num_workers=1)) == [1, 2]
    try:  # torch listens now
        for number in range(3):
            store = encode_dataset(float32_encoder(), TinyImages(3), tmp_path / f"{number}", workers=2)
            assert len(store) == 3
        gc.collect()
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_process_that_is_killed_is_one_sentence(tmp_path, monkeypatch):
    class Killing(TinyImages):
        def load(self, index):
            os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError

    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # which torch keeps where a test used a loader
    patience = _MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(patience, "__defaults__", (0.1,))  # torch waits five seconds between two looks
    with pytest.raises(ResidualError, match=r"ended early \(.*Most often memory has run out.* workers=0"):
        encode_dataset(float32_encoder(), Killing(4), tmp_path, workers=1)
    signal.signal(signal.SIGCHLD, before)


def test_an_error_that_is_no_pictures_comes_out_of_a_process_as_it_is(tmp_path):
    class Gone(TinyImages):
        def load(self, index):
            raise ResidualError("The shard has changed.", "Load it again.")

    for workers in (0, 1):
        with pytest.raises(ResidualError, match=r"^The shard has changed\. Load it again\.$"):
            encode_dataset(float32_encoder(), Gone(4), tmp_path, workers=workers, on_error="skip")
    encoder = tiny_encoder(dtype=torch.float32)
    encoder.preprocess = Preprocess(40, None)
    images = TinyImages(4)
    images.load = lambda index: Image.new("RGB", (40, 40 + index))
    with pytest.raises(ResidualError, match=r"'tiny/1' has the shape \(3, 41, 40\), and one before it"):
        encode_dataset(encoder, images)
