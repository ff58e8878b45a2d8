"""A user's own images as a dataset: `folder:PATH`, class names from folder names."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from residual.data.dataset import OWN_LICENCE, FileDataset, file_content
from residual.data.layout import layout_of
from residual.data.listing import LAYOUT
from residual.data.listing import folders as folders_in
from residual.data.splits import divided_part, rows_of_parts
from residual.errors import ResidualError, UnderstoodWarning, printable
from residual.files import local_path, shareable
from residual.texts import folded, why_no_name

TEMPLATES = ("a photo of a {}", "a picture of a {}", "an image of a {}", "a {}", "{}")


class FolderDataset(FileDataset):
    """One split of an image folder; `sample_ids` are the files' paths relative to the folder.

    Layouts: `PATH/train|val|test/CLASS/image`, by these names or others of that meaning (`training`, `valid`,
    `validation`, `dev`, `testing`), in any case; without val, which is then 20 % of train; without test, for
    which val is then taken, and 20 % of train for val; or `PATH/CLASS/image`, split 60/20/20. Splits made
    here keep the classes' proportions and never change (seed 42, files sorted by name); `notes` tell of them.

    An image is what has an ending of a format that Pillow decodes, or that needs a plugin of it (HEIC), or
    begins as one where the ending is unknown or missing, or where no file of a class has one of a picture;
    copies and half downloads (`a.png~`, `a.jpg.part`) are none. Other files are left out, which a warning
    tells by reason. Of several frames or pages the first is read.
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
        layout = layout_of(root)
        source, parts = divided_part(split, layout.given)
        files = layout.given[source]
        classes = sorted({label for label, _ in layout.given.get("train", files)})
        names = _class_names(root, classes)
        number = {folded(label): index for index, label in enumerate(classes)}
        number = {label: number[folded(label)] for label, _ in files}
        labels = np.array([number[label] for label, _ in files], np.int64)
        divided = rows_of_parts(labels, parts, f"'{root}'", classes)
        rows = divided[split]
        super().__init__(
            f"folder:{path}",
            split,
            names,
            TEMPLATES,
            labels[rows],
            [files[row][1] for row in rows],
            OWN_LICENCE,
        )
        self.notes = layout.notes
        if len(parts) > 1:
            sizes = {name: len(files) for name, files in layout.given.items()}
            sizes |= {name: len(chosen) for name, chosen in divided.items()}
            self.notes += (layout.divided(self.where, sizes),)

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
        inside = root / folders[0]
        deeper = inside.is_dir() and len(folders_in(inside)) > 1
        way_out = f"If they are in there, name '{inside}'." if deeper else LAYOUT
        raise ResidualError(
            f"Image folder '{root}' has only one class, {folders[0]!r}; telling classes apart needs two or "
            f"more. {way_out}"
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
    of_case: dict[str, str] = {}
    for name, folder in names.items():
        other = of_case.setdefault(name.casefold(), folder)
        if other != folder and len(name) > 1:  # "A" and "a" are letters
            told = (
                f"Class folders {other!r} and {folder!r} of '{root}' are taken for two classes, and differ "
                "in small and capital letters alone: put their images together if one is meant."
            )
            warnings.warn(printable(told), UnderstoodWarning, stacklevel=6)
    return list(names)
