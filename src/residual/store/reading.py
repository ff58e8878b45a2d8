"""Pictures off the disk, ahead of the encoder: in worker processes or one thread, to pixels where it is.

Workers read small pieces (`pieces.py`) and hand over bytes: pictures that are resized and cropped, or whole
files, which are decoded beside the encoder (`decoding.py`). They are normalised there.
"""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import groupby
from threading import Thread

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from residual.data import ImageDataset, PixelDataset
from residual.devices import cores
from residual.encoders.encoder import Encoder
from residual.encoders.halves import halves_of
from residual.errors import ResidualError, UnreadableImageError
from residual.libraries import first_line
from residual.read_ahead import ahead
from residual.store.decoding import decode_files
from residual.store.encoding import CPU, GPU
from residual.store.pieces import Files, Pixels, Reader

_PIECE = 64  # images that a worker reads at a time
MOST_PROCESSES = 256
_MOST_WORKERS = 16
_MOST_READERS = 8  # of those that decode nothing; more of them only begin later
_SWITCHES = 1e-4  # seconds
# How processes begin: one that was spawned itself would spawn others, and each imports torch anew.
_BEGUN = "fork" if sys.platform == "linux" else None
_MOST_WAITING = 2**28  # bytes of decoded pictures; more are made small at once


def read_pixels(
    encoder: Encoder,
    dataset: ImageDataset,
    batches: Sequence[range],
    workers: int | None,
    skip: bool,
    decode: str = CPU,
    device: torch.device | None = None,
) -> Iterator[Pixels]:
    """The samples of each batch in turn, read ahead: as one tensor of pixels, in the encoder's precision.

    Args:
        encoder: tells how images become pixels, in which precision and where.
        dataset: of images, or of pixels that are in memory already (`PixelDataset`), which stay as they are.
        batches: positions.
        workers: processes; 0 for one thread; None for as many as the machine has cores where the encoder runs
            on a GPU, and 0 where it needs the cores itself.
        skip: leave out what can't be read, else stop there.
        decode: "cpu", or "gpu" where `decoding.road` says that it can be.
        device: where the pixels are to be; by default the encoder's.

    Raises:
        UnreadableImageError: without `skip`; names the sample.
        ResidualError: `workers` is out of bounds; or a process ended early, most often since memory ran out.
    """
    on_gpu = encoder.device.type == "cuda"
    if workers is None:
        most = _MOST_READERS if decode == GPU else _MOST_WORKERS
        workers = min(most, cores()) if on_gpu and not dataset.in_order else 0
    if not 0 <= workers <= MOST_PROCESSES:
        raise ResidualError(f"workers is from 0 to {MOST_PROCESSES}, got {workers}.")
    place = _OnDevice(encoder, dataset, decode, encoder.device if device is None else device)
    reader = Reader(dataset, place.draw, place.geometry, on_gpu)
    if isinstance(dataset, PixelDataset):
        whole = ahead(reader.read, batches)
    else:  # each step in a thread of its own
        processes = workers and _can_have_workers()
        whole = _by_processes(reader, batches, workers) if processes else ahead(reader.read, batches)
        whole = whole if place.geometry is None else ahead(place.decode, whole)
        whole = ahead(place, whole)
    with _turns() if on_gpu else nullcontext():
        for batch in whole:
            for position, reason in batch.skipped.items():
                if not skip:
                    raise UnreadableImageError(dataset.sample_ids[position], reason)
            place.settle(batch)
            yield batch


@contextmanager
def _turns() -> Generator[None]:
    """Have Python's threads take turns more often: the one that reads ahead takes many short ones, and would
    wait 5 ms for each while another gives a GPU its work.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _SWITCHES))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _can_have_workers() -> bool:
    """Whether processes can talk to each other here, for which they need semaphores."""
    try:
        multiprocessing.get_context(_BEGUN).Lock()
    except (OSError, ImportError) as error:
        warnings.warn(
            f"Pictures are read in one thread: worker processes can't be had here ({first_line(error)}), as "
            "where /dev/shm is missing or closed.",
            stacklevel=4,
        )
        return False
    return True


def _by_processes(reader: Reader, batches: Sequence[range], workers: int) -> Iterator[Pixels]:
    pieces = [batch[start : start + _PIECE] for batch in batches for start in range(0, len(batch), _PIECE)]
    loader = DataLoader(
        reader, batch_size=None, sampler=pieces, num_workers=workers, multiprocessing_context=_BEGUN
    )
    begun: list[Iterator[Pixels]] = []

    def joined(batch: range) -> Pixels:
        try:
            if not begun:
                begun.append(_forked(loader))
            parts = [next(begun[0]) for _ in range(0, len(batch), _PIECE)]
        except (OSError, RuntimeError) as error:  # what the reader itself trips over comes as a value
            raise ResidualError(
                f"A process that reads pictures couldn't be started or ended early ({first_line(error)}). "
                "Most often memory has run out.",
                "Have fewer of them, or none: workers=0.",
            ) from error
        whole = Pixels()
        for part in parts:
            if part.failed:
                raise ResidualError(*part.failed)
            whole.add(part.arrived())
        return whole

    # Not in the main thread, where torch has the death of a worker raised wherever that thread is.
    return ahead(joined, batches)


def _forked(loader: DataLoader[Pixels]) -> Iterator[Pixels]:
    """Begin a loader's processes in a thread that is no pool's: what is forked there would wait for itself as
    it ends, and end with an error.
    """
    done: Future[Iterator[Pixels]] = Future()

    def begin() -> None:
        try:
            done.set_result(iter(loader))
        except BaseException as error:
            done.set_exception(error)

    Thread(target=begin, name="residual-forks", daemon=True).start()
    return done.result()


class _OnDevice:
    """Makes pixels on a device of what was read.

    On a GPU in a stream of its own, in threads that work ahead.

    Args:
        encoder: whose precision and preprocessing they are to have.
        dataset: that they are of.
        decode: see `read_pixels`.
        device: where to.
    """

    def __init__(self, encoder: Encoder, dataset: ImageDataset, decode: str, device: torch.device):
        halves = halves_of(encoder.preprocess)
        self.dataset, self.dtype, self.device = dataset, encoder.dtype, device
        self.normalise = None if halves is None else halves.normalise
        self.draw = (
            encoder.to_pixels if halves is None else replace(encoder.to_pixels, preprocess=halves.draw)
        )
        self.geometry = halves.geometry if halves is not None and decode == GPU else None
        self.reader = Reader(dataset, self.draw, self.geometry, False)
        # First among equals: else each small step waits for a large one of the encoder's.
        self.stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None
        self.done: dict[int, torch.cuda.Event] = {}

    def decode(self, read: Pixels) -> Pixels:
        """With pictures in place of files; None of those that the decoder refuses."""
        with self._beside():
            for part in read.pixels:
                if isinstance(part, Files):
                    part.pictures = decode_files(part.data, part.lengths, self.device)
                    if sum(each.nbytes for each in part.pictures if each is not None) > _MOST_WAITING:
                        part.pictures, part.drawn = list(map(self._small, part.pictures)), True
        return read

    def _small(self, picture: Tensor | None) -> Tensor | None:
        return None if picture is None or self.geometry is None else self.geometry.drawn([picture])[0]

    def __call__(self, read: Pixels) -> Pixels:
        """With one tensor of pixels."""
        with self._beside():
            if read.pixels:
                self._make(read)
            if self.stream is not None:
                self.done[id(read)] = self.stream.record_event()
        return read

    def _beside(self) -> AbstractContextManager[object]:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def settle(self, read: Pixels) -> None:
        """Have the stream of the caller wait for what it is given."""
        event = self.done.pop(id(read), None)
        if event is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(event)
            for pixels in read.pixels:
                pixels.record_stream(current)

    def _make(self, read: Pixels) -> None:
        drawn, at = list[Tensor](), 0
        lost = dict[int, str]()
        for part in read.pixels:
            if isinstance(part, Files):
                drawn += self._decoded(part, read.positions[at : at + len(part.lengths)], lost)
                at += len(part.lengths)
            else:
                drawn.append(part.to(self.device, non_blocking=True))
                at += len(part)
        read.digests = [
            digest for place, digest in zip(read.positions, read.digests, strict=True) if place not in lost
        ]
        read.positions = [place for place in read.positions if place not in lost]
        read.skipped |= lost
        self._check_shapes(read.positions, drawn)
        if {each.dtype for each in drawn} == {torch.uint8}:
            drawn = [torch.cat(drawn)]
        made = [self._normalised(each) for each in drawn]
        read.pixels = [torch.cat(made)] if len(made) > 1 else made

    def _normalised(self, drawn: Tensor) -> Tensor:
        if drawn.dtype == torch.uint8 and self.normalise is not None:
            drawn = self.normalise(drawn)
        return drawn.to(self.dtype)

    def _decoded(self, files: Files, positions: list[int], lost: dict[int, str]) -> list[Tensor]:
        """Pictures as their decoder on the device makes them, and as Pillow does what that refuses; `lost`
        takes in what neither reads.
        """
        if self.geometry is None or self.normalise is None:
            raise ValueError("files were read that nothing here decodes")
        parts, pairs = list[Tensor](), zip(positions, files.pictures, strict=True)
        for taken, run in groupby(pairs, lambda pair: pair[1] is not None):
            if taken:
                pictures = [picture for _, picture in run if picture is not None]
                drawn = torch.stack(pictures) if files.drawn else self.geometry.drawn(pictures)
                parts.append(drawn if drawn.dtype == torch.uint8 else self.normalise(drawn))
                continue
            for position, _ in run:
                try:
                    parts.append(self.reader.one(position, as_file=False)[0][None].to(self.device))
                except UnreadableImageError as error:
                    lost[position] = error.reason
        return parts

    def _check_shapes(self, positions: list[int], drawn: list[Tensor]) -> None:
        at = 0
        for part in drawn:
            if part.shape[1:] != drawn[0].shape[1:]:
                raise self.reader.odd(positions[at], part.shape[1:], drawn[0].shape[1:])
            at += len(part)
