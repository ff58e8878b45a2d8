"""A user's own images as a dataset: `folder:PATH`, class names from folder names."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np

from residual.data.dataset import OWN_LICENCE, FileDataset, file_content
from residual.data.kinds import HEAD, ending_of, is_hidden, kind_by_content, picture_endings, tells_nothing
from residual.data.splits import ALL, SPLITS, divided_part, rows_of_split
from residual.errors import LeftOutWarning, ResidualError, printable
from residual.files import local_path, read_regular, shareable
from residual.texts import folded, why_no_name

TEMPLATES = ("a photo of a {}", "a picture of a {}", "an image of a {}", "a {}", "{}")
LAYOUT = "Put images into PATH/CLASS/ or into PATH/train/CLASS/, PATH/val/CLASS/ and PATH/test/CLASS/."
_MEANT = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
_MEANT |= {split: split for split in SPLITS}


class FolderDataset(FileDataset):
    """One split of an image folder; `sample_ids` are the files' paths relative to the folder.

    Layouts: `PATH/train|val|test/CLASS/image`; the same without val, which is then 20 % of train; or
    `PATH/CLASS/image`, split 60/20/20. Splits made here keep the classes' proportions and never change
    (seed 42, files sorted by name). An image is what has an ending of a format that Pillow decodes, or that
    needs a plugin of it (HEIC), or begins as one where the ending is unknown or missing; copies and half
    downloads (`a.png~`, `a.jpg.part`) are none. Other files are left out, which a warning tells; hidden ones
    and those of systems (`Thumbs.db`, `__MACOSX`) are passed over.
    Links to files and folders are followed, out of the folder too; an image that is a link to nothing, a pipe
    or a device can't be read. Class folders of several splits whose names look the same are of one class.

    Raises:
        ResidualError: there is no such folder, it is laid out in another way, or a class has too few images.
    """

    def __init__(self, path: str | Path, split: str):
        self.root = root = local_path(path)
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "is not there"
            raise ResidualError(f"Image folder '{root}' {what}. {LAYOUT}")
        found = _Found(root)
        given = _given_parts(found)
        source, parts = divided_part(split, given)
        files = given[source]
        classes = sorted({label for label, _ in given.get("train", files)})
        names = _class_names(root, classes)
        number = {folded(label): index for index, label in enumerate(classes)}
        number = {label: number[folded(label)] for label, _ in files}
        labels = np.array([number[label] for label, _ in files], np.int64)
        rows = rows_of_split(labels, split, parts, f"'{root}'", classes)
        found.tell()
        super().__init__(
            f"folder:{path}",
            split,
            names,
            TEMPLATES,
            labels[rows],
            [files[row][1] for row in rows],
            OWN_LICENCE,
        )

    def content(self, index: int) -> bytes:
        """The bytes of sample `index`'s file."""
        sample = self.sample_ids[index]
        return file_content(self.root / sample, sample, self.where)

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
    folder_of: dict[str, str] = {}
    for folder in folders:
        if why := why_no_name(folder):
            raise ResidualError(f"The name of class folder {folder!r} of '{root}' {why}. Rename it.")
        name = " ".join(folder.replace("_", " ").replace("-", " ").split()) or folder
        if other := folder_of.get(folded(name)):
            raise ResidualError(
                f"Class folders {other!a} and {folder!a} of '{root}' have the same class name "
                f"{name!r}. Rename one, or put their images together."
            )
        folder_of[folded(name)] = folder
        names[name] = folder
    return list(names)


class _Found:
    """What is in a folder: its images, and what is left out."""

    def __init__(self, root: Path):
        self.root = root
        self._endings = picture_endings()
        self._no_pictures: list[str] = []
        self._no_class: list[str] = []
        self.unread_folders: list[str] = []

    def images(self, split: str = ALL) -> list[tuple[str, str]]:
        """The (class folder, path below the root) pairs of a split, sorted.

        Raises:
            ResidualError: there are none, or a class folder has none; or one is closed.
        """
        top = self.root / split
        inside = folders(top)
        pairs, empty = [], []
        for label in inside:
            files = self._of_class(os.path.join(split, label))
            pairs += [(label, file) for file in files]
            if not files:
                empty.append(label)
        if not pairs:
            raise ResidualError(f"No images in class folders of '{top}'. {LAYOUT}")
        if empty:
            raise ResidualError(
                f"Class folders of '{top}' without an image that can be read: {_few(empty)}. Put some there, "
                "or take such folders away."
            )
        self.beside(split)
        return pairs

    def beside(self, split: str) -> None:
        """Images beside class folders or the splits, which are in no class."""
        names = (name for name in _names(self.root / split)[1] if not is_hidden(name))
        self._no_class += [f"{split}/{n}".lstrip("/") for n in names if ending_of(n) in self._endings]

    def _of_class(self, folder: str) -> list[str]:
        """Images below a class folder, sorted; a closed one is an error, or they would be missing unsaid."""
        files = []
        for at, names in _walk(self.root / folder):
            below = os.path.relpath(at, self.root)
            for name in names:
                if not is_hidden(name):
                    file = os.path.join(below, name)
                    (files if self._is_picture(file) else self._no_pictures).append(file)
        files.sort(key=lambda file: os.path.normcase(file).split(os.sep))
        return [Path(file).as_posix() for file in files] if os.sep != "/" else files

    def _is_picture(self, file: str) -> bool:
        rest, ending = os.path.splitext(file)
        if ending.lower() in self._endings:
            return True
        if ending_of(rest) in self._endings or not tells_nothing(file):  # "a.png.1" is a copy
            return False
        try:
            return kind_by_content(read_regular(self.root / file, first=HEAD)) is not None
        except (OSError, ResidualError):
            return False

    def tell(self) -> None:
        """Warn of what is left out, once."""
        told = []
        if files := sorted(self._no_pictures):
            kinds = Counter(ending_of(file) or "no ending" for file in files).most_common(3)
            of_kinds = ", ".join(f"{count:,} with {kind}" for kind, count in kinds)
            told.append(
                f"files that aren't read as images, {len(files):,} ({of_kinds}), such as {_few(files, 2)}"
            )
        if files := sorted(self._no_class):
            told.append(f"images in no class folder, {len(files):,}, such as {_few(files, 2)}")
        if self.unread_folders:
            told.append(f"what is beside the splits in {_few(self.unread_folders)}")
        if told:
            text = printable(f"Image folder '{self.root}': left out are {'; '.join(told)}.")
            warnings.warn(text, LeftOutWarning, stacklevel=4)


def _given_parts(found: _Found) -> dict[str, list[tuple[str, str]]]:
    """The (class folder, file) pairs of every split that has a folder, or of all there is."""
    root = found.root
    inside = folders(root)
    for folder in inside:
        meant = _MEANT.get(folder.casefold())
        if meant and meant != folder and not (root / meant).is_dir() and folders(root / folder):
            raise ResidualError(f"Folder {folder!r} of '{root}' seems to be a split: call it {meant!r}.")
    present = [split for split in SPLITS if (root / split).is_dir()]
    if absent := [repr(split) for split in ("train", "test") if split not in present]:
        if present and len(inside) == len(present):
            raise ResidualError(
                f"Image folder '{root}' has {' and '.join(map(repr, present))} but no "
                f"{' and no '.join(absent)}. {LAYOUT}"
            )
        return {ALL: found.images()}
    found.beside(ALL)
    renamed = {*present} - {*inside}  # of a disk on which "Train" is "train", too
    found.unread_folders = [name for name in inside if name not in present and name.casefold() not in renamed]
    given = {split: found.images(split) for split in present}
    classes = {split: {folded(label): label for label, _ in files} for split, files in given.items()}
    for other in present:
        odd = []
        for side, against in (("train", other), (other, "train")):
            if names := sorted(classes[side][key] for key in classes[side].keys() - classes[against].keys()):
                odd.append(f"only in {side}: {_few(names)}")
        if odd:
            raise ResidualError(
                f"The class folders of '{root}/train' and '{root}/{other}' disagree ({'; '.join(odd)}). "
                "Give every split the same class folders, each with at least one image."
            )
    return given


def folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; without those that aren't the user's."""
    return [name for name in _names(folder)[0] if not is_hidden(name)]


def _names(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the other files in a folder, sorted."""
    try:
        with os.scandir(folder) as entries:
            # Where a class folder would be, a link to nothing is one whose images are missing.
            pairs = sorted((entry.name, entry.is_dir() or _leads_nowhere(entry)) for entry in entries)
    except OSError as problem:
        _refuse(problem)
    return [name for name, is_folder in pairs if is_folder], [n for n, is_folder in pairs if not is_folder]


def _walk(top: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder from `top` down once, with the names of its files; links to folders come last.

    A link to a folder that `top` is in leads round in a ring, and isn't gone through.
    """
    seen: set[tuple[int, int]] = set()
    for parent in filter(os.path.exists, Path(os.path.realpath(top)).parents):
        _is_new(parent, seen)
    waiting = [str(top)]
    while waiting:
        start = waiting.pop(0)
        if _is_new(start, seen):
            for at, inside, names in os.walk(start, onerror=_refuse):
                paths = {name: os.path.join(at, name) for name in sorted(inside) if not is_hidden(name)}
                links = {path for path in paths.values() if os.path.islink(path)}
                waiting += sorted(links)
                inside[:] = [
                    name for name, path in paths.items() if path not in links and _is_new(path, seen)
                ]
                yield at, names


def _is_new(folder: str | Path, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder isn't among those seen yet; from now on it is."""
    try:
        about = os.stat(folder)
    except OSError as problem:
        _refuse(problem)
    before = len(seen)
    seen.add((about.st_dev, about.st_ino))
    return len(seen) > before


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path) and ending_of(entry.name) == ""


def _refuse(problem: OSError) -> NoReturn:
    folder = problem.filename
    if os.path.islink(folder) and not os.path.exists(folder) and not isinstance(problem, PermissionError):
        raise ResidualError(
            f"The link '{folder}' leads nowhere: to '{os.readlink(folder)}' ({problem.strerror}).",
            "Mend or remove it, or mount what it leads to.",
        ) from problem
    raise ResidualError(f"Folder '{folder}' can't be read: {problem.strerror}.") from problem


def _few(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
