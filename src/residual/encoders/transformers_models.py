"""Models of transformers: what their configs and tokenizers say, and how they are loaded from a folder.

Weights come from safetensors only, and everything from that one folder.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from residual.encoders.family import Family
from residual.encoders.preprocess import Preprocess
from residual.encoders.sources import (
    Loaded,
    check_configs,
    known_ids,
    load_errors,
    read_config,
    require_safetensors,
)
from residual.errors import ResidualError
from residual.libraries import first_line, release, version_of

FILES = ("*.json", "*.txt", "*.model")
WEIGHTS = ("model*.safetensors",)  # in several files if the model is large
Tokenize = Callable[[list[str]], Tensor]
# A model's config may ask for tuples, or for more than its output.
_FLAGS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
_ALL_TAKE_FLAGS = release(version_of("transformers")) >= (5,)
MASKS_IN_DEFAULT_DTYPE = not _ALL_TAKE_FLAGS  # those of CLIP's texts
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")


def load(
    name: str, folder: Path, families: Sequence[Family], dtype: torch.dtype, classifier: bool = False
) -> Loaded:
    """The model in `folder`, of the family that its config names.

    Args:
        name: how messages call it.
        folder: as `save_pretrained` writes it.
        families: those that may be in it.
        dtype: of the weights.
        classifier: keep the classifier of a model that was saved with one.

    Raises:
        ResidualError: a file is missing or damaged, weights are missing, or the kind of model isn't known.
    """
    import transformers

    if not (folder / "config.json").is_file():
        raise ResidualError(
            f"{name}: {folder} holds no config.json, so it isn't a model saved by transformers."
        )
    with load_errors(name, folder), _quiet():
        check_configs(name, folder)
        config = read_config(folder, "config.json")
        family, made = _known(name, config, families, classifier)
        if not any(folder.glob("*.safetensors")):
            require_safetensors(name, folder, "model.safetensors")
        pools = {"ViTModel": False, "DeiTModel": False, "Data2VecVisionModel": True}
        extra = {"add_pooling_layer": pools[made]} if made in pools else {}
        module, info = getattr(transformers, made).from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **extra,
        )
        other = sorted({*info["missing_keys"], *info["unexpected_keys"]}) if config.get("auto_map") else []
        if other:
            raise ResidualError(
                f"{name}: {folder} is of code of its own, which isn't run: its weights aren't those of "
                f"transformers' {made} ({', '.join(other[:3])}{' …' if other[3:] else ''}).",
                "Name a revision or a copy of it in transformers' own form, or the same model of timm.",
            )
        if lacking := sorted(info["missing_keys"]):
            raise ResidualError(
                f"{name}: {folder} lacks weights, {', '.join(lacking[:3])}{' …' if lacking[3:] else ''}: "
                "random ones would take their place. Get the whole model."
            )
        tokenize = None
        if family.tokenize is not None and any((folder / file).is_file() for file in _TOKENIZERS):
            tokenize = family.tokenize(_tokenizer(name, folder), module)
        return Loaded(module, Preprocess.from_folder(folder), tokenize)


def _tokenizer(name: str, folder: Path) -> Any:
    """The tokenizer in `folder`; one that needs a library that isn't there says so when it is asked."""
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except ImportError as error:
        return partial(_lacking, name, first_line(error))


def _lacking(name: str, reason: str, *texts: Any, **how: Any) -> Any:
    raise ResidualError(
        f"{name}: its tokenizer needs another library: pip install 'residual-vit[siglip]' ({reason})"
    )


def _kind(config: dict[str, Any], families: Sequence[Family]) -> Any:
    """The `model_type`; of a vision tower alone that is called as the whole model is, the tower's own."""
    kind = config.get("model_type")
    alone = f"{kind}_vision_model"
    flat = "hidden_size" in config and "vision_config" not in config
    return alone if flat and any(alone in family.saved_as for family in families) else kind


def _known(
    name: str, config: dict[str, Any], families: Sequence[Family], classifier: bool
) -> tuple[Family, str]:
    """The family and the class for a `model_type`; of several, the one that the config says was saved."""
    kind, saved = _kind(config, families), config.get("architectures") or ()
    each = [(family, family.saved_with_classifier if classifier else family.saved_as) for family in families]
    if found := [(family, classes[kind]) for family, classes in each if kind in classes]:
        return next((one for one in found if one[1] in saved), found[0])
    kept = " that keep a classifier" if classifier else ""
    known = dict.fromkeys(kind for _, classes in each for kind in classes)
    raise ResidualError(f"{name} is a {kind!r} model. Known kinds{kept}: {', '.join(known)}.")


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


def _vision(module: Any) -> Any:
    """What the config says of the vision model, alone or inside a model with text."""
    return getattr(module.config, "vision_config", module.config)


def image_size(module: Any) -> tuple[int, int]:
    """`(height, width)` of its images."""
    size = _vision(module).image_size
    return (size, size) if isinstance(size, int) else tuple(size)


def activation(module: Any) -> str:
    """The function between the layers of its MLPs."""
    return _vision(module).hidden_act


def named(module: Any, *inputs: Tensor | None, **others: Tensor) -> Any:
    """What a model makes of its inputs: its output by names and no more, whatever its config asks for."""
    flags = _FLAGS if _ALL_TAKE_FLAGS else _taken(module)
    return module(*inputs, **others, **flags)


def _taken(module: Any) -> dict[str, bool]:
    parameters = signature(module.forward).parameters
    every = any(each.kind == each.VAR_KEYWORD for each in parameters.values())
    return {name: value for name, value in _FLAGS.items() if every or name in parameters}


def check_names(module: Any) -> None:
    """Refuse a model whose config has its parts hand each other tuples: they would fail.

    Raises:
        ResidualError: it is one.
    """
    if not module.config.return_dict:
        raise ResidualError(
            f"{type(module).__name__} is set to return tuples, and can't be run so.",
            "Say model.config.return_dict = True.",
        )


def logit_scale(module: Any) -> float:
    """The logarithm of the factor on cosines."""
    return module.logit_scale.item()


@dataclass(frozen=True)
class TokenIds:
    """Texts to token ids, by a tokenizer of transformers that is asked as `how` says.

    Args:
        tokenizer: that one.
        count: of embeddings.
        how: padding, truncation.
        lower: put texts in lower case before.
    """

    tokenizer: Any
    count: int
    how: dict[str, Any]
    lower: bool = False

    def __call__(self, texts: list[str]) -> Tensor:
        """Their ids `(n, t)`."""
        texts = [text.lower() for text in texts] if self.lower else texts
        return known_ids(self.tokenizer(texts, return_tensors="pt", **self.how)["input_ids"], self.count)

    @property
    def decode(self) -> Callable[[list[int]], str] | None:
        """Back to a text, where the tokenizer can."""
        return getattr(self.tokenizer, "decode", None)


def padded(tokenizer: Callable[..., Any], module: Any, lower: bool = False, **how: Any) -> Tokenize:
    """Padded to the model's context length and cut there, as CLIP and SigLIP were trained."""
    text = module.config.text_config
    how = {"padding": "max_length", "truncation": True, "max_length": text.max_position_embeddings, **how}
    return TokenIds(tokenizer, text.vocab_size, how, lower)


def longest(length: int) -> Callable[[Callable[..., Any], Any], Tokenize]:
    """Padded to the longest text and cut at `length`, for models that mask what is padding."""
    how = {"padding": "longest", "truncation": True, "max_length": length}
    return lambda tokenizer, module: TokenIds(tokenizer, module.config.text_config.vocab_size, how)
