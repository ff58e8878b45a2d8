"""timm's `VisionTransformer`, with its classifier or without.

It pools its class token, an average (normed before or after) or by attention; it may have registers and layer
scales.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from residual.encoders.anatomy import Anatomy
from residual.encoders.family import Family, Tower
from residual.encoders.pooling import AttentionPool, LatentPool, MeanPool, TokenPool
from residual.encoders.preprocess import OnWhite
from residual.encoders.sources import (
    Loaded,
    check_built,
    check_configs,
    load_errors,
    require_safetensors,
    snapshot,
)
from residual.errors import ResidualError, unknown_name
from residual.files import local_path
from residual.libraries import library

ANATOMY = Anatomy(
    blocks="blocks",
    attention_output="attn.proj",
    heads="attn.num_heads",
    mlp="mlp",
    final_norm="norm",
    attention_scale="ls1.gamma",
    mlp_scale="ls2.gamma",
    block_kinds=("Block",),
)
_WEIGHTS = "model.safetensors"
FILES, WEIGHTS = ("config.json",), (_WEIGHTS,)
_POOLS = ("token", "avg", "map")


def anatomy_of(module: Any, anatomy: Anatomy) -> Anatomy:
    """Where this module pools, norms and classifies.

    Raises:
        ResidualError: it pools in a way that can't be split.
    """
    if module.global_pool not in _POOLS:
        raise ResidualError(
            f"VisionTransformer can't be split: it pools by {module.global_pool!r}, which is no sum over "
            f"tokens or no pooling. Can be split: {', '.join(_POOLS)} (timm.create_model(…, global_pool=…))."
        )
    prefix = module.num_prefix_tokens
    first = 0 if module.pool_include_prefix else prefix
    norm_last = type(module.fc_norm).__name__ != "Identity"
    pools = {
        "token": TokenPool(0),
        "avg": MeanPool(first, norm_first=not norm_last),
        "map": AttentionPool("attn_pool", LatentPool, first),
    }
    return replace(
        anatomy,
        final_norm="fc_norm" if norm_last else "norm",
        projection="head" if module.num_classes else None,
        pool=pools[module.global_pool],
        prefix=prefix,
        class_token=module.has_class_token,
    )


def preprocess_of(module: Any) -> OnWhite:
    """timm's own transform for this model.

    Raises:
        ResidualError: it makes pictures of a size that the model doesn't take.
    """
    from timm.data import create_transform, resolve_data_config

    # A model may have been made for another size than its settings say, or have none.
    fixed = not getattr(module, "dynamic_img_size", False)
    size = {"input_size": (3, *module.patch_embed.img_size)} if fixed else {}
    config, patches = resolve_data_config(size, model=module), module.patch_embed
    if any(side % patch for side, patch in zip(config["input_size"][1:], patches.patch_size, strict=True)):
        raise ResidualError(
            f"Its pretrained_cfg asks for pictures of {tuple(config['input_size'][1:])}, which patches of "
            f"{tuple(patches.patch_size)} don't divide."
        )
    return OnWhite(create_transform(**config, is_training=False))


FAMILIES = (
    Family(
        name="timm VisionTransformer",
        classes=("timm.VisionTransformer",),
        image=Tower(ANATOMY, lambda module, pixels: module(pixels), adjust=anatomy_of),
        image_size=lambda module: None if module.dynamic_img_size else module.patch_embed.img_size,
        settings=lambda module: repr(module.blocks[0].mlp.act),
        preprocess=preprocess_of,
    ),
)


def load(name: str, source: str, classifier: bool) -> Loaded:
    """`NAME` with weights from the hub, a folder, `hf-hub:REPO`, or `NAME/FILE.safetensors`.

    Raises:
        ResidualError: timm isn't installed, or there are no such weights as safetensors.
    """
    timm = library("timm", name, extra="timm")
    folder = local_path(source)
    if folder.is_dir():
        return _from_folder(timm, name, folder, classifier)
    architecture, _, weights = source.partition("/")
    if weights.endswith(".safetensors"):
        file = local_path(weights)
        if not file.is_file():
            raise ResidualError(f"{name}: there is no file {weights!r}.")
        with load_errors(name, file), safe_open(file, "pt") as tensors:
            names = set(tensors.keys())
            classes = tensors.get_slice("head.weight").get_shape()[0] if "head.weight" in names else 0
        overlay = {"file": str(file), "num_classes": classes}
        return _load(
            timm, name, architecture, file, classifier, num_classes=classes, pretrained_cfg_overlay=overlay
        )
    return _from_folder(timm, name, snapshot(name, repository_of(name, source), FILES, WEIGHTS), classifier)


def repository_of(name: str, source: str) -> str:
    """The repository of the hub with the weights of `NAME`, as timm lists it, or of `hf-hub:REPO`.

    Raises:
        ResidualError: timm has no such model, or no weights of it.
    """
    repo = source.removeprefix("hf-hub:")
    if repo != source:
        return repo
    timm = library("timm", name, extra="timm")
    if not timm.is_model(source):
        raise ResidualError(f"{name}: {unknown_name('model of timm', source, timm.list_models())}")
    with load_errors(name, "timm's list"):
        repo = getattr(timm.models.get_pretrained_cfg(source), "hf_hub_id", None)
    if not repo:
        raise ResidualError(f"{name}: timm has no weights of {source!r}.")
    return repo


def _from_folder(timm: Any, name: str, folder: Path, classifier: bool) -> Loaded:
    require_safetensors(name, folder, _WEIGHTS)
    check_configs(name, folder, ["config.json"])
    check_built(name, folder, lambda: timm.create_model(f"local-dir:{folder}"))
    return _load(timm, name, f"local-dir:{folder}", folder, classifier)


def _load(timm: Any, name: str, model: str, source: Path, classifier: bool, **how: Any) -> Loaded:
    """With as many classes as were saved, so that timm lets no weight be missing; then without them."""
    with load_errors(name, source):
        module = timm.create_model(model, pretrained=True, **how)
    if not classifier:
        module.reset_classifier(0)
    elif not module.num_classes:
        raise ResidualError(f"{name}: the model in {source} was saved without a classifier.")
    with load_errors(name, source):
        return Loaded(module, preprocess_of(module))
