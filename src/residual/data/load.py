"""Datasets by name: a table of the forms that names have, and the manifests that splits are compared with."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from residual.data.dataset import DatasetDescription, ImageDataset
from residual.data.folder import FolderDataset
from residual.data.hub import hub_descriptions, hub_entries, load_hub, load_table
from residual.data.manifest import Manifest, give_groups
from residual.data.names import full_name, tell_namesake
from residual.data.splits import SPLITS
from residual.data.suite import MixedDataset, RandomDataset, load_suite, suite_descriptions, suite_names
from residual.errors import LaterVersionError, LeftOutWarning, ResidualError, UnknownFieldsError, unknown_name
from residual.files import cache_folder, local_path, safe_name


@dataclass(frozen=True)
class Form:
    """Names of the form `KIND:ADDRESS`.

    Args:
        address: what stands after the colon, for users.
        about: one line.
        example: for the error where nothing stands there.
        load: the dataset of `(name, address, split, image_column, label_column)`.
        columns: whether there are columns to choose from.
        own_files: whether the address is the user's own place, with his own manifests in it.
    """

    address: str
    about: str
    example: str
    load: Callable[[str, str, str, str | None, str | None], ImageDataset]
    columns: bool = False
    own_files: bool = True


def _load_shards(address: str, split: str) -> ImageDataset:
    from residual.data.shards import ShardsDataset  # and fsspec with it

    return ShardsDataset(address, split)


FORMS = {
    "folder": Form(
        "PATH",
        "images in PATH/CLASS/, or in PATH/train/CLASS/, PATH/val/CLASS/ and PATH/test/CLASS/",
        "photos/birds",
        lambda name, address, split, *_: FolderDataset(address, split),
    ),
    "disk": Form(
        "PATH",
        "a Dataset or DatasetDict that save_to_disk of the datasets library wrote",
        "saved/birds",
        lambda name, address, split, *columns: load_table(name, split, *columns),
        columns=True,
    ),
    "hf": Form(
        "REPO",
        "a repository of the hub with a column of images and one of labels; also hf:REPO@REVISION and "
        "hf:REPO:CONFIG",
        "uoft-cs/cifar10",
        lambda name, address, split, *columns: load_table(name, split, *columns),
        columns=True,
        own_files=False,
    ),
    "wds": Form(
        "SHARDS",
        "webdataset shards: a folder with train/*.tar and test/*.tar, or shards/{000..012}.tar",
        "shards/{000..012}.tar",
        lambda name, address, split, *_: _load_shards(address, split),
    ),
}
_MADE: dict[str, Callable[[str], ImageDataset]] = {"mixed": MixedDataset, "random": RandomDataset}


def dataset_names() -> tuple[str, ...]:
    """The ten datasets of the offline suite; `load_dataset` also takes those of `hub_dataset_names`.

    Example:
        >>> import residual
        >>> residual.data.dataset_names()[:3]
        ('mnist', 'digits', 'house-numbers')
    """
    return suite_names()


def hub_dataset_names() -> tuple[str, ...]:
    """The datasets of the paper's suite, which come from the hub; 'mnist-full' is its MNIST."""
    return tuple(hub_entries())


def dataset_descriptions() -> list[DatasetDescription]:
    """What is known of every dataset that has a name: `mixed`, the offline suite, the paper's, `random`."""
    mixed, *ten, noise = suite_descriptions()
    return [mixed, *ten, *hub_descriptions(), noise]


def load_dataset(
    name: str,
    split: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    manifest: str | Path | None = None,
    stream: bool = False,
) -> ImageDataset:
    """One split ("train", "val" or "test") of a dataset.

    A split is the same every time: a manifest (ids and labels) is kept in the cache folder when one is first
    built, and compared from then on, for all but the user's own files. For those (`folder:`, `disk:` and
    `wds:`) a `manifest-SPLIT.json` beside them is compared. Images aren't read for that:
    `Manifest.of(dataset, contents=True)` does. Where a manifest tells groups and the source none, the split
    has those, with the names of all manifests that lie beside, sorted. What the `datasets` library makes of
    a clone is kept in the folder `residual` of its cache, for each state of the clone's files; it stays until
    you remove it.

    Args:
        name: of the offline suite (`dataset_names`), the paper's suite (`hub_dataset_names`), "mixed",
            "random", "folder:PATH", "disk:PATH", "hf:REPO", "hf:REPO@REVISION", "hf:REPO:CONFIG" or
            "wds:SHARDS"; or a path, or OWNER/NAME of the hub, where `dataset_name` knows what is meant.
        split: which part.
        image_column, label_column: of `hf:` and `disk:`, where the columns can't be told.
        manifest: a file that the split must agree with.
        stream: fetch pictures of the hub while they are read, and keep none, where they are in Parquet files;
            for datasets that are read once and in order. Others are read as ever.

    Raises:
        ResidualError: a name or split that isn't there (with the nearest that are), a source that is gone
            (with where else it may be) or can't be used, or another manifest.

    Example:
        >>> import residual
        >>> data = residual.load_dataset("digits", "test")
        >>> data
        <digits test: 359 images, 10 classes>
        >>> image, label = data[0]
        >>> image.size, data.class_names[label]
        ((64, 64), '2')
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    name = dataset_name(name)
    kind, colon, address = name.partition(":")
    form = FORMS.get(kind) if colon else None
    if (image_column or label_column) and not (form and form.columns):
        raise ResidualError(f"Only hf: and disk: have columns to choose from, not {name!r}.")
    if form is None:
        tell_namesake(name)
        dataset = _load_named(name, split, stream)
    elif not address:
        raise ResidualError(f"'{kind}:' needs something after it, as in {kind}:{form.example}.")
    else:
        dataset = form.load(name, address, split, image_column, label_column, *([stream] if stream else []))
    if form and form.own_files:
        _compare_with_own(dataset, local_path(address))
    else:
        columns = {"image": image_column, "label": label_column}
        chosen = [f"{what}={column}" for what, column in columns.items() if column]
        _compare_with_kept(dataset, " ".join([name, *chosen]))
    if manifest is not None:
        loaded = Manifest.load(manifest)
        Manifest.of(dataset).check(loaded, f"the manifest '{manifest}'")
        give_groups(dataset, [loaded])
    return dataset


def dataset_name(name: str) -> str:
    """The whole name of what a user calls `name`, before the long work; nothing is loaded.

    Raises:
        ResidualError: see `full_name`.

    Example:
        >>> from residual.data.load import dataset_name
        >>> dataset_name("letters"), dataset_name("/"), dataset_name("ylecun/mnist")
        ('letters', 'folder:/', 'hf:ylecun/mnist')
    """
    return full_name(name, (*suite_names(), *hub_entries(), *_MADE), FORMS)


def ships(name: str) -> bool:
    """Whether a dataset is part of the library, so that nothing else is read or fetched for it.

    Only such a name is loaded where a file tells it; any other, the user gives.
    """
    return name in suite_names() or name in _MADE


def _load_named(name: str, split: str, stream: bool) -> ImageDataset:
    if name in suite_names():
        return load_suite(name, split)
    if name in hub_entries():
        return load_hub(name, split, stream)
    return _MADE[name](split)


def _compare_with_own(dataset: ImageDataset, folder: Path) -> None:
    """Compare with the manifest that lies beside the user's own files, and take the groups that it tells."""
    beside = {split: folder / f"manifest-{split}.json" for split in (dataset.split, *SPLITS)}
    first, *others = (path for path in beside.values() if path.is_file() or path == beside[dataset.split])
    if not first.is_file():
        return
    own = Manifest.load(first)
    Manifest.of(dataset).check(own, f"the manifest '{first}' (delete it if this is the state you want)")
    give_groups(dataset, [own, *(map(Manifest.load, others) if own.groups else ())])


def _compare_with_kept(dataset: ImageDataset, key: str) -> None:
    """Keep the manifest in the cache folder, or compare with the one that is kept there.

    Only the checksum is read as long as it agrees: a million samples are compared while they are hashed.
    """
    path = cache_folder() / "manifests" / f"{safe_name(key)}-{dataset.split}.json"
    now = Manifest.of(dataset)
    if _kept_checksum(path) == now.checksum:
        return
    try:
        kept = Manifest.load(path)
    except UnknownFieldsError:
        raise
    except LaterVersionError as error:  # it is that version's, and stays
        told = f"{dataset.full_name} isn't compared with what it was when first built: {error}"
        warnings.warn(told, LeftOutWarning, stacklevel=3)
        return
    except ResidualError:  # there is none yet, or it is no manifest any more
        with suppress(ResidualError):  # a closed cache folder does no harm
            now.keep(path)
        return
    now.check(
        kept, f"the manifest of when it was first built (delete '{path}' if this is the state you want)"
    )


def _kept_checksum(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8") as file:
            line = re.search(r'^ "checksum": "([0-9a-f]{64})"', file.read(4096), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return line[1] if line else None
