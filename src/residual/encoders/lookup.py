"""What an encoder is loaded from, and whether it can be had: looked up without loading or fetching it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from residual.encoders import transformers_models
from residual.encoders.families import open_clip, timm, torchvision
from residual.encoders.names import ALIASES, encoder_name
from residual.encoders.sources import (
    check_repository,
    converted,
    converted_before,
    lacking_weights,
    read_config,
    require_safetensors,
)
from residual.errors import ResidualError, UnreachableHubError
from residual.files import local_path
from residual.libraries import library
from residual.repositories import Hub, cached_folder

_WIDTHS, _DEPTHS = ("hidden_size", "width"), ("num_hidden_layers", "layers")


@dataclass(frozen=True)
class EncoderFiles:
    """What is known of an encoder that isn't loaded.

    Args:
        name: as `load_encoder` takes it.
        source: where its files are, in words.
        size: bytes of its weights, where they are known.
        absent: bytes that have to be fetched.
        kept: whether it was found on this machine alone, since the hub is out of reach.
        layers, width: of its vision tower, where they are known.
        error: why it can't be had; None if it can.
    """

    name: str
    source: str
    size: int | None = None
    absent: int = 0
    kept: bool = False
    layers: int | None = None
    width: int | None = None
    error: ResidualError | None = None


def look_up_encoder(name: str, hub: Hub | None = None) -> EncoderFiles:
    """Find an encoder's files: folders and files of this machine are looked at, repositories of the hub asked
    for, and the library that loads it has to be there.

    Args:
        name: as `load_encoder` takes it.
        hub: what was asked before, where several encoders are looked up.

    Returns:
        What is known; why it can't be had is in it, nothing is raised of that.

    Raises:
        ResidualError: the name is of no form that is known.
    """
    name = encoder_name(name)
    alias = ALIASES.get(name)
    form, _, source = (alias.spec if alias else name).partition(":")
    known = EncoderFiles(name, source or "comes with the library")
    if alias:
        known = replace(known, layers=alias.layers, width=alias.width)
    if not source:
        folder = Path(__file__).parent / form
        return replace(known, size=(folder / "model.safetensors").stat().st_size)
    try:
        return _PLACES[form](known, source, hub or Hub())
    except ResidualError as error:
        return replace(known, error=error)


def _of_transformers(known: EncoderFiles, source: str, hub: Hub) -> EncoderFiles:
    folder, kinds = local_path(source), (transformers_models.FILES, transformers_models.WEIGHTS)
    if folder.is_dir():
        if not any(folder.glob("*.safetensors")):
            require_safetensors(known.name, folder, "model.safetensors")
        return _in_folder(known, folder, kinds[1], "config.json")
    return _in_repository(known, source, kinds, hub)


def _of_open_clip(known: EncoderFiles, source: str, hub: Hub) -> EncoderFiles:
    loader = library("open_clip", known.name, extra="open-clip")
    folder, kinds = local_path(source), (open_clip.FILES, open_clip.WEIGHTS)
    if folder.is_dir():
        require_safetensors(known.name, folder, *open_clip.WEIGHTS)
        return _in_folder(known, folder, open_clip.WEIGHTS, "open_clip_config.json")
    if source.startswith("hf-hub:"):
        return _in_repository(known, source.removeprefix("hf-hub:"), kinds, hub)
    architecture, _, weights = source.partition("/")
    known = _shaped(known, loader.get_model_config(architecture))
    if weights.endswith(".safetensors"):
        return _in_file(known, weights)
    repository = open_clip.repository_of(known.name, architecture, weights)
    return _in_repository(known, repository, ((), open_clip.WEIGHTS), hub)


def _of_timm(known: EncoderFiles, source: str, hub: Hub) -> EncoderFiles:
    library("timm", known.name, extra="timm")
    folder = local_path(source)
    if folder.is_dir():
        require_safetensors(known.name, folder, *timm.WEIGHTS)
        return _in_folder(known, folder, timm.WEIGHTS)
    if source.endswith(".safetensors"):
        return _in_file(known, source.partition("/")[2])
    return _in_repository(known, timm.repository_of(known.name, source), (timm.FILES, timm.WEIGHTS), hub)


def _of_torchvision(known: EncoderFiles, source: str, hub: Hub) -> EncoderFiles:
    return _in_file(known, torchvision.weights_of(known.name, source)[1])


_PLACES = {
    "hf": _of_transformers,
    "open_clip": _of_open_clip,
    "timm": _of_timm,
    "torchvision": _of_torchvision,
}


def _in_repository(
    known: EncoderFiles, source: str, kinds: tuple[Sequence[str], Sequence[str]], hub: Hub
) -> EncoderFiles:
    """In a repository of the hub, `OWNER/NAME` or `OWNER/NAME@REVISION`, or fetched from there before: files
    of some patterns, and those of the first pattern of weights that it has."""
    check_repository(known.name, source)
    repository, _, revision = source.partition("@")
    known, (files, weights) = replace(known, source=source), kinds
    try:
        listing = hub.listing("model", repository, revision or None)
    except UnreachableHubError:
        folder = cached_folder(repository, [*files, *weights], revision or None)
        if folder is not None and any(folder.glob("*.safetensors")):
            return _in_folder(replace(known, kept=True), folder, weights)
        if revision or not (made := converted_before(repository, weights)):
            raise
        return _in_repository(known, f"{repository}@{made}", kinds, hub)
    found = next(filter(None, (listing.matching([each]) for each in weights)), None)
    if found is None:
        if revision or not (made := converted(repository, weights)):
            raise lacking_weights(known.name, repository, revision, weights)
        return _in_repository(known, f"{repository}@{made}", kinds, hub)
    wanted = listing.matching(files) | found
    absent = sum(wanted[file] for file in listing.absent(list(wanted)))
    return replace(known, size=sum(found.values()), absent=absent)


def _in_folder(known: EncoderFiles, folder: Path, weights: Sequence[str], config: str = "") -> EncoderFiles:
    files = next(filter(None, (list(folder.glob(each)) for each in (*weights, "*.safetensors"))), [])
    known = replace(known, size=sum(file.stat().st_size for file in files))
    return _shaped(known, read_config(folder, config) if config and (folder / config).is_file() else {})


def _in_file(known: EncoderFiles, path: str) -> EncoderFiles:
    file = local_path(path)
    if not file.is_file():
        raise ResidualError(f"{known.name}: there is no file {path!r}.")
    return replace(known, size=file.stat().st_size)


def _shaped(known: EncoderFiles, config: Any) -> EncoderFiles:
    """With the layers and the width that a config tells of the vision tower."""
    with suppress(AttributeError, TypeError, ValueError):  # whatever somebody's config says
        config = config.get("model_cfg", config)
        own = config.get("vision_config", config.get("vision_cfg", config))
        layers, width = (
            next((int(own[key]) for key in keys if key in own), None) for keys in (_DEPTHS, _WIDTHS)
        )
        known = replace(known, layers=known.layers or layers, width=known.width or width)
    return known
