"""Names of datasets as people write them: a path or a repository of the hub, without the form in front.

Only what a user gives comes here; what a file names is loaded by its very name, if it ships.
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Collection
from pathlib import Path

from residual.data.listing import few, folders
from residual.errors import ResidualError, UnderstoodWarning, printable, unknown_name
from residual.files import local_path

_PATH = re.compile(r"~|\.{1,2}([/\\]|$)|[/\\]|[A-Za-z]:[/\\]|.*[/\\]$|[^/]*\\")
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?(:[\w.-]+)?")
_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/datasets/([\w.-]+/[\w.-]+)/?")
_SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")  # by `save_to_disk`
_TABLES = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".json": "json", ".jsonl": "json"}
_PACKED = (".zip", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
_ARRAYS = (".npy", ".npz", ".h5", ".hdf5", ".mat", ".pt", ".pth", ".pkl", ".pickle", ".safetensors")


def full_name(name: str, known: Collection[str], forms: Collection[str]) -> str:
    """A dataset's name with its form in front, where there is no doubt what is meant.

    What is known by its name is that, whatever lies here. A path, and what is there, is a folder of pictures
    (`folder:`), a table that the `datasets` library saved (`disk:`) or shards (`wds:`). OWNER/NAME is a
    repository of the hub (`hf:`), if no folder OWNER is here.

    Args:
        name: as a user gives it.
        known: names that stand for themselves.
        forms: what may stand in front of a colon.

    Raises:
        ResidualError: it is none of these, may be one thing or another, or is a file that isn't read; says
            what to do.
    """
    if name in known or (":" in name and name.partition(":")[0] in forms):
        return name
    if page := _PAGE.fullmatch(name):
        return f"hf:{page[1]}"
    if name.endswith(".tar") and ("://" in name or "{" in name or "*" in name):
        return f"wds:{name}"
    if _PATH.match(name) or os.path.lexists(name):
        return _of_place(name)
    _refuse_file(name)
    if _REPOSITORY.fullmatch(name):
        owner = name.partition("/")[0]
        if os.path.isdir(owner):
            raise ResidualError(
                f"{name!r} is no folder here, but {owner!r} is one ({_there(Path(owner))}).",
                f"Name a folder that is there; a repository of the hub is 'hf:{name}'.",
            )
        return f"hf:{name}"
    here = difflib.get_close_matches(name, folders(Path()), n=2, cutoff=0.6)
    raise unknown_name("dataset", name, [*known, *(f"{form}:…" for form in forms), *here])


def tell_namesake(name: str) -> None:
    """Warn where a folder of pictures has the name of a dataset that is known by it."""
    if os.path.isdir(name) and folders(Path(name)):
        told = f"{name!r} is the dataset known by that name; the folder here is 'folder:{name}'."
        warnings.warn(printable(told), UnderstoodWarning, stacklevel=3)


def _of_place(name: str) -> str:
    """A folder or a file of this machine, by what is in it."""
    path = local_path(name)
    if not path.is_dir():
        _refuse_file(name)
        if path.suffix == ".tar":
            return f"wds:{name}"
        if path.exists():
            raise ResidualError(
                f"{name!r} is a file, and no dataset.", "Name the folder whose sub-folders are classes."
            )
        raise ResidualError(f"There is no folder {name!r} ({_there(path.parent, path.name)}).")
    if any((path / file).is_file() for file in _SAVED):
        return f"disk:{name}"
    if any(path.glob("train/*.tar")):
        return f"wds:{name}"
    if any(path.glob("*.tar")) and not folders(path):
        return f"wds:{name.rstrip('/')}/*.tar"
    return f"folder:{name}"


def _refuse_file(name: str) -> None:
    """Say what to do with a file that can't be read as it is.

    Raises:
        ResidualError: the name is of such a file.
    """
    path, ending = Path(name), os.path.splitext(name)[1].lower()
    lower = name.lower()
    if os.path.isdir(name):
        return
    if ending in _TABLES:
        way = (
            "Save it as one that is read, with the datasets library: "
            f"Dataset.from_{_TABLES[ending]}({name!r}).cast_column('image', Image())"
            f".save_to_disk({path.stem!r}), 'image' being its column of files; then name 'disk:{path.stem}'."
        )
    elif lower.endswith(_PACKED):
        way = "Unpack it, and name the folder: 'folder:PATH'."
    elif ending in _ARRAYS:
        way = "Arrays are given from Python: `encode_dataset` takes them."
    else:
        return
    is_here = os.path.exists(name)
    what = "is a file that isn't read as a dataset" if is_here else "would be a file, and isn't here"
    raise ResidualError(f"{name!r} {what}.", way)


def _there(folder: Path, name: str = "") -> str:
    """What there is in a folder, the nearest to a name first."""
    try:
        inside = folders(folder)
    except ResidualError:
        return f"nor {str(folder)!r}"
    near = difflib.get_close_matches(name, inside, n=3, cutoff=0.5)
    where = f"in {str(folder.absolute())!r}"
    if near:
        return f"did you mean {' or '.join(map(repr, near))}, {where}?"
    return f"{where} are {few(inside, 3)}" if inside else f"{where} are none"
