"""Where models come from: the hub and folders, safetensors only; what goes wrong there in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from residual.errors import ResidualError
from residual.libraries import first_line


@dataclass(frozen=True)
class Loaded:
    """A loaded model, from a PIL image to its pixels, and from texts to its token ids if it takes any."""

    module: nn.Module
    preprocess: Callable[[Any], Tensor]
    tokenize: Callable[[list[str]], Tensor] | None = None


def snapshot(name: str, repo: str, files: Sequence[str]) -> Path:
    """The local copy of a hub repository's `files`, fetched once; `REPO@REVISION` takes one revision.

    Raises:
        ResidualError: it can't be had.
    """
    from huggingface_hub import snapshot_download

    repo, _, revision = repo.partition("@")
    with hub_errors(name, f"there is no folder {repo!r} here, and it can't be had from the hub"):
        return Path(
            snapshot_download(
                repo, revision=revision or None, allow_patterns=list(files), ignore_patterns=["*/*"]
            )
        )


def require_safetensors(name: str, folder: Path, file: str) -> None:
    """Check that a folder has this file of weights: nothing is ever unpickled.

    Raises:
        ResidualError: it hasn't.
    """
    if not (folder / file).is_file():
        raise ResidualError(
            f"{name}: {folder} holds no {file}, and weights in another form aren't read, since reading them "
            "can run code. Convert them to safetensors, or name a revision of the repository that holds them "
            "(REPO@refs/pr/N)."
        )


@contextmanager
def hub_errors(name: str, failed: str = "it can't be had from the hub") -> Generator[None]:
    """What goes wrong in here, on the way from a hub, becomes one sentence.

    Raises:
        ResidualError: something did.
    """
    try:
        yield
    except ResidualError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise ResidualError(f"{name}: {failed} ({first_line(error)}).") from error


@contextmanager
def load_errors(name: str, source: str | Path) -> Generator[None]:
    """What goes wrong in here, while a model is built from files, becomes one sentence.

    Raises:
        ResidualError: something did.
    """
    try:
        yield
    except ResidualError:
        raise
    except Exception as error:  # whatever a library says of files that it can't read
        raise ResidualError(
            f"{name}: the model in {source} can't be loaded ({first_line(error)})."
        ) from error
