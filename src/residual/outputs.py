"""What may be written where: nothing of somebody else's is replaced, and nothing of one's own unasked.

Every function that writes for a user, and every command before its work, asks here; `residual.products` says
what is found there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from residual.addresses import PROTOCOLS, READ_ONLY, check_address, check_reached, file_system
from residual.errors import AtWorkError, ExistingError, ForeignError, ResidualError
from residual.files import is_partial, local_path, make_folder, shareable
from residual.products import (
    ADAPTER,
    FOLDERS,
    PAGES,
    RUN_PAGE,
    SUITE_TABLE,
    WELCOME,
    FolderKind,
    identify,
    kind_of,
    trained,
)

_IGNORED = {".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep", "lost+found"}


@dataclass(frozen=True)
class Output:
    """One thing that is to be written.

    Args:
        option: that asks for it.
        path: where, or None where it isn't asked for.
        kind: of a file one of the names above, or a kind of folder.
        names: of the files in a folder that may be written.
        going_on: a training in the folder goes on.
    """

    option: str
    path: Path | None
    kind: str | FolderKind
    names: tuple[str, ...] = ()
    going_on: bool = False

    def check(self, overwrite: bool) -> Path | None:
        """`check_file` or `check_folder`."""
        if self.path is None:
            return None
        if isinstance(self.kind, str):
            return check_file(self.path, self.kind, overwrite)
        return check_folder(self.path, self.kind, overwrite, self.names, self.going_on)


def check_file(path: str | Path, kind: str, overwrite: bool = False) -> Path:
    """Find out before the long work whether a file of this kind may be written there; nothing is made.

    Args:
        path: of the file; one that is empty may be written to, as may a pipe or a device.
        kind: one of the names above.
        overwrite: whether an earlier one of the same kind may be replaced.

    Returns:
        the path, without `~`.

    Raises:
        ExistingError: there is an earlier one.
        ForeignError: there is something else.
        ResidualError: nothing can be written there.
    """
    path = _path_here(path)
    about = check_place(path)
    if about is None or not stat.S_ISREG(about.st_mode):
        return path
    with _place_errors(path):
        found, words = identify(path)
    if found == kind and not overwrite:
        raise ExistingError(f"{str(path)!r} is there already: {words}.")
    if about.st_size and found != kind:
        raise ForeignError(f"{str(path)!r} is {words}: it is no place for {kind}.")
    return path


def check_folder(
    folder: str | Path,
    kind: FolderKind,
    overwrite: bool = False,
    names: Sequence[str] = (),
    going_on: bool = False,
) -> Path:
    """Find out before the long work whether a product may be written into a folder; nothing is made.

    Args:
        folder: that is new or empty, or holds an earlier one.
        kind: of product.
        overwrite: whether an earlier one may be replaced; what else is in its folder stays.
        names: of the files in it that may be written.
        going_on: a training in the folder goes on.

    Returns:
        the path, without `~`.

    Raises:
        ExistingError: there is an earlier one.
        ForeignError: it holds something else.
        ResidualError: nothing can be written there.
    """
    folder = _path_here(folder)
    if check_place(folder, folder=True) is None:
        return folder
    with _place_errors(folder):
        entries = sorted(each for each in os.listdir(folder) if each not in _IGNORED and not is_partial(each))
    for other in FOLDERS if entries else ():
        if other is not kind and other.what not in kind.beside and other.found(folder):
            raise ForeignError(f"{str(folder)!r} holds {other.what}: it is no place for {kind.what}.")
    own = bool(entries) and kind.found(folder)
    taken = [name for name in names if os.path.lexists(folder / name)]
    others = [name for name in taken if kind_of(folder / name) not in kind.own]
    if not own:
        begun = kind is ADAPTER and "training" in entries and trained(folder / "training")
        if begun and not (going_on or overwrite):
            raise ExistingError(f"{str(folder)!r} holds a fine-tuning that hasn't come to its end.")
        others += [
            name
            for name in entries
            if not (name in others or (begun and name == "training") or _welcome(folder / name, kind))
        ]
    if others and not (own and kind.goes_on):
        raise ForeignError(f"{str(folder)!r} holds {listed(others)}: it is no place for {kind.what}.")
    if own and not overwrite and not kind.goes_on and (taken or not names):
        raise ExistingError(f"{str(folder)!r} holds {kind.what} already.")
    return folder


def _welcome(path: Path, kind: FolderKind) -> bool:
    return kind_of(path) in (WELCOME | {RUN_PAGE, SUITE_TABLE} if PAGES.what in kind.beside else WELCOME)


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    shown = [repr(name) for name in names[:3]]
    if len(names) > len(shown):
        shown = [*shown[:2], f"{len(names) - 2:,} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


@contextmanager
def claimed(path: str | Path, folder: bool = False) -> Generator[None]:
    """Keep a file, or a folder, for one process while it works; on a clean exit nothing is left of that.

    A process that is killed leaves a hidden file that nobody minds. Nothing is claimed on Windows, and on
    file systems that know no locks.

    Raises:
        AtWorkError: another process has it.
        ResidualError: nothing can be written there.
    """
    path = Path(path)
    if os.name != "posix" or (path.exists() and not path.is_dir() and not path.is_file()):
        yield  # a pipe or a device is nobody's
        return
    home, name = (path, "at-work") if folder else (path.parent, path.name[:50])
    made = [each for each in (home, *home.parents) if not each.exists()]
    with _place_errors(path):
        make_folder(home)
    claim = home / f".{name}.claim.partial"
    handle = -1
    try:
        handle = _locked(claim, path)
        yield
    finally:
        if handle >= 0:
            with suppress(OSError):
                claim.unlink()
            os.close(handle)
        for each in made:
            with suppress(OSError):  # something is in it
                each.rmdir()


def _locked(claim: Path, path: Path) -> int:
    """The claim as a file that this process alone has locked, and its number in it for others to tell."""
    import fcntl

    while True:
        with _place_errors(path):
            handle = os.open(claim, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            number = os.read(handle, 20).decode("ascii", "replace")
            os.close(handle)
            raise AtWorkError(f"Process {number} is writing to {str(path)!r} right now.") from error
        except OSError:  # no locks here
            return handle
        if os.fstat(handle).st_nlink:  # else its last owner took it away
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
            return handle
        os.close(handle)


def check_place(path: Path, folder: bool = False) -> os.stat_result | None:
    """What is at a path, if anything: a file, or a `folder`, can be written there, as far as is known.

    Raises:
        ResidualError: it can't.
    """
    with _place_errors(path):
        try:
            about = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            about = None
    if about is not None and stat.S_ISDIR(about.st_mode) != folder:
        raise ResidualError(
            f"{str(path)!r} can't be written: it is a folder, and a file is wanted."
            if not folder
            else f"{str(path)!r} can't be written: it is a file, and a folder is wanted."
        )
    if about is None and path.is_symlink():
        if folder:
            raise ResidualError(f"{str(path)!r} is a link to '{os.readlink(path)}', which isn't there.")
        path = path.resolve()
    place = path if about is not None and folder else path.parent
    there = next(each for each in _and_above(place) if os.path.lexists(each))
    if not there.is_dir():
        raise ResidualError(f"The folder {str(place)!r} can't be made: {str(there)!r} is no folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ResidualError(f"{str(path)!r} can't be written: the folder {str(there)!r} is closed to you.")
    return about


def _path_here(path: str | Path) -> Path:
    """A path on this machine, without `~`: an address, which a `Path` has lost a slash of, is none."""
    protocol, is_url, rest = os.fspath(path).partition(":/")
    if is_url and protocol in PROTOCOLS and not os.path.lexists(f"{protocol}:"):
        address = f"{protocol}://{rest.lstrip('/')}"
        raise ResidualError(
            f"{shareable(address)!r} is an address, and only stores are written to one.",
            "Give a path on this machine, and copy the file from there.",
        )
    return local_path(path)


def check_stores(place: str | Path) -> str | Path:
    """Find out before the long work whether stores can be kept in a folder or at an address; gives the
    folder without `~`, and the address as it is.

    Raises:
        ResidualError: they can't, as far as is known.
    """
    address = os.fspath(place)
    if (protocol := check_address(address)) is None:
        check_place(folder := local_path(place), folder=True)
        return folder
    if protocol in READ_ONLY:
        shown = shareable(address)
        raise ResidualError(f"Nothing can be written to {shown!r}: {protocol}:// is for reading.")
    if protocol == "file":
        check_place(Path(file_system(address)[1]), folder=True)
    else:
        check_reached(address)
    return address


def _and_above(place: Path) -> Iterator[Path]:
    yield place
    yield from place.parents
    yield Path(place.anchor or ".")


@contextmanager
def _place_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        why = "it is a link to itself" if error.errno == errno.ELOOP else error.strerror or str(error)
        raise ResidualError(f"{str(path)!r} can't be written: {why}.") from error
