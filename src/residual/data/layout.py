"""How a user's folder is laid out: which folders are splits, and what is made where some are missing."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from residual.data.listing import LAYOUT, Listing, Pictures, few, folders
from residual.data.splits import ALL, SPLITS, split_of_name
from residual.errors import ResidualError, UnderstoodWarning, printable
from residual.texts import folded

_known: ContextVar[dict[Path, Layout] | None] = ContextVar("layouts", default=None)


@dataclass(frozen=True)
class Layout:
    """The pictures of each split that has a folder, or of a single part, named `ALL`.

    Args:
        given: pairs of a class folder and a file, by split.
        notes: what there is to say of it, in sentences.
        taken: the folder that parts are made of, if it is one.
    """

    given: Mapping[str, Pictures]
    notes: tuple[str, ...] = ()
    taken: str = ""

    def divided(self, where: str, sizes: Mapping[str, int]) -> str:
        """What is made of what, in a sentence.

        Args:
            where: the folder, as others may know it.
            sizes: of each split.
        """
        train, val, test = (f"{sizes[split]:,} {split}" for split in SPLITS)
        of = f"its folder {self.taken!r}" if self.taken else "its class folders"
        what = f"{of} split into train, val and test" if ALL in self.given else f"val a fifth of {of}"
        return (
            f"{where} has {what}, at random, in every class alike and the same every time: {train}, {val} "
            f"and {test} pictures."
        )


def layout_of(root: Path) -> Layout:
    """List a folder, and find out how it is laid out; what is left out is warned of.

    Raises:
        ResidualError: what is meant isn't clear, or a class has no picture.
    """
    known = _known.get()
    if known is not None and root in known:
        return known[root]
    found = Listing(root)
    layout = _read_layout(found)
    found.tell()
    if known is not None:
        known[root] = layout
    return layout


@contextmanager
def listed_once() -> Generator[None]:
    """Inside of it, folders are listed once, however many of their splits are loaded."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def _read_layout(found: Listing) -> Layout:
    root, inside = found.root, folders(found.root)
    meant: dict[str, list[str]] = {}
    flat = []  # of a split's name, without folders of classes
    for folder in inside:
        if split := split_of_name(folder):
            meant.setdefault(split, []).append(folder) if folders(root / folder) else flat.append(folder)
    of_splits = {split: _one(root, split, meant[split]) for split in SPLITS if split in meant}
    others = [name for name in inside if name not in of_splits.values()]
    if not of_splits and not (len(flat) > 1 and set(flat) == set(inside)):
        given = {ALL: found.images()}
        return Layout(given, _nested(found))
    if of_splits.keys() <= {"train"} or "train" not in of_splits:
        _refuse_doubt(root, of_splits, flat, others)
    found.beside()
    found.leave_out([name for name in others if name not in flat])
    for name in flat:
        if not found.beside(name):
            found.leave_out([name])
    pictures = {split: found.images(folder) for split, folder in of_splits.items()}
    _check_classes(root, of_splits, pictures)
    notes = [
        f"{folder!r} is taken for {split}."
        for split, folder in of_splits.items()
        if folder != split and {*of_splits} != {"train", "val"}
    ]
    if {*of_splits} == {"train"}:
        return Layout({ALL: pictures["train"]}, (*notes, *_nested(found)), of_splits["train"])
    if "test" not in pictures:
        pictures["test"] = pictures.pop("val")
        told = (
            f"Image folder '{root}' has no folder of test pictures: those of {of_splits['val']!r} are test, "
            f"and what is chosen is chosen by a fifth of {of_splits['train']!r}."
        )
        warnings.warn(printable(told), UnderstoodWarning, stacklevel=7)
    return Layout(pictures, (*notes, *_nested(found)), of_splits["train"])


def _one(root: Path, split: str, names: list[str]) -> str:
    """Of several folders of one meaning, that of the very name."""
    if len(names) > 1 and split not in names:
        raise ResidualError(
            f"Folders {' and '.join(map(repr, names))} of '{root}' all seem to be {split}: call the one that "
            f"is meant {split!r}."
        )
    return split if split in names else names[0]


def _refuse_doubt(root: Path, of_splits: Mapping[str, str], flat: list[str], others: list[str]) -> None:
    """Refuse folders that may be splits or classes, and splits without train.

    Raises:
        ResidualError: it is so.
    """
    more = [name for name in others if name not in flat]
    if not of_splits or ("train" not in of_splits and not others):
        there = " and ".join(map(repr, of_splits.values() or flat))
        what = "no train" if of_splits else "no class folders in them"
        raise ResidualError(f"Image folder '{root}' has {there} but {what}. {LAYOUT}")
    if "train" in of_splits and not more:
        return
    folder = next(iter(of_splits.values()))
    raise ResidualError(
        f"Folder {folder!r} of '{root}' has folders in it, as a split has; beside it are "
        f"{few(others, 3)}: whether it is a split or a class isn't clear. Name the folder "
        f"'{root / folder}' to have its classes; or, if it is a class, put its pictures right into it."
    )


def _check_classes(root: Path, of_splits: Mapping[str, str], pictures: Mapping[str, Pictures]) -> None:
    """Refuse splits of different classes.

    Raises:
        ResidualError: they are; names them.
    """
    classes = {split: {folded(label): label for label, _ in files} for split, files in pictures.items()}
    for other in pictures:
        train, own = classes["train"], classes[other]
        only = sorted(train[key] for key in train.keys() - own.keys())
        more = sorted(own[key] for key in own.keys() - train.keys())
        odd = [
            f"only in {of_splits[split]}: {few(names)}"
            for split, names in (("train", only), (other, more))
            if names
        ]
        if odd:
            cases = {name.casefold(): name for name in more}
            pairs = [f"{name!r} and {cases[name.casefold()]!r}" for name in only if name.casefold() in cases]
            told = (
                f" {', '.join(pairs[:3])} differ in small and capital letters alone: rename one."
                if pairs
                else ""
            )
            raise ResidualError(
                f"The class folders of '{root / of_splits['train']}' and '{root / of_splits[other]}' "
                f"disagree ({'; '.join(odd)}). Give every split the same class folders, each with at least "
                f"one image.{told}"
            )


def _nested(found: Listing) -> tuple[str, ...]:
    """What there is to say of folders inside of class folders."""
    if not found.nested:
        return ()
    count, inside = sum(found.nested.values()), sorted(found.nested)
    return (f"{count:,} pictures in folders inside of class folders are of that class, as {few(inside, 2)}.",)
