"""What is in repositories of a hub, without fetching it: files, their sizes, whether they may be had."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from io import StringIO
from pathlib import Path
from typing import Any

from residual.errors import ResidualError, UnreachableHubError
from residual.libraries import first_line, hub_reason
from residual.progress import listener

_PATIENCE = 10.0  # seconds for an answer
_PAUSE = 300.0  # seconds for which a hub that gave none isn't asked again
_silent: dict[str, tuple[float, UnreachableHubError]] = {}  # such hubs: since when, and what is said


@dataclass(frozen=True)
class Listing:
    """The files of a repository at one revision.

    Args:
        kind: "model" or "dataset".
        repository: OWNER/NAME.
        revision: the commit.
        sizes: bytes of every file, by its path.
    """

    kind: str
    repository: str
    revision: str
    sizes: dict[str, int]

    def matching(self, patterns: Sequence[str]) -> dict[str, int]:
        """The files at its top that one of the patterns names, with their sizes."""
        return {
            file: size
            for file, size in self.sizes.items()
            if "/" not in file and any(fnmatch(file, pattern) for pattern in patterns)
        }

    def absent(self, files: Sequence[str]) -> list[str]:
        """Which of the files aren't on this machine yet."""
        from huggingface_hub import try_to_load_from_cache

        return [
            file
            for file in files
            if not isinstance(
                try_to_load_from_cache(self.repository, file, revision=self.revision, repo_type=self.kind),
                str,
            )
        ]


@dataclass
class Hub:
    """A hub as it answers now: each repository is asked for once, and none any more once it is out of reach.

    Args:
        unreachable: why it is, once that is known.
    """

    unreachable: UnreachableHubError | None = None
    _answers: dict[tuple[str, str, str | None], Listing | ResidualError] = field(default_factory=dict)

    def listing(self, kind: str, repository: str, revision: str | None = None) -> Listing:
        """The files of a repository that this machine may read.

        Args:
            kind: "model" or "dataset".
            repository: OWNER/NAME.
            revision: a branch, a tag or a commit; None for the main one.

        Raises:
            UnreachableHubError: the hub can't be asked.
            ResidualError: there is no such repository or revision, or it is gated and this machine has no
                token that may read it.
        """
        if self.unreachable is not None:
            raise self.unreachable
        key = kind, repository, revision
        if key not in self._answers:
            try:
                self._answers[key] = _listing(kind, repository, revision)
            except UnreachableHubError as error:
                self.unreachable = error
                raise
            except ResidualError as error:
                self._answers[key] = error
        answer = self._answers[key]
        if isinstance(answer, ResidualError):
            raise answer
        return answer


def out_of_reach(kind: str, repository: str) -> UnreachableHubError | None:
    """Why the hub can't be asked for a repository; None where it answers, whatever it says.

    A hub that can't be connected to isn't tried again by this process for five minutes, whoever asks.

    Args:
        kind: "model" or "dataset".
        repository: OWNER/NAME.
    """
    try:
        _listing(kind, repository, None)
    except UnreachableHubError as error:
        return error
    except ResidualError:
        return None
    return None


def cached_folder(repository: str, patterns: Sequence[str], revision: str | None = None) -> Path | None:
    """Where files of a model are that were fetched before, without asking the hub; None where none are."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=["*/*"],
                local_files_only=True,
            )
        )
    except (OSError, HFValidationError):
        return None


def hub_bars(repository: str) -> Any:
    """What the hub's library takes as `tqdm_class`: bars that write nothing, and tell of the megabytes that
    are fetched; None, its own, where nobody listens (`residual.progress.listening`)."""
    heard = listener()
    if heard is None:
        return None
    from tqdm import tqdm

    class Told(tqdm):
        def __init__(self, *args: Any, **how: Any):
            how.pop("name", None)
            super().__init__(*args, **{**how, "disable": False, "file": StringIO()})

        def display(self, *_: Any, **__: Any) -> bool:
            # Of each byte the library tells when it came from the network, too.
            if self.unit == "B" and self.total and not self.desc.startswith("Downloading bytes"):
                done, total = self.n // 10**6, -(-self.total // 10**6)
                heard(f"fetch {repository}, MB", int(total if self.n >= self.total else done), int(total))
            return True

    return Told


def _listing(kind: str, repository: str, revision: str | None) -> Listing:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if constants.HF_HUB_OFFLINE:
        raise UnreachableHubError("The hub isn't asked: HF_HUB_OFFLINE is set.")
    since, silent = _silent.get(constants.ENDPOINT, (0.0, None))
    if silent is not None and time.monotonic() - since < _PAUSE:
        raise silent
    api: Any = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    try:
        info = ask(repository, revision=revision, files_metadata=True, timeout=_PATIENCE)
        if info.gated:
            api.auth_check(repository, repo_type=kind)
    except GatedRepoError as error:
        raise _gated(kind, repository) from error
    except RepositoryNotFoundError as error:
        raise ResidualError(
            f"The hub has no {kind} {repository!r}, or it is private and this machine has no token for it "
            "(HF_TOKEN)."
        ) from error
    except RevisionNotFoundError as error:
        raise ResidualError(f"The {kind} {repository!r} of the hub has no revision {revision!r}.") from error
    except HFValidationError as error:
        raise ResidualError(f"{repository!r} is no name of a {kind} on the hub.") from error
    except HfHubHTTPError as error:  # it answers, and can't do it now
        raise UnreachableHubError(f"The hub can't be asked now ({hub_reason(error)}).") from error
    except Exception as error:  # whatever the client of the hub's library says of a network
        unreachable = UnreachableHubError(f"The hub can't be reached ({first_line(error)}).")
        _silent[constants.ENDPOINT] = time.monotonic(), unreachable
        raise unreachable from error
    return Listing(
        kind, repository, info.sha, {file.rfilename: file.size or 0 for file in info.siblings or ()}
    )


def _gated(kind: str, repository: str) -> ResidualError:
    from huggingface_hub import constants, get_token

    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repository}"
    token = (
        "The token of this machine (HF_TOKEN) may not read it"
        if get_token()
        else "This machine has no token (HF_TOKEN) to read it with"
    )
    return ResidualError(
        f"The {kind} {repository!r} is gated. {token}.",
        f"Accept its terms at {page}, and take a token of that account that may read gated repositories.",
    )
