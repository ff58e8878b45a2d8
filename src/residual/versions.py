"""Files of later versions of this library are told as such: never as damaged, never read in part.

Every kind of file notes the version of its writer as `"residual-vit": "0.2.0"` somewhere in its JSON. One of
a later version that is understood whole is read; whatever is wrong with another is told with that version.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from residual.errors import LaterVersionError, ResidualError, UnknownFieldsError
from residual.libraries import release, version_of

_NAME = "residual-vit"
_NOTED = re.compile(  # in a string of JSON, too; and Parquet has a few bytes between its keys and values
    rb'versions[^{}]{0,9}\{[^{}]{0,999}?"residual-vit\\*": ?\\*"(\d[0-9A-Za-z.+-]{0,30})\\*"'
)
_MOST_OF_HEAD, _MOST_OF_END = 2**24, 2**20  # bytes that are looked through: Parquet has its note at the end


def own_version() -> dict[str, str]:
    """What a file notes of its writer, under "versions"."""
    return {_NAME: version_of(_NAME)}


def check_fields(value: Mapping[str, Any], known: Collection[str], where: str | Path, what: str = "") -> None:
    """Refuse an object with fields that this version doesn't know.

    Args:
        value: of JSON.
        known: names of fields.
        where: the file, for the error.
        what: the object in it.

    Raises:
        LaterVersionError: it has others; names them. `told_by_version` knows whether it is of this version.
    """
    if unknown := sorted(map(str, value.keys() - set(known))):
        shown = ", ".join(repr(name[:40]) for name in unknown[:3])
        raise LaterVersionError(
            f"{where} has {shown}{f' in {what}' if what else ''}, which {_NAME} {version_of(_NAME)} doesn't "
            "know.",
            f"Remove that; or if a later version wrote it, install it: pip install -U {_NAME}.",
        )


@contextmanager
def told_by_version(where: str | Path, data: bytes | None = None) -> Generator[None]:
    """Whatever is wrong with a file is told as what it is: of a later version, if its writer noted one.

    Args:
        where: the file, for the error.
        data: its bytes; by default they are read there when something is wrong.

    Raises:
        LaterVersionError: in place of any `ResidualError` of a file that a later version wrote.
        UnknownFieldsError: in place of that of `check_fields`, where the version that wrote it is known.
    """
    try:
        yield
    except ResidualError as error:
        writer, own = _writer(_ends(where) if data is None else data), version_of(_NAME)
        if release(writer) > release(own) > ():
            raise LaterVersionError(
                f"{where} was written by {_NAME} {writer}, a later version than this one ({own}).",
                f"Install that: pip install '{_NAME}>={writer}'.",
            ) from error
        if isinstance(error, LaterVersionError) and () < release(writer) <= release(own):
            raise UnknownFieldsError(error.message, f"It is of {_NAME} {writer}: remove that.") from error
        raise


def _writer(data: bytes) -> str:
    """The latest version that is noted in the bytes of a file."""
    parts = (data,) if len(data) <= _MOST_OF_HEAD else (data[:_MOST_OF_HEAD], data[-_MOST_OF_END:])
    found = [noted.decode() for part in parts for noted in _NOTED.findall(part)]
    return max(found, key=release, default="")


def _ends(path: str | Path) -> bytes:
    """The beginning and the end of a file; nothing of what can't be read."""
    if not os.path.isfile(path):  # a pipe would wait
        return b""
    try:
        with open(path, "rb") as file:
            head = file.read(_MOST_OF_HEAD)
            file.seek(max(0, file.seek(0, 2) - _MOST_OF_END))
            return head + file.read(_MOST_OF_END)
    except OSError:
        return b""
