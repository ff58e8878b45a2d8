"""Encoders by name or short name, and around modules that are already built."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from residual.devices import best_dtype, find_device
from residual.encoders import transformers_models
from residual.encoders.encoder import Encoder
from residual.encoders.families import FAMILIES, open_clip, timm, torchvision
from residual.encoders.family import Family
from residual.encoders.names import ALIASES, EMBEDDED, encoder_name
from residual.encoders.sources import Loaded, snapshot
from residual.encoders.wrappers import unwrapped
from residual.errors import ResidualError
from residual.files import local_path


def load_encoder(
    name: str,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    centering: str = "shared",
    *,
    classifier: bool = False,
    split: str | None = None,
) -> Encoder:
    """Load an encoder by name; weights come from safetensors only, from a folder or file, or from the hub.

    Args:
        name: "picto", the encoder that comes with the library; an alias of one of the paper's models
            (`residual encoders` lists them); or
            "open_clip:ARCH/TAG", "open_clip:ARCH/FILE.safetensors", "open_clip:FOLDER",
            "open_clip:hf-hub:REPO";
            "hf:FOLDER", "hf:REPO" or "hf:REPO@REVISION", as transformers saves models;
            "timm:NAME", "timm:NAME/FILE.safetensors", "timm:FOLDER", "timm:hf-hub:REPO";
            "torchvision:NAME/FILE.safetensors"; or "OWNER/NAME" of the hub, where `encoder_name` knows
            what is meant.
        device: where to put it; by default the GPU if there is one, else the CPU.
        dtype: by default bfloat16 on a GPU that has it, else float32.
        centering: see `Encoder`.
        classifier: keep the classifier of a model that was saved with one: the output is its logits. By
            default it is left off, and the output is the features.
        split: the older name of `centering`.

    Raises:
        ResidualError: the name isn't known (the nearest are listed), nothing loadable is there, the library
            that loads it isn't installed, or the model can't be split; or there is no such device.

    Example:
        >>> load_encoder("picto", device="cpu")
        Encoder('picto', transformers CLIP, 8 layers of 6 heads, 192 -> 192)
    """
    name = encoder_name(name)
    device = find_device(device)
    if dtype is None:
        dtype = best_dtype(device)
    loaded = _load(name, ALIASES[name].spec if name in ALIASES else name, dtype, classifier)
    return Encoder(
        name=name,
        module=loaded.module.to(device, dtype),
        family=find_family(loaded.module),
        preprocess=loaded.preprocess,
        tokenize=loaded.tokenize,
        centering=split or centering,
    )


def wrap_encoder(
    module: nn.Module,
    centering: str = "shared",
    *,
    split: str | None = None,
    name: str | None = None,
    preprocess: Callable[[Any], Tensor] | None = None,
    tokenizer: Callable[..., Any] | None = None,
    family: Family | None = None,
) -> Encoder:
    """Make an encoder around a model of open_clip, transformers, timm or torchvision that is already built.

    Args:
        module: the model; it is put into evaluation mode. One that `torch.compile` was called on runs
            compiled. One of peft is taken with the adapters that are active at each call, and one in a
            `DataParallel` without that.
        centering: see `Encoder`.
        name: how messages call it, by default its class.
        preprocess: by default what the model says of itself, else what its family was trained with.
        tokenizer: of open_clip or transformers, if texts are to be encoded.
        family: one of your own, for a kind of model that isn't known here.
        split: the older name of `centering`.

    Raises:
        ResidualError: the model is of no known family, or can't be split; says which parts were looked for
            and not found.

    Example:
        >>> from transformers import ViTConfig, ViTModel
        >>> config = ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=32)
        >>> wrap_encoder(ViTModel(config))
        Encoder('ViTModel', transformers ViT, 2 layers of 3 heads, 24 -> 24)
    """
    compiler, module = None, unwrapped(module)
    if isinstance(module, torch._dynamo.OptimizedModule):
        module, compiler = unwrapped(module._orig_mod), module.dynamo_ctx
    family = family or find_family(module)
    tokenize = None
    if tokenizer is not None and family.tokenize is not None:
        tokenize = family.tokenize(tokenizer, module)
    encoder = Encoder(
        name=name or type(module).__name__,
        module=module,
        family=family,
        preprocess=preprocess or family.preprocess(module),
        tokenize=tokenize,
        centering=split or centering,
    )
    return encoder.compile(compiler) if compiler else encoder


def find_family(module: nn.Module) -> Family:
    """The family of `module`.

    Raises:
        ResidualError: there is none; compares the module with the family that comes nearest.
    """
    for family in FAMILIES:
        if family.handles(module):
            return family
    nearest = min(FAMILIES, key=lambda family: len(family.image.anatomy.missing(module)))
    classes = defaultdict(list)
    for library, _, kind in (each.partition(".") for family in FAMILIES for each in family.classes):
        classes[library].append(kind)
    known = "; ".join(f"of {library} {', '.join(kinds)}" for library, kinds in classes.items())
    complaint = nearest.image.anatomy.complaint(module) or "all parts are there, but in another class."
    raise ResidualError(
        f"{type(module).__name__} is of no known family (known classes: {known}). Compared with the "
        f"nearest, {nearest.name}: {complaint} For a kind of your own: wrap_encoder(model, family=…), as "
        "CONTRIBUTING.md shows."
    )


def _load(name: str, spec: str, dtype: torch.dtype, classifier: bool) -> Loaded:
    if spec in EMBEDDED:
        return transformers_models.load(name, EMBEDDED[spec], FAMILIES, dtype, classifier)
    form, _, source = spec.partition(":")
    if form == "hf":
        local = local_path(source)
        kept = transformers_models.FILES, transformers_models.WEIGHTS
        folder = local if local.is_dir() else snapshot(name, source, *kept)
        return transformers_models.load(name, folder, FAMILIES, dtype, classifier)
    if form == "timm":
        return timm.load(name, source, classifier)
    if form == "torchvision":
        return torchvision.load(name, source, classifier)
    if classifier:
        raise ResidualError(f"{name}: models of open_clip have no classifier.")
    return open_clip.load(name, source)
