"""How what the library writes is known again: by what is in a file, never by its name alone.

`RESULTS` and `_JSON`, `_OF_TENSORS` and the marks in `identify` are for files, `TRAINING` to `FIGURES` for
folders.
What can't be told to be the library's own counts as somebody else's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residual.errors import ResidualError
from residual.files import is_partial, read_regular

MADE_BY = "residual-vit"  # what pages and figures note
_MOST = 2**28  # bytes of JSON that are looked through

BASES, MOMENTS, LINEARIZATION = "bases", "moments of a part", "a linearization"
RUN_PAGE, HEADS_PAGE, SUITE_TABLE = "the page of a run", "a page of heads", "the table of a suite"
EXPLORED_PAGE = "an exported page of the explorer"
FIGURE, ONNX, CARD, CONFIG = "a figure", "an encoder as ONNX", "a model card", "the config of an adapter"
MANIFEST, STORE_MANIFEST = "the manifest of a split", "the manifest of a store"
_WEIGHTS, _CHECKPOINT = "the weights of an adapter", "a checkpoint"
_OF_TENSORS = {
    "bases": BASES,
    "moments": MOMENTS,
    "linearization": LINEARIZATION,
    "adapted encoder": _WEIGHTS,
    "checkpoint": _CHECKPOINT,
}
# The result of each job as JSON, and fields by which it is known: of a list, those of its first entry.
RESULTS = {
    "run": "the result of a run",
    "train": "the result of a training",
    "evaluate": "the result of an evaluation",
    "encode": "the result of encoding",
    "bases": "the result of fitting bases",
    "analyze": "the result of an analysis",
    "heads": "the result of comparing heads",
    "describe": "the result of describing heads",
    "map": "maps of pictures",
    "verify": "the result of verifying",
    "experiment": "the result of an experiment",
    "encoders": "facts of encoders",
    "datasets": "facts of datasets",
    "settings": "a list of settings",
}
_JSON: list[tuple[str, set[str]]] = [
    (CONFIG, {"method", "encoder", "adapter", "trained_weights"}),
    (STORE_MANIFEST, {"format", "encoder", "dataset", "settings", "files"}),
    (MANIFEST, {"format", "name", "split", "class_names", "samples"}),
    (RESULTS["train"], {"method", "kept_seed", "per_seed", "accuracy"}),
    (RESULTS["evaluate"], {"adapter", "method", "split", "per_class", "accuracy"}),
    (RESULTS["run"], {"encoder", "dataset", "accuracy", "per_seed", "parameters"}),
    (RESULTS["verify"], {"store", "samples", "damages"}),
    (RESULTS["encode"], {"dataset", "samples", "skipped", "images_per_second"}),
    (RESULTS["bases"], {"bases", "units", "components", "samples"}),
    (RESULTS["heads"], {"store", "rows", "scores", "selections"}),
    (RESULTS["describe"], {"store", "dictionary", "heads"}),
    (RESULTS["map"], {"encoder", "adapter", "scale", "mapped"}),
    (RESULTS["analyze"], {"store", "pooling", "units", "settings"}),
    (RESULTS["experiment"], {"experiment", "cells", "failed"}),
    (RESULTS["experiment"], {"encoders", "datasets", "bytes", "problems"}),  # of what it would take
    (RESULTS["encoders"], {"name", "family", "heads", "output_dim"}),
    (RESULTS["datasets"], {"name", "source", "licence", "classes"}),
    (RESULTS["settings"], {"name", "value", "default_from", "takes"}),
]


def identify(path: Path) -> tuple[str, str]:
    """What a file is, by what is in it: as one of the names above, or ""; and in words.

    Raises:
        OSError: it can't be read.
    """
    size = path.stat().st_size
    if not size:
        return "", "an empty file"
    head = read_regular(path, first=4096)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < min(size, _MOST):
        header = read_regular(path, first=8 + int.from_bytes(head[:8], "little"))[8:]
        notes = _parsed(header).get("__metadata__") or {}
        kind = next((_OF_TENSORS.get(key.removeprefix("residual."), "") for key in notes), "")
        return kind, kind or "a file of tensors"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        own = b"tEXtSoftware\0" + MADE_BY.encode() in head
        return (FIGURE, FIGURE) if own else ("", "a PNG picture")
    text = head.decode("utf-8", "replace").lstrip("\ufeff \n\r\t")
    if text.startswith(("{", "[")):
        value = _parsed(read_regular(path)) if size <= _MOST else {}
        kind = next((kind for kind, names in _JSON if names <= value.keys()), "")
        return kind, kind or "JSON of something else"
    if text[:15].lower().startswith(("<!doctype html", "<html")):
        marks = f'<meta name="generator" content="{MADE_BY}">', '<link rel="icon" href="data:,">'  # of 0.1
        made = any(mark in text for mark in marks)
        if not made:
            kind = ""
        elif EXPLORED_PAGE in text:
            kind = EXPLORED_PAGE
        else:
            kind = HEADS_PAGE if "<title>Heads of " in text else RUN_PAGE
        return kind, kind or "an HTML page"
    if "<svg" in text:
        return (FIGURE, FIGURE) if f"<dc:title>{MADE_BY}" in text else ("", "an SVG picture")
    if text.startswith("---") and f"library_name: {MADE_BY}" in text:
        return CARD, CARD
    if text.startswith("| dataset | classes | test pictures |"):
        return SUITE_TABLE, SUITE_TABLE
    if b"pytorch" in head[:64] and _holds(path, b"class_names"):
        return ONNX, ONNX
    return "", "a text" if "\0" not in text and "\ufffd" not in text[:-3] else "something else"


def _parsed(data: bytes) -> dict[str, Any]:
    """A JSON object, or the first one of a list; an empty one for what is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) else {}


def _holds(path: Path, what: bytes) -> bool:
    import mmap

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.rfind(what) >= 0


def kind_of(path: Path) -> str:
    """As `identify`; "" for what can't be read, too."""
    try:
        return identify(path)[0]
    except (OSError, ResidualError):  # a folder, a pipe, or closed
        return ""


_BEGUN = re.compile(r"(seed-[0-9]+/?)?(csv(/metrics\.csv)?|(tensorboard|wandb)(/.+)?)?")


@dataclass(frozen=True)
class FolderKind:
    """A product that is a folder.

    Args:
        what: it is, in words.
        found: whether a folder holds one.
        own: what the files in it are, by their kinds.
        beside: kinds of folder that may be the same one.
        goes_on: what is written into it again goes on where it was.
    """

    what: str
    found: Callable[[Path], bool]
    own: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    goes_on: bool = False


def trained(folder: Path) -> bool:
    """Whether trainings are in the folder, one a seed, or one; or the logs of some that were stopped before
    their first checkpoint."""
    names = [
        place / f"{name}.safetensors"
        for place in (folder, *sorted(folder.glob("seed-*")))
        for name in ("checkpoint", "finished")
    ]
    return any(kind_of(path) == _CHECKPOINT for path in names) or (
        folder.is_dir()
        and all(
            is_partial(path.name) or _BEGUN.fullmatch(path.relative_to(folder).as_posix())
            for path in folder.rglob("*")
        )
    )


def _any(folder: Path, kinds: tuple[str, ...], pattern: str = "*") -> bool:
    return any(kind_of(path) in kinds for path in sorted(folder.glob(pattern)))


TRAINING = FolderKind("a training", trained, goes_on=True)
STORE = FolderKind(
    "a store",
    lambda path: (
        (kind := kind_of(path / "manifest.json")) == STORE_MANIFEST
        or (not kind and (path / "receipts").is_dir())  # it is damaged
    ),
    goes_on=True,
)
ADAPTER = FolderKind(
    "an adapter",
    lambda path: (
        kind_of(path / "adapter_config.json") == CONFIG or kind_of(path / "adapter.safetensors") == _WEIGHTS
    ),
    own=(CARD, CONFIG, _WEIGHTS),
)
EXPERIMENT = FolderKind(
    "results of an experiment",
    lambda path: any(path.glob("*/*.parquet")) or any(path.glob("training/*/*/seed-*")),
    goes_on=True,
)
PAGES = FolderKind(
    "the page of a run",
    lambda path: _any(path, (RUN_PAGE,), "*.html"),
    own=(RUN_PAGE, SUITE_TABLE),
    beside=("figures",),
)
FIGURES = FolderKind(
    "figures", lambda path: _any(path, (FIGURE,), "*.[ps][nv]g"), (FIGURE,), (PAGES.what, "a training")
)
FOLDERS = (STORE, ADAPTER, TRAINING, EXPERIMENT, PAGES, FIGURES)
WELCOME = {FIGURE, *RESULTS.values()}  # in any folder
