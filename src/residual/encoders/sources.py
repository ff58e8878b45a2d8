"""Where models come from: the hub and folders, safetensors only; what goes wrong there in one sentence."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from residual.errors import ResidualError, UnreachableHubError
from residual.files import parse_json, read_regular
from residual.libraries import first_line, hub_reason, is_of_network
from residual.repositories import Hub, hub_bars

MOST_JSON = 2**26  # bytes; of the largest tokenizers' files a third
# What has transformers run or unpack something, and what sizes a config may say.
_CODE = ("auto_map", "custom_pipelines", "quantization_config", "compression_config", "transformers_weights")
_SIDES = ("image_size", "img_size", "input_size", "size", "crop_size", "height", "width", "shortest_edge")
_MOST_SIDE = 8192
_LAYERS = ("num_hidden_layers", "layers", "depth")
_MOST_REQUESTS = 20  # pull requests that are looked into
_CONVERTER = "SFconvertbot"  # the hub's own account, which opens pull requests with safetensors
_AGAIN = "Try again where the hub can be reached: what is here already is kept."
_WHOLE = "Get all of it: what is missing of one of the hub is fetched where the hub can be reached."
_OF_A_LAYER = 6  # tensors at least: two norms, four matrices


@dataclass(frozen=True)
class Loaded:
    """A loaded model, from a PIL image to its pixels, and from texts to its token ids if it takes any."""

    module: nn.Module
    preprocess: Callable[[Any], Tensor]
    tokenize: Callable[[list[str]], Tensor] | None = None


def snapshot(name: str, repo: str, files: Sequence[str], weights: Sequence[str]) -> Path:
    """The local copy of a hub repository's `files`, fetched once, and of the first of `weights` that it has.

    Where the main revision has none and no other is named, the ones that the hub's converter made of it are
    taken, with a warning.

    Args:
        name: how messages call it.
        repo: `OWNER/NAME`, or `OWNER/NAME@REVISION`.
        files, weights: patterns of names.

    Raises:
        UnreachableHubError: the hub can't be reached, and not all of it was fetched before.
        ResidualError: it is the path of a folder, can't be had, or has no such weights; where one of its pull
            requests has, the error names that.
    """
    check_repository(name, repo)
    repo, _, revision = repo.partition("@")
    with hub_errors(name, f"there is no folder {repo!r} here, and it can't be had from the hub"):
        if (folder := _fetched(repo, revision, files, weights)) is not None:
            return folder
        try:
            Hub().listing("model", repo, revision or None)
            made = "" if revision else converted(repo, weights)
        except UnreachableHubError as error:
            made = "" if revision else converted_before(repo, weights)
            if not made:  # that they aren't here says nothing of what the hub has
                told = f"{name}: the weights of {repo!r} aren't on this machine. {error.message}"
                raise UnreachableHubError(told, _AGAIN) from error
        if made and (folder := _fetched(repo, made, files, weights)) is not None:
            warnings.warn(
                f"{name}: {repo!r} has no safetensors on its main revision; taken are those of {made}, "
                "the pull request of the hub's converter.",
                stacklevel=4,
            )
            return folder
    raise lacking_weights(name, repo, revision, weights)


def check_repository(name: str, repo: str) -> None:
    """Refuse what isn't there and names a folder alone: the hub isn't asked for it.

    Args:
        name: how messages call it.
        repo: `OWNER/NAME`, `NAME`, either with `@REVISION`; or `./NAME`, `~/NAME`, `/…/NAME`, `A/B/NAME`.

    Raises:
        ResidualError: it can be no repository.
    """
    path = repo.partition("@")[0]
    if path.startswith((".", "~")) or os.path.isabs(path) or path.count("/") > 1:
        raise ResidualError(f"{name}: there is no folder {repo!r}.")


def _fetched(repo: str, revision: str, files: Sequence[str], weights: Sequence[str]) -> Path | None:
    from huggingface_hub import snapshot_download

    for each in weights:
        folder = Path(
            snapshot_download(
                repo,
                revision=revision or None,
                allow_patterns=[*files, each],
                ignore_patterns=["*/*"],
                tqdm_class=hub_bars(repo),
            )
        )
        if any(folder.glob(each)):
            return folder
    return None


def converted(repo: str, weights: Sequence[str]) -> str:
    """The pull request in which the hub's own converter gave a repository such weights; empty for none."""
    from huggingface_hub import HfApi

    api = HfApi()
    with suppress(Exception):  # whatever the network or the hub say, none is known then
        opened = api.get_repo_discussions(repo, author=_CONVERTER, discussion_type="pull_request")
        for each in islice(opened, _MOST_REQUESTS):
            reference = each.git_reference if each.author == _CONVERTER and each.status != "closed" else None
            if reference and _has(api.list_repo_files(repo, revision=reference), weights):
                return reference
    return ""


def converted_before(repo: str, weights: Sequence[str]) -> str:
    """The pull request whose weights were fetched before, for when the hub isn't asked; empty for none."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    kept = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"))
    references = kept / "refs"
    for each in sorted(references.glob("refs/pr/*")):
        held = (kept / "snapshots" / each.read_text(encoding="utf-8").strip()).glob("*")
        if _has((file.name for file in held), weights):
            return each.relative_to(references).as_posix()
    return ""


def _has(files: Iterable[str], weights: Sequence[str]) -> bool:
    return any(fnmatchcase(file, pattern) for pattern in weights for file in files)


def lacking_weights(name: str, repo: str, revision: str, weights: Sequence[str]) -> ResidualError:
    """The error for a repository of the hub without such weights: it names a pull request that has them."""
    found, at = _anybodys(repo, weights), f" at {revision}" if revision else ""
    return ResidualError(
        f"{name}: {repo!r}{at} has no {' or '.join(weights)}, and weights in another form aren't read, "
        "since reading them can run code.",
        f"Its revision {found} has them: load {repo}@{found}. Look first who opened that pull request: "
        "anyone can, most often it is the hub's own converter."
        if found
        else "Convert them to safetensors, or name a revision of the repository that holds them.",
    )


def _anybodys(repo: str, weights: Sequence[str]) -> str | None:
    """The first of a repository's pull requests, with a bound on how many, that has such weights."""
    from huggingface_hub import HfApi

    api = HfApi()
    with suppress(Exception):  # what is a hint at best
        opened = api.list_repo_refs(repo, include_pull_requests=True).pull_requests or []
        for each in sorted(opened, key=lambda each: (len(each.ref), each.ref))[:_MOST_REQUESTS]:
            if _has(api.list_repo_files(repo, revision=each.ref), weights):
                return each.ref
    return None


def require_safetensors(name: str, folder: Path, *files: str) -> Path:
    """The first of these files of weights that a folder has: nothing is ever unpickled.

    Raises:
        ResidualError: it has none.
    """
    for file in files:
        if (folder / file).is_file():
            return folder / file
    raise ResidualError(
        f"{name}: {folder} holds no {' or '.join(files)}, and weights in another form aren't read, since "
        "reading them can run code.",
        "Convert them to safetensors.",
    )


def read_config(folder: Path, file: str) -> Any:
    """What a JSON file of a model says, which may be anybody's.

    Raises:
        ResidualError: it is no regular file, too large or no JSON.
        OSError: it isn't there.
    """
    try:
        return parse_json(read_regular(folder / file, MOST_JSON), file)
    except ResidualError as error:
        raise ResidualError(f"The model in {str(folder)!r} can't be loaded: {error.message}") from error


def check_configs(name: str, folder: Path, files: Sequence[str] | None = None) -> None:
    """Refuse a folder whose settings have code run, other models fetched or other files read, or say sizes
    that nobody has: the libraries that load it would do as they are told, or ask on the terminal.

    Args:
        name: how messages call it.
        folder: with the settings.
        files: those that are read of them, where others may be there for other libraries; None, all.

    Raises:
        ResidualError: one of them does; it says which file and how to go on.
    """
    if files is None and (folder / "adapter_config.json").exists():
        raise ResidualError(
            f"{name}: {folder} holds an adapter_config.json, which names another model to be loaded.",
            "Load that one, or merge the adapter into it and save the whole.",
        )
    tensors = [shape for file in folder.glob("*.safetensors") for shape in _shapes(name, file)]
    for file in sorted(folder.glob("*config.json")):
        if files is not None and file.name not in files:
            continue
        for key, value in _settings(read_config(folder, file.name)):
            # Most tokenizers name files of whoever made them, which aren't here and aren't missed.
            outside = key.endswith("_file") and isinstance(value, str) and _leads_out(folder, value)
            implemented = key.endswith("attn_implementation") and "/" in str(value)
            # Of a model whose kind transformers knows, its own class is called: nothing asks for another.
            code = key in _CODE and not (files is None and (file.name, key) == ("config.json", "auto_map"))
            if value and (code or implemented or outside):
                raise ResidualError(
                    f"{name}: its {file.name} asks for other code or files ({key}: {str(value)[:60]}), which "
                    "isn't run and aren't read. Take that line out, or load the whole model's own weights."
                )
            most = len(tensors) // _OF_A_LAYER if key in _LAYERS else _MOST_SIDE if key in _SIDES else 0
            if most and any(number > most for number in _numbers(value)):
                why = "its weights have" if key in _LAYERS else "any picture has"
                raise ResidualError(
                    f"{name}: its {file.name} says {key} {str(value)[:60]}, and {why} {most:,} at most."
                )
    for file in folder.glob("*.index.json"):
        weights = read_config(folder, file.name)
        parts = weights.get("weight_map") if isinstance(weights, dict) else None
        if not isinstance(parts, dict) or any(Path(str(part)).name != part for part in parts.values()):
            raise ResidualError(f"{name}: its {file.name} names files that are none of its own folder.")
        if lacking := sorted({part for part in parts.values() if not (folder / part).exists()}):
            raise ResidualError(f"{name}: {folder} lacks {', '.join(lacking[:3])} of its weights.", _WHOLE)


def check_built(name: str, folder: Path, build: Callable[[], nn.Module]) -> None:
    """Refuse a config of a much larger model than its weights, before there is memory of it.

    Args:
        name: how messages call it.
        folder: with the weights.
        build: the model of the config; it is called where tensors have shapes alone.

    Raises:
        ResidualError: it is one.
    """
    with torch.device("meta"), load_errors(name, folder):
        module = build()
    asked = sum(each.numel() for each in (*module.parameters(), *module.buffers()))
    held = sum(math.prod(shape) for file in folder.glob("*.safetensors") for shape in _shapes(name, file))
    if asked > 2 * held + 10**7:
        raise ResidualError(
            f"{name}: its config is of a model of {asked:,} numbers, and its weights have {held:,}."
        )


def _shapes(name: str, file: Path) -> list[list[int]]:
    with load_errors(name, file), safe_open(file, "pt") as tensors:
        return [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118 (it is no dict)


def _leads_out(folder: Path, name: str) -> bool:
    try:
        path = (folder / name).resolve()
        return path.exists() and not path.is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # no file could be called so
        return False


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Every name in a config and what it is set to, in parts of it, too."""
    if isinstance(value, dict):
        yield from ((key, inside) for key, inside in value.items())
    for inside in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _settings(inside)


def _numbers(value: Any) -> Iterator[float]:
    """Those in a setting, in parts of it and as text, too."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)
    elif isinstance(value, int | float):
        yield value
    elif isinstance(value, str):
        with suppress(ValueError):
            yield float(value)


def known_ids(ids: Tensor, count: int) -> Tensor:
    """The token ids, if a text tower has so many embeddings: a GPU would end the process.

    Raises:
        ResidualError: it hasn't.
    """
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < count:
        raise ResidualError(
            f"The tokenizer gives the id {int(ids.max())}, and the text tower has embeddings for {count:,}: "
            "they don't belong together."
        )
    return ids


@contextmanager
def hub_errors(name: str, failed: str = "it can't be had from the hub") -> Generator[None]:
    """What goes wrong in here, on the way to or from a hub, becomes one sentence.

    Raises:
        UnreachableHubError: it was the network, or the hub is down.
        ResidualError: something else.
    """
    try:
        yield
    except ResidualError:
        raise
    except Exception as error:  # the hub's library has had several clients, each with errors of its own
        told = f"{name}: {failed} ({hub_reason(error)})."
        if is_of_network(error):
            raise UnreachableHubError(told, _AGAIN) from error
        raise ResidualError(told) from error


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
