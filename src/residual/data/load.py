"""Datasets by name, and the manifests that a split is compared with."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from residual.data.dataset import SPLITS, ImageDataset
from residual.data.folder import FolderDataset
from residual.data.hub import hub_entries, load_hub, load_table
from residual.data.manifest import Manifest
from residual.data.mixed import MixedDataset
from residual.data.random import RandomDataset
from residual.data.suite import load_suite, suite_names
from residual.errors import ResidualError, unknown_name
from residual.files import cache_folder, safe_name

FORMS = {
    "folder:PATH": "images in PATH/CLASS/, or in PATH/train/CLASS/, PATH/val/CLASS/ and PATH/test/CLASS/",
    "disk:PATH": "a Dataset or DatasetDict that save_to_disk of the datasets library wrote",
    "hf:REPO": "a repository of the hub with a column of images and one of labels; also hf:REPO@REVISION and "
    "hf:REPO:CONFIG",
    "wds:SHARDS": "webdataset shards: a folder with train/*.tar and test/*.tar, or shards/{000..012}.tar",
}

_MADE = {"mixed": MixedDataset, "random": RandomDataset}


def dataset_names() -> tuple[str, ...]:
    """The ten datasets of the offline suite; `load_dataset` also takes those of `hub_dataset_names`."""
    return suite_names()


def hub_dataset_names() -> tuple[str, ...]:
    """The datasets of the paper's suite, which come from the hub; 'mnist-full' is its MNIST."""
    return tuple(hub_entries())


def load_dataset(
    name: str,
    split: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    manifest: str | Path | None = None,
) -> ImageDataset:
    """One split ("train", "val" or "test") of a dataset.

    A split is the same every time: a manifest (ids and labels) is kept in the cache folder when one is first
    built, and compared from then on, for all but the user's own files. For those (`folder:`, `disk:` and
    `wds:`) a `manifest-SPLIT.json` beside them is compared. Images aren't read for that:
    `Manifest.of(dataset, contents=True)` does.

    Args:
        name: of the offline suite (`dataset_names`), the paper's suite (`hub_dataset_names`), "mixed",
            "random", "folder:PATH", "disk:PATH", "hf:REPO", "hf:REPO@REVISION", "hf:REPO:CONFIG" or
            "wds:SHARDS".
        split: which part.
        image_column, label_column: of `hf:` and `disk:`, where the columns can't be told.
        manifest: a file that the split must agree with.

    Raises:
        ResidualError: a name or split that isn't there (with the nearest that are), a source that is gone
            (with where else it may be) or can't be used, or another manifest.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    form, colon, address = name.partition(":")
    form = form if colon else ""
    if (image_column or label_column) and form not in ("hf", "disk"):
        raise ResidualError(f"Only hf: and disk: have columns to choose from, not {name!r}.")
    dataset = _load(name, form, address, split, image_column, label_column)
    if form in ("folder", "disk", "wds"):
        beside = Path(address).expanduser() / f"manifest-{split}.json"
        if beside.is_file():
            Manifest.of(dataset).check(
                Manifest.load(beside), f"the manifest '{beside}' (delete it if this is the state you want)"
            )
    else:
        columns = [f"{column}" for column in (image_column, label_column) if column]
        _compare_with_kept(dataset, "-".join([name, *columns]))
    if manifest is not None:
        Manifest.of(dataset).check(Manifest.load(manifest), f"the manifest '{manifest}'")
    return dataset


def _load(
    name: str, form: str, address: str, split: str, image: str | None, label: str | None
) -> ImageDataset:
    if form == "folder":
        if not address:
            raise ResidualError("'folder:' needs a path after it, as in folder:photos/birds.")
        return FolderDataset(address, split)
    if form in ("hf", "disk"):
        return load_table(name, split, image, label)
    if form == "wds":
        from residual.data.shards import ShardsDataset

        return ShardsDataset(address, split)
    if name in suite_names():
        return load_suite(name, split)
    if name in hub_entries():
        return load_hub(name, split)
    if name in _MADE:
        return _MADE[name](split)
    known = [*suite_names(), *hub_entries(), *_MADE, *FORMS]
    raise unknown_name("dataset", name, known)


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
    except ResidualError:  # there is none yet, or it is no manifest any more
        with suppress(ResidualError):  # a closed cache folder does no harm
            now.save(path)
        return
    now.check(
        kept, f"the manifest of when it was first built (delete '{path}' if this is the state you want)"
    )


def _kept_checksum(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8") as file:
            found = re.search(r'^ "checksum": "([0-9a-f]{64})"', file.read(4096), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return found[1] if found else None
