"""From texts to token ids, as transformers' tokenizers give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

Tokenize = Callable[[list[str]], Tensor]


def padded(tokenizer: Callable[..., Any], module: Any) -> Tokenize:
    """Padded to the model's context length and cut there, as CLIP and SigLIP were trained."""
    length = module.config.text_config.max_position_embeddings
    return _ids(tokenizer, padding="max_length", truncation=True, max_length=length)


def longest(length: int) -> Callable[[Callable[..., Any], Any], Tokenize]:
    """Padded to the longest text and cut at `length`, for models that mask what is padding."""
    return lambda tokenizer, module: _ids(tokenizer, padding="longest", truncation=True, max_length=length)


def direct(tokenizer: Callable[..., Tensor], module: Any) -> Tokenize:
    """A tokenizer that gives a tensor of ids by itself, as open_clip's do."""
    return tokenizer


def _ids(tokenizer: Callable[..., Any], **how: Any) -> Tokenize:
    return lambda texts: tokenizer(texts, return_tensors="pt", **how)["input_ids"]
