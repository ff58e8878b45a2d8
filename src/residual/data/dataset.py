"""What every labelled image dataset offers, whether read from a folder, unpacked or drawn."""

from __future__ import annotations

import hashlib
import operator
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from PIL import Image

from residual.data.decode import decode_image
from residual.data.kinds import PLUGINS, ending_of, lacking_plugin
from residual.errors import LeftOutWarning, ResidualError, UnreadableImageError, printable
from residual.files import read_regular, shareable
from residual.pictures import MOST_BYTES

LONGEST_TEXT = 1000  # letters of a class name or a template: no text tower reads more, tokenizers take long
MOST_CLASSES = 100_000  # as many names and prompts are made of a label one less
OWN_LICENCE = "the user's own images; no licence known"


@dataclass(frozen=True)
class DatasetDescription:
    """What is known of a dataset without loading it.

    Args:
        name: as `load_dataset` takes it.
        about: one line.
        sizes: samples of each split.
        classes: how many.
        licence: one line, as far as known.
        source: where it comes from.
    """

    name: str
    about: str
    sizes: Mapping[str, int]
    classes: int
    licence: str
    source: str


class ImageDataset:
    """A map dataset in PyTorch's manner: `len(ds)` samples, `ds[i]` an RGB image and its class number.

    `name` and `split` say what it is; `class_names` and `templates` (each with one `{}`) are for zero-shot
    classifiers; `labels` `(n,)` int64 and `sample_ids` are known without decoding an image; `licence` is one
    line. `groups` `(n,)` int64 and `group_names` tell apart samples of one class that are to be counted
    separately (Waterbirds); most datasets have none. A concrete class fills these in and defines `load(i)`.

    `in_order` says that samples are had cheaply one after another by a single reader. `notes` are sentences
    on how the split was made, where its source has none.

    Raises:
        ResidualError: see `check`.
    """

    in_order = False
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        split: str,
        class_names: Sequence[str],
        templates: Sequence[str],
        labels: Iterable[Any],
        sample_ids: Sequence[str],
        licence: str,
        groups: Iterable[Any] | None = None,
        group_names: Sequence[str] = (),
    ):
        self.name = name
        self.split = split
        self.class_names = tuple(class_names)
        self.templates = tuple(templates)
        self.labels = _whole_numbers(labels)
        self.sample_ids = tuple(sample_ids)
        self.licence = licence
        self.groups = None if groups is None else _whole_numbers(groups)
        self.group_names = tuple(group_names)
        self.check()

    def check(self) -> None:
        """Refuse labels, groups and ids that aren't one a sample, or have no name, and names without an end.

        Raises:
            ResidualError: there are not as many ids or groups as labels, they aren't whole numbers, or one is
                of no class or group.
        """
        named = ("label", self.labels, self.class_names), ("group", self.groups, self.group_names)
        for what, values, _ in named:
            if values is not None and (values.ndim != 1 or (values.size and values.dtype.kind not in "iu")):
                raise ResidualError(
                    f"{self.full_name} needs {what}s that are whole numbers, one a sample; got "
                    f"{values.dtype} of the shape {values.shape}."
                )
        for what, values in (("ids", self.sample_ids), ("groups", self.groups)):
            if values is not None and len(values) != len(self.labels):
                raise ResidualError(
                    f"{self.full_name} has {len(self.labels)} labels but {len(values)} {what}; every sample "
                    "has one of each."
                )
        for text in (*self.class_names, *self.group_names, *self.templates):
            if len(text) > LONGEST_TEXT:
                raise ResidualError(
                    f"{self.full_name}: {text[:40]!r}… has {len(text):,} letters; a name or a template may "
                    f"have {LONGEST_TEXT:,}."
                )
        for what, values, names in named:
            if values is None or not values.size:
                continue
            if (wrong := np.flatnonzero((values < 0) | (values >= len(names)))).size:
                raise ResidualError(
                    f"{self.full_name}: the {what} of {self.sample_ids[wrong[0]]!r} is {values[wrong[0]]}; "
                    f"there are names for 0 to {len(names) - 1}."
                )

    @property
    def full_name(self) -> str:
        """Name and split, as "name/split"."""
        return f"{self.name}/{self.split}"

    @property
    def shared_name(self) -> str:
        """Name and split for files that others may see: without the path on this machine."""
        return f"{shareable(self.name)}/{self.split}"

    def load(self, index: int) -> Image.Image:
        """Sample `index` (not negative) as an RGB image.

        Raises:
            UnreadableImageError: it can't be decoded.
        """
        raise NotImplementedError

    def masks(self, index: int) -> np.ndarray:
        """Where in the picture of sample `index` the things of its class are: the pixels of each.

        Of the suite, `counting`, `house-numbers` (the digit, and neighbours that are the same digit) and
        `road-signs` (the plate) know, since they are drawn.

        Raises:
            ResidualError: this dataset doesn't know.

        Example:
            >>> from residual.data import load_dataset
            >>> data = load_dataset("counting", "val")
            >>> data.class_names[data.labels[2]], data.masks(2).shape
            ('three cats', (3, 64, 64))
        """
        raise ResidualError(
            f"Where things are in the pictures of {self.name} isn't known.",
            "Of the suite, counting, house-numbers and road-signs have masks.",
        )

    def load_with_digest(self, index: int) -> tuple[Image.Image, int]:
        """Sample `index` as `load` gives it, and 64 bits of the SHA-256 of its pixels."""
        image = self.load(index)
        return image, digest64(f"{image.mode} {image.size}".encode(), image.tobytes())

    def load_or_file(self, index: int, takes: Callable[[bytes], bool]) -> tuple[Any, int]:
        """As `load_with_digest`; but the bytes of a sample's file, not decoded, where `takes` says so."""
        return self.load_with_digest(index)

    @property
    def of_files(self) -> bool:
        """Whether samples are image files, which `load_or_file` may give."""
        return False

    def digest(self, index: int) -> int:
        """What tells the image of sample `index` from others, as `load_with_digest` gives it.

        Raises:
            UnreadableImageError: it can't be had.
        """
        return self.load_with_digest(index)[1]

    def subset(self, indices: Iterable[SupportsIndex | np.bool_]) -> ImageDataset:
        """The samples at `indices`, in that order, or those of a mask, as a dataset of their own.

        Args:
            indices: positions, or one boolean a sample.

        Raises:
            IndexError: one isn't there.
            ResidualError: a mask has more or fewer than one a sample.
        """
        return _Subset(self, indices)

    def sample(self, count: int, seed: int = 42, every_class: bool = False) -> ImageDataset:
        """`count` samples chosen at random, the same every time, in their order; all if there are fewer.

        Args:
            count: how many.
            seed: of the choice.
            every_class: where some class would have none, though there is room for all, one of each is
                chosen first.

        Raises:
            ResidualError: `count` is negative.
        """
        if count < 0:
            raise ResidualError(f"{self.full_name}: {count} samples can't be chosen.")
        order = np.random.RandomState(seed).permutation(len(self))
        if every_class:
            _, first = np.unique(self.labels[order], return_index=True)  # of each class, in that order
            if len(np.unique(self.labels[order[:count]])) < len(first) <= count:
                order = np.concatenate([order[first], np.delete(order, first)])
        return self.subset(np.sort(order[:count]))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: SupportsIndex) -> tuple[Image.Image, int]:
        number = self._checked(index)
        return self.load(number), int(self.labels[number])

    def __repr__(self) -> str:
        return f"<{self.name} {self.split}: {len(self):,} images, {len(self.class_names)} classes>"

    def _rows(self, indices: Iterable[Any]) -> list[int]:
        at_once = getattr(indices, "tolist", None)  # one by one a tensor makes a tensor of each number
        each = at_once() if at_once else indices
        chosen: list[Any] = [one.tolist() if hasattr(one, "tolist") else one for one in each]
        mask = np.asarray(chosen)
        if mask.dtype != bool:
            return [self._checked(index) for index in chosen]
        if mask.shape != (len(self),):
            raise ResidualError(
                f"{self.full_name} has {len(self)} samples, but the mask {len(mask)} booleans."
            )
        return np.flatnonzero(mask).tolist()

    def _checked(self, index: SupportsIndex) -> int:
        n, number = len(self), operator.index(index)
        if not -n <= number < n:
            raise IndexError(f"{self.name} {self.split} has {n} samples, there is no number {number}")
        return number % n


class FileDataset(ImageDataset, ABC):
    """A dataset whose samples are image files, wherever those are kept."""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """The whole file of sample `index`; `UnreadableImageError` where it can't be had."""

    @property
    @abstractmethod
    def where(self) -> str:
        """Where the files are, for errors: "folder:pictures"; without a path, for it is kept in stores."""

    def load(self, index: int) -> Image.Image:
        """Sample `index` as an RGB image, upright as its EXIF says, transparent parts on white."""
        return self._decoded(index, self.content(index))

    def digest(self, index: int) -> int:
        """64 bits of the SHA-256 of its file, which isn't decoded."""
        return digest64(self.content(index))

    def load_with_digest(self, index: int) -> tuple[Image.Image, int]:
        """The same, and 64 bits of the SHA-256 of its file."""
        return self.load_or_file(index, lambda content: False)

    def load_or_file(self, index: int, takes: Callable[[bytes], bool]) -> tuple[Any, int]:
        """See `ImageDataset`."""
        content = self.content(index)
        made = content if takes(content) else self._decoded(index, content)
        return made, digest64(content)

    @property
    def of_files(self) -> bool:
        """They are."""
        return True

    def _decoded(self, index: int, content: bytes) -> Image.Image:
        sample = self.sample_ids[index]
        try:
            return decode_image(content, sample, self.where)
        except UnreadableImageError as error:
            kind = PLUGINS.get(ending_of(sample))
            if kind is None or not lacking_plugin(kind):
                raise
            count = self._of_plugins[kind]
            raise UnreadableImageError(sample, f"one of {count:,} such files: {error.reason}") from error

    @cached_property
    def _of_plugins(self) -> Counter[str]:
        """How many files there are of each kind that Pillow needs a plugin for."""
        return Counter(PLUGINS.get(ending_of(sample), "") for sample in self.sample_ids)


def file_content(path: Path, sample_id: str, where: str) -> bytes:
    """All of a picture's file, if it is a file; the path isn't told, since why a picture was skipped is kept.

    Raises:
        UnreadableImageError: it isn't there, can't be read, or is none.
    """
    try:
        return read_regular(path, MOST_BYTES)
    except OSError as problem:
        raise UnreadableImageError(sample_id, f"{problem.strerror or problem}; {where}") from problem
    except ValueError as problem:
        reason = f"it is a pipe or a device, or has over {MOST_BYTES:,} bytes; {where}"
        raise UnreadableImageError(sample_id, reason) from problem


def tell_unused(names: Sequence[str], labels: np.ndarray, where: str) -> None:
    """Warn of classes that none of the labels `(n,)` of any split is of: something may be missing."""
    unused = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(unused):
        few = ", ".join(repr(names[number]) for number in unused[:5])
        more = f" and {len(unused) - 5:,} more" if len(unused) > 5 else ""
        text = f"{where} has no samples of {len(unused):,} of its {len(names):,} classes: {few}{more}."
        warnings.warn(printable(text), LeftOutWarning, stacklevel=5)


class _Subset(ImageDataset):
    def __init__(self, parent: ImageDataset, indices: Iterable[SupportsIndex | np.bool_]):
        self._parent = parent
        self._indices = parent._rows(indices)
        self.in_order, self.notes = parent.in_order, parent.notes
        super().__init__(
            parent.name,
            parent.split,
            parent.class_names,
            parent.templates,
            parent.labels[self._indices],
            [parent.sample_ids[i] for i in self._indices],
            parent.licence,
            None if parent.groups is None else parent.groups[self._indices],
            parent.group_names,
        )

    def load(self, index: int) -> Image.Image:
        return self._parent.load(self._indices[index])

    def masks(self, index: int) -> np.ndarray:
        return self._parent.masks(self._indices[index])

    def load_with_digest(self, index: int) -> tuple[Image.Image, int]:
        return self._parent.load_with_digest(self._indices[index])

    def load_or_file(self, index: int, takes: Callable[[bytes], bool]) -> tuple[Any, int]:
        return self._parent.load_or_file(self._indices[index], takes)

    @property
    def of_files(self) -> bool:
        return self._parent.of_files

    def digest(self, index: int) -> int:
        return self._parent.digest(self._indices[index])


def _whole_numbers(values: object) -> np.ndarray:
    """As int64 where that changes none; `ImageDataset.check` refuses others."""
    numbers = np.asarray(values)
    if numbers.dtype == object and all(isinstance(each, int | np.integer) for each in numbers.flat):
        numbers = np.array(numbers.tolist())  # as pandas has them
    return numbers.astype(np.int64) if numbers.dtype.kind in "iub" or not numbers.size else numbers


def digest64(*parts: bytes) -> int:
    """The first 64 bits of the SHA-256 of these bytes, one part after another."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return int.from_bytes(total.digest()[:8], "little")
