"""Models saved by transformers: weights from safetensors only, everything from one folder."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from residual.encoders.family import Family
from residual.encoders.preprocess import Preprocess
from residual.encoders.sources import Loaded, has_safetensors, reading
from residual.errors import ResidualError

FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


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
    with reading(name, folder), _quiet():
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        family, made = _known(name, kind, families, classifier)
        if not any(folder.glob("*.safetensors")):  # in several files if the model is large
            has_safetensors(name, folder, "model.safetensors")
        extra = {"add_pooling_layer": False} if made == "ViTModel" else {}
        module, told = getattr(transformers, made).from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **extra,
        )
        if lacking := sorted(told["missing_keys"]):
            raise ResidualError(
                f"{name}: {folder} lacks weights, {', '.join(lacking[:3])}{' …' if lacking[3:] else ''}: "
                "random ones would take their place. Get the whole model."
            )
        tokenize = None
        if family.text is not None and family.tokenize is not None:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            tokenize = family.tokenize(tokenizer, module)
        return Loaded(module, Preprocess.from_folder(folder), tokenize)


def _known(name: str, kind: str, families: Sequence[Family], classifier: bool) -> tuple[Family, str]:
    """The family and the class for this `model_type`."""
    for family in families:
        classes = family.saved_with_classifier if classifier else family.saved_as
        if kind in classes:
            return family, classes[kind]
    kept = " that keep a classifier" if classifier else ""
    known = [
        kind
        for family in families
        for kind in (family.saved_with_classifier if classifier else family.saved_as)
    ]
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
