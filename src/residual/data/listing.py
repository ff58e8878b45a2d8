"""What is in a user's folder: the pictures of every class, and what is left out, by reason.

Each folder is listed once, and a file is opened only where its ending says nothing.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from residual.data.kinds import (
    ARCHIVES,
    HEAD,
    PLUGINS,
    ending_of,
    is_hidden,
    kind_by_content,
    lacking_plugin,
    may_lie,
    picture_endings,
    tells_nothing,
)
from residual.errors import LeftOutWarning, ResidualError, printable
from residual.files import read_regular

LAYOUT = "Put images into PATH/CLASS/ or into PATH/train/CLASS/, PATH/val/CLASS/ and PATH/test/CLASS/."
_OTHERS = "files that aren't read as images"
_IN_NO_CLASS = "images in no class folder"
_PACKED = "archives, whose pictures aren't looked for"
# Why something is left out, in the order in which it is told, and how many of it are named.
_REASONS = {
    _OTHERS: 2,
    _PACKED: 2,
    "empty files": 2,
    "what is hidden or left by a system": 1,
    _IN_NO_CLASS: 2,
    "what is beside the splits": 5,
}
_, _, _EMPTY, _HIDDEN, _, _BESIDE = _REASONS
Pictures = list[tuple[str, str]]  # pairs of a class folder and a file's path below the root


class Listing:
    """The pictures of a folder, listed split by split.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path):
        self.root = root
        self.nested: Counter[str] = Counter()  # pictures in folders inside of class folders
        self._endings = picture_endings()
        self._left_out: dict[str, list[str]] = {reason: [] for reason in _REASONS}
        self._of_plugins: dict[str, list[str]] = {}

    def images(self, split: str = "") -> Pictures:
        """The pictures of a split's folder, or of the root, sorted.

        Raises:
            ResidualError: there are none, or a class folder has none; or one is closed.
        """
        top = self.root / split
        pairs, empty = [], {}
        for label in folders(top):
            files, others = self._of_class(os.path.join(split, label))
            pairs += [(label, file) for file in files]
            if not files:
                empty[label] = others
        if not pairs:
            told = _of_kinds([file for others in empty.values() for file in others])
            raise ResidualError(f"No images in class folders of '{top}'{told}. {LAYOUT}")
        if empty:
            named = ", ".join(f"{label!r}{_of_kinds(empty[label])}" for label in [*empty][:5])
            more = f" and {len(empty) - 5:,} more" if len(empty) > 5 else ""
            raise ResidualError(
                f"Class folders of '{top}' without an image that can be read: {named}{more}. Put some there, "
                "or take such folders away."
            )
        self.beside(split)
        return pairs

    def beside(self, split: str = "") -> list[str]:
        """Note the pictures and the archives beside class folders or splits, which are in no class.

        Returns:
            The pictures.
        """
        names = [
            f"{split}/{name}".lstrip("/") for name in _names(self.root / split)[1] if not is_hidden(name)
        ]
        pictures = [name for name in names if ending_of(name) in self._endings]
        self._left_out[_IN_NO_CLASS] += pictures
        self._left_out[_PACKED] += [name for name in names if ending_of(name) in ARCHIVES]
        return pictures

    def leave_out(self, names: list[str]) -> None:
        """Note folders beside the splits."""
        self._left_out[_BESIDE] += names

    def _of_class(self, folder: str) -> tuple[list[str], list[str]]:
        """Pictures below a class folder, sorted, and other files that are the user's; a closed folder is an
        error, or its pictures would be missing unsaid."""
        files, others = [], []
        for at, names in self._walk(self.root / folder):
            below = os.path.relpath(at, self.root)
            before = len(files)
            for name in names:
                file = os.path.join(below, name)
                if is_hidden(name):
                    self._left_out[_HIDDEN].append(file)
                else:
                    (files if self._is_picture(file) else others).append(file)
            if below != folder and len(files) > before:
                self.nested[below] += len(files) - before
        if not files:  # their endings may lie, all of them
            files = [file for file in others if may_lie(file) and self._kind(file)]
            others = [file for file in others if file not in {*files}]
        for file in others:
            empty = tells_nothing(file) and self._is_empty(file)
            packed = ending_of(file) in ARCHIVES
            self._left_out[_EMPTY if empty else _PACKED if packed else _OTHERS].append(file)
        files.sort(key=lambda file: os.path.normcase(file).split(os.sep))
        return [Path(file).as_posix() for file in files] if os.sep != "/" else files, others

    def _is_picture(self, file: str) -> bool:
        rest, ending = os.path.splitext(file)
        ending = ending.lower()
        if ending in self._endings:
            if ending in PLUGINS:
                self._of_plugins.setdefault(PLUGINS[ending], []).append(file)
            return True
        if ending_of(rest) in self._endings or not tells_nothing(file):  # "a.png.1" is a copy
            return False
        return self._kind(file) is not None

    def _kind(self, file: str) -> str | None:
        try:
            return kind_by_content(read_regular(self.root / file, first=HEAD))
        except (OSError, ResidualError):
            return None

    def _is_empty(self, file: str) -> bool:
        try:
            return os.stat(self.root / file).st_size == 0 and os.path.isfile(self.root / file)
        except OSError:
            return False

    def tell(self) -> None:
        """Warn of what is left out, by reason, and of what needs a plugin that isn't there; once."""
        told = []
        for reason, files in self._left_out.items():
            if reason == _BESIDE and files:
                told.append(f"{reason} in {few(files)}")
            elif files:
                kinds = _of_kinds(files) if reason == _OTHERS else ""
                told.append(
                    f"{reason}, {len(files):,}{kinds}, such as {few(sorted(files), _REASONS[reason])}"
                )
        if told:
            _warn(f"Image folder '{self.root}': left out are {'; '.join(told)}.")
        for kind, files in self._of_plugins.items():
            if lacking := lacking_plugin(kind):
                _warn(
                    f"Image folder '{self.root}': {len(files):,} files can't be read, such as "
                    f"{few(sorted(files), 1)}: {lacking}."
                )

    def _walk(self, top: Path) -> Iterator[tuple[str, list[str]]]:
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
                    paths = {name: os.path.join(at, name) for name in sorted(inside)}
                    hidden = [paths.pop(name) for name in [*paths] if is_hidden(name)]
                    self._left_out[_HIDDEN] += [os.path.relpath(path, self.root) for path in hidden]
                    links = {path for path in paths.values() if os.path.islink(path)}
                    waiting += sorted(links)
                    inside[:] = [
                        name for name, path in paths.items() if path not in links and _is_new(path, seen)
                    ]
                    yield at, names


def folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; without those that aren't the user's."""
    return [name for name in _names(folder)[0] if not is_hidden(name)]


def few(names: list[str], most: int = 5) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _of_kinds(files: list[str]) -> str:
    """ " (3 with .txt, 1 with no ending)"; nothing of none."""
    kinds = Counter(ending_of(file) or "no ending" for file in files).most_common(3)
    return f" ({', '.join(f'{count:,} with {kind}' for kind, count in kinds)})" if files else ""


def _warn(text: str) -> None:
    warnings.warn(printable(text), LeftOutWarning, stacklevel=8)


def _names(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the other files in a folder, sorted."""
    try:
        with os.scandir(folder) as entries:
            # Where a class folder would be, a link to nothing is one whose images are missing.
            pairs = sorted((entry.name, entry.is_dir() or _leads_nowhere(entry)) for entry in entries)
    except OSError as problem:
        _refuse(problem)
    return [name for name, is_folder in pairs if is_folder], [n for n, is_folder in pairs if not is_folder]


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
