"""Encoders by name, and around modules that are already built."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from residual.encoders import clip
from residual.encoders.encoder import Encoder
from residual.encoders.family import Family
from residual.encoders.preprocess import Preprocess
from residual.errors import ResidualError, unknown_name

FAMILIES: tuple[Family, ...] = clip.FAMILIES
_EMBEDDED = {"picto": Path(__file__).parent / "picto"}
_FORMS = ("hf:REPO_OR_FOLDER",)


def load_encoder(
    name: str,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    split: str = "shared",
) -> Encoder:
    """Load an encoder by name.

    Args:
        name: "picto", the encoder that comes with the library, or "hf:REPO_OR_FOLDER": a CLIP saved by
            transformers, in a local folder (then nothing is fetched) or on the hub.
        device: where to put it; by default the GPU if there is one, else the CPU.
        dtype: by default bfloat16 on a GPU that has it, else float32.
        split: see `Encoder`.

    Raises:
        ResidualError: the name isn't known (the nearest are listed), nothing loadable is there, or the model
            can't be split; or there is no such device.
    """
    device = _device(device)
    if dtype is None:
        half = device.type == "cuda" and torch.cuda.is_bf16_supported()
        dtype = torch.bfloat16 if half else torch.float32
    if name in _EMBEDDED:
        return _load_transformers(name, _EMBEDDED[name], dtype, split).to(device)
    form, _, place = name.partition(":")
    if form == "hf" and place:
        local = Path(place).expanduser()
        folder = local if local.is_dir() else _fetch(name, place)
        return _load_transformers(name, folder, dtype, split).to(device)
    raise unknown_name("encoder", name, [*_EMBEDDED, *_FORMS])


def wrap_encoder(
    module: nn.Module,
    split: str = "shared",
    *,
    name: str | None = None,
    preprocess: Preprocess | None = None,
    tokenizer: Callable[..., Any] | None = None,
) -> Encoder:
    """Make an encoder around a model that is already built (transformers' CLIP for now).

    Args:
        module: the model; it is put into evaluation mode.
        split: see `Encoder`.
        name: how messages call it, by default its class.
        preprocess: by default CLIP's usual settings at the model's image size.
        tokenizer: a transformers tokenizer, if texts are to be encoded.

    Raises:
        ResidualError: the model is of no known family; says which parts were looked for and not found.
    """
    family = find_family(module)
    return Encoder(
        name=name or type(module).__name__,
        module=module,
        family=family,
        preprocess=preprocess or Preprocess.square(family.image_size(module)),
        tokenize=_padded(tokenizer, module) if tokenizer is not None and family.encode_text else None,
        split=split,
    )


def find_family(module: nn.Module) -> Family:
    """The family of `module`; the error for none compares it with the family that comes nearest."""
    for family in FAMILIES:
        if family.handles(module):
            return family
    nearest = min(FAMILIES, key=lambda family: len(family.anatomy.missing(module)))
    classes = ", ".join(kind for family in FAMILIES for kind in family.classes)
    complaint = nearest.anatomy.complaint(module) or "all parts are there, but in another class."
    raise ResidualError(
        f"{type(module).__name__} is of no known family (known classes: {classes}). Compared with the "
        f"nearest, {nearest.name}: {complaint}"
    )


def _device(wanted: str | torch.device | None) -> torch.device:
    """The device that was asked for, or the best one there is."""
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ResidualError(
            f"The device {str(wanted)!r} isn't there ({str(error).splitlines()[0]}). Known here: cpu"
            f"{', cuda' if torch.cuda.is_available() else ''}."
        ) from error
    return device


def _load_transformers(name: str, folder: Path, dtype: torch.dtype, split: str) -> Encoder:
    """A model saved by transformers: weights from safetensors only, everything from one folder."""
    import transformers

    if not (folder / "config.json").is_file():
        raise ResidualError(
            f"{name}: {folder} holds no config.json, so it isn't a model saved by transformers."
        )
    classes: dict[str, Any] = {
        "clip": transformers.CLIPModel,
        "clip_vision_model": transformers.CLIPVisionModelWithProjection,
    }
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind not in classes:
            raise ResidualError(f"{name} is a {kind!r} model. Known kinds: {', '.join(classes)}.")
        with _quiet():
            module, told = classes[kind].from_pretrained(
                folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        if lacking := sorted(told["missing_keys"]):
            raise ResidualError(
                f"{name}: {folder} lacks weights, {', '.join(lacking[:3])}{' …' if lacking[3:] else ''}: "
                "random ones would take their place. Get the whole model."
            )
        family = find_family(module)
        tokenizer = None
        if family.encode_text is not None:
            with _quiet():
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        preprocess = Preprocess.from_folder(folder)
    except ResidualError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ResidualError(
            f"{name}: the model in {folder} can't be loaded ({_first_line(error)})."
        ) from error
    return Encoder(
        name=name,
        module=module,
        family=family,
        preprocess=preprocess,
        tokenize=_padded(tokenizer, module) if tokenizer is not None else None,
        split=split,
    )


def _fetch(name: str, repo: str) -> Path:
    """The local copy of a hub repository, fetched once."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=["*.json", "*.txt", "*.safetensors"]))
    except (OSError, ValueError) as error:
        raise ResidualError(
            f"{name}: there is no folder {repo!r} here, and it can't be had from the hub "
            f"({_first_line(error)})."
        ) from error


@contextmanager
def _quiet() -> Generator[None]:
    """Without transformers' own progress bar and reports, which would show among ours."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _padded(tokenizer: Callable[..., Any], module: Any) -> Callable[[list[str]], Tensor]:
    """Texts to ids as CLIP was trained: padded to the context length and cut there."""
    length = module.config.text_config.max_position_embeddings

    def tokenize(texts: list[str]) -> Tensor:
        ids = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return ids["input_ids"]

    return tokenize
