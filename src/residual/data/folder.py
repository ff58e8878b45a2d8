"""A user's own images as a dataset: `folder:PATH`, class names from folder names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import numpy as np

from residual.data.dataset import OWN_LICENCE, FileDataset, file_content
from residual.data.splits import ALL, SPLITS, divided_part, rows_of_split
from residual.errors import ResidualError
from residual.files import local_path, shareable

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
TEMPLATES = ("a photo of a {}", "a picture of a {}", "an image of a {}", "a {}", "{}")
LAYOUT = "Put images into PATH/CLASS/ or into PATH/train/CLASS/, PATH/val/CLASS/ and PATH/test/CLASS/."
_MEANT = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
_MEANT |= {split: split for split in SPLITS}


class FolderDataset(FileDataset):
    """One split of an image folder; `sample_ids` are the files' paths relative to the folder.

    Layouts: `PATH/train|val|test/CLASS/image`; the same without val, which is then 20 % of train; or
    `PATH/CLASS/image`, split 60/20/20. Splits made here keep the classes' proportions and never change
    (seed 42, files sorted by name). Hidden files and folders are skipped, and so is what is no image by name.
    Links to files are followed, out of the folder too; one to nothing, a pipe or a device is a sample that
    can't be read.

    Raises:
        ResidualError: there is no such folder, it is laid out in another way, or a class has too few images.
    """

    def __init__(self, path: str | Path, split: str):
        self.root = root = local_path(path)
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "is not there"
            raise ResidualError(f"Image folder '{root}' {what}. {LAYOUT}")
        given = _given_parts(root)
        source, parts = divided_part(split, given)
        files = given[source]
        classes = sorted({label for label, _ in given.get("train", files)})
        names = _class_names(root, classes)
        number = {label: index for index, label in enumerate(classes)}
        labels = np.array([number[label] for label, _ in files], np.int64)
        rows = rows_of_split(labels, split, parts, f"'{root}'", classes)
        self._files = [files[row][1] for row in rows]
        super().__init__(
            f"folder:{path}",
            split,
            names,
            TEMPLATES,
            labels[rows],
            [file.relative_to(root).as_posix() for file in self._files],
            OWN_LICENCE,
        )

    def content(self, index: int) -> bytes:
        """The bytes of sample `index`'s file."""
        return file_content(self._files[index], self.sample_ids[index], self.where)

    @property
    def where(self) -> str:
        """Named in errors."""
        return shareable(self.name)


def _class_names(root: Path, folders: list[str]) -> list[str]:
    if len(folders) == 1:
        raise ResidualError(
            f"Image folder '{root}' has only one class, {folders[0]!r}; telling classes apart needs two or "
            f"more. {LAYOUT}"
        )
    names: dict[str, str] = {}
    for folder in folders:
        if not folder.isprintable():
            raise ResidualError(f"Class folder {folder!r} of '{root}' isn't readable as text. Rename it.")
        name = " ".join(folder.replace("_", " ").replace("-", " ").split()) or folder
        if name in names:
            raise ResidualError(
                f"Class folders {names[name]!r} and {folder!r} of '{root}' have the same class name "
                f"{name!r}. Rename one, or put their images together."
            )
        names[name] = folder
    return list(names)


def _given_parts(root: Path) -> dict[str, list[tuple[str, Path]]]:
    """The (class folder, file) pairs of every split that has a folder, or of all there is."""
    for folder in _folders(root):
        meant = _MEANT.get(folder.name.casefold())
        if meant and meant != folder.name and not (root / meant).is_dir() and _folders(folder):
            raise ResidualError(f"Folder {folder.name!r} of '{root}' seems to be a split: call it {meant!r}.")
    present = [split for split in SPLITS if (root / split).is_dir()]
    if absent := [repr(split) for split in ("train", "test") if split not in present]:
        if present and len(_folders(root)) == len(present):
            raise ResidualError(
                f"Image folder '{root}' has {' and '.join(map(repr, present))} but no "
                f"{' and no '.join(absent)}. {LAYOUT}"
            )
        return {ALL: _images(root)}
    given = {split: _images(root / split) for split in present}
    classes = {split: {label for label, _ in files} for split, files in given.items()}
    for other in present:
        sides = {"train": classes["train"] - classes[other], other: classes[other] - classes["train"]}
        if odd := [f"only in {side}: {_few(sorted(names))}" for side, names in sides.items() if names]:
            raise ResidualError(
                f"The class folders of '{root}/train' and '{root}/{other}' disagree ({'; '.join(odd)}). "
                "Give every split the same class folders, each with at least one image."
            )
    return given


def _images(folder: Path) -> list[tuple[str, Path]]:
    """The (class, file) pairs below `folder/CLASS/`, sorted."""
    files = [
        (sub.name, file)
        for sub in _folders(folder)
        for file in _files(sub)
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        kinds = ", ".join(s[1:] for s in SUFFIXES)
        raise ResidualError(f"No images ({kinds}) in class folders of '{folder}'. {LAYOUT}")
    return files


def _files(folder: Path) -> list[Path]:
    """All below a folder, sorted; one that is closed is an error, or its images would be missing unsaid."""
    files: list[Path] = []
    for at, inside, names in os.walk(folder, onerror=_refuse):
        inside[:] = [name for name in inside if not name.startswith(".")]
        files += [Path(at, name) for name in names]
    return sorted(files)


def _folders(folder: Path) -> list[Path]:
    try:
        inside = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError as problem:
        _refuse(problem)
    return sorted(p for p in inside if p.name != "lost+found")  # every ext4 disk has one, closed


def _refuse(problem: OSError) -> NoReturn:
    raise ResidualError(f"Folder '{problem.filename}' can't be read: {problem.strerror}.") from problem


def _few(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
