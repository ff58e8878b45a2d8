"""A user's own images as a dataset: `folder:PATH`, class names from folder names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import numpy as np

from residual.data.dataset import SPLITS, FileDataset, stratified_split
from residual.errors import ResidualError, UnreadableImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
TEMPLATES = ("a photo of a {}", "a picture of a {}", "an image of a {}", "a {}", "{}")
LAYOUT = "Put images into PATH/CLASS/ or into PATH/train/CLASS/, PATH/val/CLASS/ and PATH/test/CLASS/."


class FolderDataset(FileDataset):
    """One split of an image folder; `sample_ids` are the files' paths relative to the folder.

    Layouts: `PATH/train|val|test/CLASS/image`; the same without val, which is then 20 % of train; or
    `PATH/CLASS/image`, split 60/20/20. Splits made here keep the classes' proportions and never change
    (seed 42, files sorted by name). Hidden files and folders are skipped, and so is what is no image by name;
    a link to nothing is a sample that can't be read.
    """

    def __init__(self, path: str | Path, split: str):
        self.root = Path(path).expanduser()
        if not self.root.is_dir():
            what = "is a file, not a folder" if self.root.exists() else "is not there"
            raise ResidualError(f"Image folder '{self.root}' {what}. {LAYOUT}")
        classes, files = _split(self.root, split)
        self._files = [file for _, file in files]
        super().__init__(
            f"folder:{path}",
            split,
            _class_names(self.root, classes),
            TEMPLATES,
            np.array([classes.index(c) for c, _ in files], np.int64),
            [file.relative_to(self.root).as_posix() for file in self._files],
            "the user's own images; no licence known",
        )

    def content(self, index: int) -> bytes:
        """The bytes of sample `index`'s file."""
        try:
            return self._files[index].read_bytes()
        except OSError as problem:
            reason = f"{problem.strerror or problem}; folder '{self.root}'"
            raise UnreadableImageError(self.sample_ids[index], reason) from problem

    @property
    def where(self) -> str:
        """Named in errors."""
        return f"folder '{self.root}'"


def _class_names(root: Path, folders: list[str]) -> list[str]:
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


def _split(root: Path, split: str) -> tuple[list[str], list[tuple[str, Path]]]:
    """The class folders' names and the (class, file) pairs of one split."""
    near = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
    for folder in _folders(root):
        name = folder.name.casefold()
        meant = near.get(name, name if name in SPLITS else None)
        if meant and meant != folder.name and not (root / meant).is_dir() and _folders(folder):
            raise ResidualError(f"Folder {folder.name!r} of '{root}' seems to be a split: call it {meant!r}.")
    present = [s for s in SPLITS if (root / s).is_dir()]
    if "train" not in present or "test" not in present:
        if present and len(_folders(root)) == len(present):
            absent = " and no ".join(repr(s) for s in ("train", "test") if s not in present)
            raise ResidualError(
                f"Image folder '{root}' has {' and '.join(map(repr, present))} but no {absent}. {LAYOUT}"
            )
        files = _images(root, root)
        classes = sorted({c for c, _ in files})
        _check_counts(root, classes, files, 3, "train, val and test")
        parts = stratified_split(np.array([classes.index(c) for c, _ in files]))
        return classes, [files[i] for i in parts[SPLITS.index(split)]]

    found = {s: _images(root / s, root) for s in present}
    classes = sorted({c for c, _ in found["train"]})
    for other in present:
        here = {c for c, _ in found[other]}
        if here != set(classes):
            only_train, only_other = sorted(set(classes) - here), sorted(here - set(classes))
            details = [f"only in train: {_listed(only_train)}"] if only_train else []
            details += [f"only in {other}: {_listed(only_other)}"] if only_other else []
            raise ResidualError(
                f"The class folders of '{root}/train' and '{root}/{other}' disagree ({'; '.join(details)}). "
                "Give every split the same class folders, each with at least one image."
            )
    if "val" in present:
        _check_counts(root, classes, found["train"], 1, "train")
        return classes, found[split]
    _check_counts(root, classes, found["train"], 2, "train and val")
    if split == "test":
        return classes, found["test"]
    train, val = stratified_split(np.array([classes.index(c) for c, _ in found["train"]]), (0.8, 0.2))
    return classes, [found["train"][i] for i in (train if split == "train" else val)]


def _check_counts(root: Path, classes: list[str], files: list, least: int, parts: str) -> None:
    if len(classes) == 1:
        raise ResidualError(
            f"Image folder '{root}' has only one class, {classes[0]!r}; telling classes apart needs two or "
            f"more. {LAYOUT}"
        )
    for label in classes:
        count = sum(c == label for c, _ in files)
        if count < least:
            raise ResidualError(
                f"Class {label!r} of '{root}' has too few images to split: {count}, where {parts} need at "
                f"least {least}. Add images or remove the class."
            )


def _images(folder: Path, root: Path) -> list[tuple[str, Path]]:
    """The (class, file) pairs below `folder/CLASS/`, sorted."""
    files = [
        (sub.name, file)
        for sub in _folders(folder)
        for file in _files(sub)
        if file.suffix.lower() in SUFFIXES
        and (file.is_file() or (file.is_symlink() and not file.exists()))  # a dead link is named when read
        and not any(part.startswith(".") for part in file.relative_to(sub).parts)
    ]
    if not files:
        kinds = ", ".join(s[1:] for s in SUFFIXES)
        raise ResidualError(f"No images ({kinds}) in class folders of '{folder}'. {LAYOUT}")
    return files


def _files(folder: Path) -> list[Path]:
    """All below a folder, sorted; one that is closed is an error, or its images would be missing unsaid."""
    found: list[Path] = []
    for at, inside, names in os.walk(folder, onerror=_refuse):
        inside[:] = [name for name in inside if not name.startswith(".")]
        found += [Path(at, name) for name in names]
    return sorted(found)


def _folders(folder: Path) -> list[Path]:
    try:
        inside = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError as problem:
        _refuse(problem)
    return sorted(p for p in inside if p.name != "lost+found")  # every ext4 disk has one, closed


def _refuse(problem: OSError) -> NoReturn:
    raise ResidualError(f"Folder '{problem.filename}' can't be read: {problem.strerror}.") from problem


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
