"""torchvision's `VisionTransformer`: the normed class token, with its classifier or without.

torchvision's own weights are pickles, which aren't loaded: a model that was built with them is wrapped, or
its weights are saved as safetensors once.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_model
from torch import nn

from residual.encoders.anatomy import Anatomy
from residual.encoders.family import Family, Tower
from residual.encoders.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from residual.encoders.sources import Loaded, load_errors
from residual.errors import ResidualError, unknown_name
from residual.files import local_path
from residual.libraries import library

WEIGHTS = ("model.safetensors",)
_CLASSIFIER, _POSITIONS, _PATCHES = "heads.head.weight", "encoder.pos_embedding", "conv_proj.weight"
_LARGEST = 4096  # of a picture's side


def _adjusted(module: Any, anatomy: Anatomy) -> Anatomy:
    """With the classifier, if there is one."""
    layers = [layer for layer in module.heads.modules() if not isinstance(layer, nn.Sequential | nn.Identity)]
    if len(layers) > 1:
        raise ResidualError(
            "VisionTransformer can't be split: its classifier has a layer of its own (representation_size) "
            "with a tanh behind it.",
            "Take the features before it: model.heads = torch.nn.Identity().",
        )
    return replace(anatomy, projection="heads.head" if layers else None)


def _preprocess(module: Any) -> Preprocess:
    """An eighth is cut off, as of pictures at the size of training."""
    side = module.image_size
    return Preprocess(side * 8 // 7, (side, side), interpolation=2, mean=IMAGENET_MEAN, std=IMAGENET_STD)


FAMILIES = (
    Family(
        name="torchvision VisionTransformer",
        classes=("torchvision.VisionTransformer",),
        image=Tower(
            anatomy=Anatomy(
                blocks="encoder.layers",
                attention_output="self_attention.out_proj",
                heads="self_attention.num_heads",
                mlp="mlp",
                final_norm="encoder.ln",
            ),
            encode=lambda module, pixels: module(pixels),
            adjust=_adjusted,
        ),
        image_size=lambda module: (module.image_size,) * 2,
        settings=lambda module: repr(module.encoder.layers[0].mlp[1]),
        preprocess=_preprocess,
    ),
)


def check_model(name: str, model: str) -> Any:
    """torchvision's list of models, if this is one of its vision transformers.

    Raises:
        ResidualError: it isn't, or torchvision isn't installed.
    """
    models = library("torchvision", name, extra="torchvision").models
    known = [each for each in models.list_models() if each.startswith("vit_")]
    if model not in known:
        raise ResidualError(f"{name}: {unknown_name('vision transformer of torchvision', model, known)}")
    return models


def weights_of(name: str, source: str) -> tuple[str, str]:
    """The model and the file of `MODEL/FILE.safetensors` or `MODEL/FOLDER`.

    Raises:
        ResidualError: none is named, or it isn't there.
    """
    model, _, weights = source.partition("/")
    check_model(name, model)
    file = local_path(weights)
    file = file / WEIGHTS[0] if weights and file.is_dir() else file
    if not weights or file.suffix != ".safetensors":
        raise ResidualError(
            f"{name}: torchvision's own weights are pickles, which aren't loaded.",
            f'Build it and wrap it: wrap_encoder(torchvision.models.{model}(weights="DEFAULT")); or save its '
            f"state_dict() with safetensors.torch.save_file once, for torchvision:{model}/FILE.safetensors.",
        )
    if not file.is_file():
        raise ResidualError(f"{name}: there is no file {str(file)!r}.")
    return model, str(file)


def load(name: str, source: str, classifier: bool) -> Loaded:
    """`MODEL/FILE.safetensors` or `MODEL/FOLDER`, with as many classes and pictures as large as was saved.

    Raises:
        ResidualError: torchvision isn't installed, has no such model, or the file isn't one of its weights.
    """
    model, file = weights_of(name, source)
    with load_errors(name, file), safe_open(file, "pt") as tensors:
        shapes = {key: tensors.get_slice(key).get_shape() for key in set(tensors.keys())}
    if lacking := [key for key in (_POSITIONS, _PATCHES) if len(shapes.get(key, ())) < 3]:
        raise ResidualError(f"{name}: {file} lacks weights, {', '.join(lacking)}.")
    if classifier and _CLASSIFIER not in shapes:
        raise ResidualError(f"{name}: the model in {file} was saved without a classifier.")
    side = math.isqrt(shapes[_POSITIONS][1] - 1) * shapes[_PATCHES][-1]
    if not 0 < side <= _LARGEST:
        raise ResidualError(f"{name}: {file} is of pictures of {side} pixels, {_LARGEST} at most can be.")
    how: dict[str, Any] = {"image_size": side}
    if classifier:
        how["num_classes"] = shapes[_CLASSIFIER][0]
    with load_errors(name, file):
        module = check_model(name, model).get_model(model, weights=None, **how)
        if not classifier:
            module.heads = nn.Identity()
        missing, unexpected = load_model(module, file, strict=False)
    other = [key for key in unexpected if classifier or not key.startswith("heads.")]
    if missing or other:
        raise ResidualError(f"{name}: {file} isn't of {model}: {', '.join(sorted([*missing, *other])[:3])}.")
    return Loaded(module, _preprocess(module))
