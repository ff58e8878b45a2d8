"""Libraries that may or may not be installed: their versions, and what they say in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from importlib.util import find_spec
from pathlib import Path
from socket import gaierror
from typing import Any

from residual.errors import ResidualError, is_out_of_memory

_DISTRIBUTIONS = {
    "open_clip": "open_clip_torch",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}  # where they have other names than modules

_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


def lazily(package: str, modules: Sequence[str], names: Sequence[str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose public names are looked for in its modules, one after another, and
    only when they are used: what is light stands first.

    Args:
        package: its `__name__`.
        modules: those that hold a public name.
        names: its `__all__`.
    """

    def found(name: str) -> Any:
        for module in modules if name in names else ():
            loaded = import_module(f"{package}.{module}")
            if hasattr(loaded, name):
                return getattr(loaded, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return found


def library(module: str, name: str, extra: str) -> Any:
    """An optional library.

    Args:
        module: to import.
        name: of what needs it, for errors.
        extra: of this package, that it comes with.

    Raises:
        ResidualError: it isn't installed, can't be imported, is older than what `extra` asks for, or hidden
            by something else of its name; says which, and the way out.
    """
    top, install = module.partition(".")[0], f"'residual-vit[{extra}]'"
    try:
        whole, found = import_module(top), import_module(module)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise unusable(top, name, install, error) from error
    held = getattr(whole, "__version__", None)
    if held is None and (other := _other(top)):
        raise ResidualError(_hidden(top, name, repr(other)), _way_round(top, install))
    if old := _too_old(top, held if isinstance(held, str) else version_of(_distribution(top))):
        raise ResidualError(f"{name} needs {top} {old}: pip install -U {install}.")
    return found


def unusable(module: str, name: str, install: str, error: BaseException) -> ResidualError:
    """The error for a library whose import failed: it isn't there, or is there and broken, too old or hidden.

    Args:
        module: of the library, the outermost.
        name: of what needs it.
        install: what `pip install` takes.
        error: of the import.
    """
    if isinstance(error, ModuleNotFoundError) and error.name == module:
        return ResidualError(f"{name} needs {module}, which isn't installed: pip install {install}.")
    known, reason = version_of(_distribution(module)), first_line(error)
    if other := _other(module):
        return ResidualError(_hidden(module, name, f"{other!r} ({reason})"), _way_round(module, install))
    if old := _too_old(module, known):
        return ResidualError(f"{name} needs {module} {old} ({reason}): pip install -U {install}.")
    return ResidualError(
        f"{name} needs {module}, and {module} {known} is there but can't be imported ({reason}).",
        f"Install it anew, or a version that fits what else is installed: pip uninstall "
        f"{_distribution(module)}, then pip install {install}.",
    )


@cache  # it is looked for in files
def version_of(name: str) -> str:
    """Of an installed library."""
    try:
        return version(name)
    except PackageNotFoundError:  # run from its source
        return "not installed"


def first_line(error: BaseException) -> str:
    """What an error says, without the rest of its page. (torch names missing weights on its second line.)"""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])


def hub_reason(error: BaseException) -> str:
    """What went wrong on the way from the hub, in one line: its own errors begin with a status alone."""
    from huggingface_hub import errors

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    own = " ".join(lines[:2]) if isinstance(error, errors.HfHubHTTPError) else first_line(error)
    return refused_by_hub(error) or own


def refused_by_hub(error: BaseException) -> str:
    """What the hub wants before it gives something; nothing where it was another thing that went wrong."""
    from huggingface_hub import errors

    known = {
        errors.GatedRepoError: "it is gated: accept its terms on its page there, and give a token of that "
        "account in HF_TOKEN",
        errors.RepositoryNotFoundError: "there is none of that name, or it is private and needs a token in "
        "HF_TOKEN",
        errors.RevisionNotFoundError: "it has no such revision",
    }
    cause: BaseException | None = error
    while cause is not None:
        for kind, reason in known.items():
            if isinstance(cause, kind):
                return reason
        cause = cause.__cause__
    return ""


def is_of_network(error: BaseException) -> bool:
    """Whether the hub didn't answer at all, or is down, by any of the clients that its library has had."""
    from huggingface_hub.errors import HfHubHTTPError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            return cause.response is not None and cause.response.status_code >= 500
        client = type(cause).__module__.partition(".")[0] in _CLIENTS
        if client or isinstance(cause, ConnectionError | TimeoutError | gaierror):
            return True
        cause = cause.__cause__
    return False


def release(text: str) -> tuple[int, ...]:
    """The numbers of a version, to be compared: (1, 0, 26) of "1.0.26rc1"; none of what is no version.

    Example:
        >>> release("1.0.26rc1") < release("1.1"), release("not installed")
        (True, ())
    """
    numbers = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def _distribution(module: str) -> str:
    return _DISTRIBUTIONS.get(module, module)


def _too_old(module: str, held: str) -> str:
    """What is wrong with a version, if it is below the one that this package asks for."""
    least = _bounds().get(_distribution(module).lower().replace("_", "-"), "")
    old = () < release(held) < release(least)
    return f"{least} or newer, and {held} is installed" if old else ""


@cache
def _bounds() -> dict[str, str]:
    """The lowest version that is asked for, by distribution."""
    try:
        wanted = requires("residual-vit") or []
    except PackageNotFoundError:  # run from its source
        return {}
    found = [re.match(r"([\w.-]+)(?:\[.*?\])?\s*>=\s*([\d.]+)", each) for each in wanted]
    return {each[1].lower().replace("_", "-"): each[2] for each in found if each}


def _other(module: str) -> str:
    """The file or folder that is imported by the name of a library, if it isn't where the library is
    installed: one of the user's, in the folder of a script or in `PYTHONPATH`.
    """
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    if not places:
        return ""
    try:
        installed = distribution(_distribution(module))
    except PackageNotFoundError:
        installed = None
    place = Path(os.path.realpath(places[0]))
    if installed is not None:
        editable = '"editable": true' in (installed.read_text("direct_url.json") or "")
        home, found = str(installed.locate_file("")), Path(places[0])  # which may be a link to elsewhere
        if editable or found.is_relative_to(home) or place.is_relative_to(os.path.realpath(home)):
            return ""
    return str(place.parent if place.name == "__init__.py" else place)


def _hidden(module: str, name: str, other: str) -> str:
    return f"{name} needs {module}, and what is imported by that name is {other}, not the library."


def _way_round(module: str, install: str) -> str:
    gone = version_of(_distribution(module)) == "not installed"
    return "Rename it, or run elsewhere" + (f", and pip install {install}." if gone else ".")
