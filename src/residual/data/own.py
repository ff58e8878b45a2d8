"""Pictures that a program has already (lists, arrays, datasets of torch and Hugging Face) as a dataset.

`as_dataset` tells what it was given, `sources.py` what that says of itself (labels, classes, ids), and
`OwnDataset` reads one sample after another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from residual.data.dataset import OWN_LICENCE, ImageDataset, digest64, file_content
from residual.data.decode import as_seen, decode_image
from residual.data.folder import TEMPLATES
from residual.data.hub.columns import image_column as find_images
from residual.data.hub.columns import label_column as find_labels
from residual.data.hub.columns import read_labels
from residual.data.hub.dataset import HubDataset
from residual.data.hub.splits import given_split
from residual.data.hub.tables import Split
from residual.data.labels import numbered
from residual.data.pixels import PixelDataset
from residual.data.sources import Known, known_of, parted
from residual.data.splits import SPLITS, rows_of_parts
from residual.encoders.pixels import is_bytes
from residual.errors import ResidualError, UnreadableImageError
from residual.finite import plain
from residual.libraries import first_line
from residual.pictures import as_picture

UNLABELLED = "unlabelled"
_TAKEN = (
    "Taken are: a dataset of residual.load_dataset, of torch, torchvision or datasets; a list of pictures or "
    "of (picture, label); or an array of pictures (n, h, w, 3) in bytes or of pixels (n, 3, h, w)."
)


class OwnDataset(ImageDataset):
    """Samples of a torch dataset or a list, read one by one.

    Args:
        data: with a length and samples by number, each a picture, `(picture, label)` or a dictionary. A
            picture is a PIL image, a path, or bytes of NumPy or torch; fractions `(3, h, w)` are pixels that
            are preprocessed already.
        labels, class_names, sample_ids, groups, group_names, name, split: as of any dataset.
        columns: keys of the picture and of the label, where samples are dictionaries.
        told: labels as the data itself lists them, which every sample has to agree with; None for none.

    Raises:
        ResidualError: see `ImageDataset.check`.
    """

    def __init__(
        self,
        data: Any,
        labels: Iterable[Any],
        class_names: Sequence[str],
        sample_ids: Sequence[str],
        groups: Iterable[Any] | None = None,
        group_names: Sequence[str] = (),
        name: str = "own",
        split: str = "train",
        columns: tuple[str | None, str | None] = (None, None),
        told: Sequence[Any] | None = None,
    ):
        self._data, self._columns, self._told = data, columns, told
        super().__init__(
            name, split, class_names, TEMPLATES, labels, sample_ids, OWN_LICENCE, groups, group_names
        )

    def load(self, index: int) -> Any:
        """Sample `index`: an RGB image, or a tensor where the data holds pixels.

        Raises:
            UnreadableImageError: it can't be decoded.
            ResidualError: it has another label than the data said before.
        """
        picture, label = parted(self._data[index], self._columns, self._told is None)
        if self._told is not None and label is not None and plain(label) != self._told[index]:
            raise ResidualError(
                f"{self.full_name}: sample {self.sample_ids[index]!r} comes with the label {plain(label)!r}, "
                f"and its data lists {self._told[index]!r} for it.",
                "Say which it is: labels=[...], one a sample.",
            )
        return self._shown(picture, index)

    def load_with_digest(self, index: int) -> tuple[Any, int]:
        """The same, and 64 bits of the SHA-256 of its pixels."""
        seen = self.load(index)
        if isinstance(seen, Image.Image):
            return seen, digest64(f"{seen.mode} {seen.size}".encode(), seen.tobytes())
        numbers = np.asarray(seen.float() if isinstance(seen, Tensor) else seen)
        return seen, digest64(f"{numbers.dtype} {numbers.shape}".encode(), numbers.tobytes())

    def _shown(self, picture: Any, index: int) -> Any:
        sample = self.sample_ids[index]
        if isinstance(picture, str | os.PathLike):
            return decode_image(file_content(Path(picture), sample, self.full_name), sample, self.full_name)
        if isinstance(picture, Image.Image):
            try:
                return as_seen(picture)
            except Exception as problem:  # it may be read from its file only now
                raise UnreadableImageError(sample, first_line(problem)) from problem
        if isinstance(picture, np.ndarray | Tensor):
            if is_bytes(picture):
                return as_picture(np.asarray(picture.cpu() if isinstance(picture, Tensor) else picture),
                                  isinstance(picture, Tensor))  # fmt: skip
            return picture.detach().cpu() if isinstance(picture, Tensor) else picture
        raise ResidualError(
            f"{self.full_name}: sample {sample!r} is no picture but {type(picture).__name__}.",
            "A picture is a PIL image, a path, bytes (uint8), or preprocessed pixels (3, h, w).",
        )


def as_dataset(
    data: Any,
    *,
    labels: Iterable[Any] | None = None,
    groups: Iterable[Any] | None = None,
    class_names: Sequence[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    name: str = "own",
    split: str = "train",
    unnamed: Sequence[str] | None = None,
) -> ImageDataset:
    """Your own pictures as a dataset, whatever they are in.

    Labels that `data` doesn't list by itself (as `targets` or `labels`) are read from its samples, each once,
    before anything else; `labels` saves that. Pictures without any label are of one class, "unlabelled".
    Pictures (PIL, paths, bytes) go through an encoder's preprocessing; tensors and arrays of fractions are
    taken for pixels that did so already, and have to be of the encoder's size.

    Args:
        data: a `torch.utils.data.Dataset` of `(picture, label)` or of dictionaries (torchvision's, with their
            classes and files' names; a `Subset` or `ConcatDataset` of such); a `datasets.Dataset`; a list of
            pictures or of `(picture, label)`; an array or tensor of bytes `(n, h, w)`, `(n, h, w, 3)` or
            `(n, 3, h, w)`, or of pixels `(n, 3, h, w)`; or a dataset of this library, as it is.
        labels: one a sample, whole numbers or texts; those of `data` don't count then.
        groups: likewise, see `ImageDataset`.
        class_names: one a class. Texts are numbered by them, or else by their sorted names. Where `data`
            names its classes, the same names in another order renumber them, and others rename them.
        image_column, label_column: keys of dictionaries, or columns of a table, where they can't be told.
        name, split: what it is called in stores and messages.
        unnamed: names of the classes where neither `data` nor `class_names` has any.

    Raises:
        ResidualError: it is none of these; not one label or group a sample, or labels that are none; names
            that don't fit.

    Example:
        >>> import numpy as np, residual
        >>> pictures = np.zeros((3, 20, 30, 3), np.uint8)
        >>> data = residual.data.as_dataset(pictures, labels=["cat", "ant", "cat"])
        >>> data, data.class_names, data.labels
        (<own train: 3 images, 2 classes>, ('ant', 'cat'), array([1, 0, 1]))
    """
    where, columns = f"{name}/{split}", (image_column, label_column)
    if isinstance(data, ImageDataset):
        if any(each is not None for each in (labels, groups, class_names, *columns)):
            raise ResidualError(
                f"{data.full_name} has labels, groups and names of its own.",
                "Others can be given with pictures: as_dataset([image for image, _ in data], labels=...).",
            )
        return data
    _check_kind(data)
    known = _known_of_table(data, columns, labels is not None, where)
    table = known is not None
    if known is None:
        known = known_of(data)
    count = len(data)
    if not count:
        raise ResidualError(f"{where} has no samples.")
    told = None
    if labels is None and not table:
        labels = told = known.labels
        if labels is None and not isinstance(data, np.ndarray | Tensor):
            labels = _read_labels(data, columns, where)
    if known.names is None and class_names is None:
        class_names = unnamed
    numbers, names = _labels(labels, known, class_names, count, where, table)
    grouped, group_names = None, ()
    if groups is not None:
        grouped, group_names = numbered(groups, None, where, "group")
        _check_count(len(grouped), count, "groups", where)
    about: dict[str, Any] = {
        "labels": numbers, "class_names": names, "groups": grouped, "group_names": group_names,
        "name": name, "split": split,
    }  # fmt: skip
    if table:
        rows, column = np.arange(count), find_images(data.features, image_column, where)
        kept: dict[str, Any] = {"templates": TEMPLATES, "licence": OWN_LICENCE, "where": where}
        # Its cells may name any file: it is the user's own table, and none that a stranger made.
        return HubDataset(
            table=Split(lambda: data), source="row", rows=rows, total=count, column=column, stream=False,
            folders=[Path(Path.cwd().anchor)], **kept, **about,
        )  # fmt: skip
    ids = known.ids or [f"{index:06d}" for index in range(count)]
    if isinstance(data, np.ndarray | Tensor) and not is_bytes(data):
        return PixelDataset(data, sample_ids=ids, **about)
    return OwnDataset(data, sample_ids=ids, columns=columns, told=told, **about)


def own_splits(data: Any) -> dict[str, ImageDataset]:
    """Train, val and test of your own pictures, with one numbering of the classes: that of train.

    Args:
        data: a dictionary of splits (named "train", "val" and "test", or as the hub names them), each as
            `as_dataset` takes it; or one dataset. What is missing is split off, see `residual.data.splits`.

    Raises:
        ResidualError: no splits of these names; a split has other classes than train; or see `as_dataset`.
    """
    given = data if isinstance(data, Mapping) else {"train": data}
    train, parts = given_split(list(given), "train", "own")
    first = as_dataset(given[train])
    made = {}
    for split in SPLITS:
        source, parts = given_split(list(given), split, "own")
        whole = first if source == train else as_dataset(given[source], unnamed=first.class_names)
        if whole.class_names != first.class_names:
            raise ResidualError(
                f"The split {source!r} has other classes ({', '.join(whole.class_names[:4])}, …) than "
                f"{train!r} ({', '.join(first.class_names[:4])}, …).",
                "Give both the same: as_dataset(..., class_names=...).",
            )
        rows = rows_of_parts(whole.labels, parts, f"{source!r} of own", first.class_names)[split]
        part = whole.subset(rows)
        part.split = split
        made[split] = part
    return made


def _check_kind(data: Any) -> None:
    """Refuse what can't be read sample by sample, each with its way out."""
    kind = type(data).__name__
    if isinstance(data, str | os.PathLike):
        _refuse(f"a name, {str(data)!r}", "Load it first: residual.load_dataset(name, split).")
    if isinstance(data, Mapping):
        keys = ", ".join(map(str, list(data)[:6]))
        _refuse(f"a dictionary ({keys})", "Give one of them; labels go into labels=...")
    if isinstance(data, DataLoader):
        _refuse("a DataLoader", "Give its dataset: loader.dataset.")
    if hasattr(data, "iloc"):
        _refuse(f"a {kind}", "Give its columns apart: list(frame[...]), labels=frame[...].")
    if isinstance(data, IterableDataset | Iterator) or (
        hasattr(data, "__iter__") and not hasattr(data, "__len__")
    ):
        way_out = (
            "Pictures are looked at again when a store is gone on with, so they need a length and numbers: "
        )
        _refuse(f"{kind}, which can be read only once", f"{way_out}list(data), if they fit into memory.")
    shape = tuple(data.shape) if isinstance(data, np.ndarray | Tensor) else ()
    greys = len(shape) == 3 and is_bytes(data) and shape[-1] not in (3, 4) and shape[0] != 3
    if isinstance(data, np.ndarray | Tensor) and len(shape) != 4 and not greys:
        _refuse(f"numbers of the shape {shape}", f"{_TAKEN} Of one picture say data[None].")
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__") or isinstance(data, bytes):
        _refuse(kind, _TAKEN)
    if isinstance(data, tuple) and len(data) == 2 and getattr(data[0], "ndim", 0) == 4:
        _refuse("a pair of pictures and labels", "Give the labels apart: labels=...")


def _refuse(what: str, hint: str) -> NoReturn:
    raise ResidualError(f"A dataset is wanted, got {what}.", hint)


def _known_of_table(
    data: Any, columns: tuple[str | None, str | None], labelled: bool, where: str
) -> Known | None:
    """What a `datasets.Dataset` says of its labels; None where it is none, or makes its samples itself."""
    if not type(data).__module__.startswith("datasets.") or not hasattr(data, "features"):
        return None
    if data.format["type"] == "custom":  # a transform of the user's makes them
        return None
    image, label = columns
    find_images(data.features, image, where)
    if labelled:
        return Known(None, None, None)
    column = find_labels(data.features, label, where)
    labels, names = read_labels({"rows": Split(lambda: data)}, column, where)
    return Known(labels["rows"].tolist(), names, None)


def _read_labels(data: Any, columns: tuple[str | None, str | None], where: str) -> list[Any] | None:
    """Labels out of the samples themselves; None where none has any."""
    found = []
    for index in range(len(data)):
        try:
            sample = data[index]
        except Exception as error:
            raise ResidualError(
                f"{where}: sample {index} can't be read for its label ({first_line(error)}).",
                "Give the labels: labels=[...], one a sample.",
            ) from error
        found.append(parted(sample, columns, True)[1])
    if all(label is None for label in found):
        return None
    return found


def _labels(
    labels: Iterable[Any] | None,
    known: Known,
    wanted: Sequence[str] | None,
    count: int,
    where: str,
    table: bool,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers and names, of labels that were given or that the data has."""
    if table and labels is None:
        labels = known.labels
    if isinstance(labels, str):
        raise ResidualError(
            f"labels are one a picture, got a text, {labels!r}.",
            f"A column or key is named by label_column={labels!r}.",
        )
    if labels is None and wanted is not None:
        raise ResidualError(f"{where} has no labels, but names of classes.", "Give them: labels=[...].")
    if labels is None:
        return np.zeros(count, np.int64), (UNLABELLED,)
    if not isinstance(plain(labels), Iterable):
        raise ResidualError(f"labels are one a picture, got {labels!r}.")
    listed = list(plain(labels))
    _check_count(len(listed), count, "labels", where)
    own = known.names
    if own is None or wanted is None:
        return numbered(listed, own if wanted is None else wanted, where)
    numbers, _ = numbered(listed, own, where)
    if sorted(own) == sorted(wanted) and len(set(own)) == len(own):
        order = np.array([list(wanted).index(name) for name in own], np.int64)
        return order[numbers], tuple(wanted)
    if len(own) != len(wanted):
        raise ResidualError(
            f"{where} has {len(own)} classes ({', '.join(own[:4])}, …), and {len(wanted)} names are given."
        )
    return numbers, tuple(wanted)


def _check_count(found: int, count: int, what: str, where: str) -> None:
    if found != count:
        raise ResidualError(f"{where} has {count} pictures but {found} {what}; each picture has one.")
