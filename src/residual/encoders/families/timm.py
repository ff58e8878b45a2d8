"""timm's `VisionTransformer`: class token, average (normed before or after) or attention pooling, registers, layer
scales; with its classifier or without.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from residual.encoders.anatomy import Anatomy
from residual.encoders.family import Family, Tower
from residual.encoders.pooling import AttentionPool, LatentPool, MeanPool, TokenPool
from residual.encoders.preprocess import OnWhite
from residual.encoders.sources import Loaded, fetched, fetching, has_safetensors, library, reading
from residual.errors import ResidualError

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
_POOLS = ("token", "avg", "map")


def anatomy_of(module: Any, anatomy: Anatomy) -> Anatomy:
    """Where this module pools, norms and classifies."""
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
    """timm's own transform for this model."""
    from timm.data import create_transform, resolve_data_config

    # A model may have been made for another size than its settings say, or have none.
    fixed = not getattr(module, "dynamic_img_size", True)
    size = {"input_size": (3, *module.patch_embed.img_size)} if fixed else {}
    return OnWhite(create_transform(**resolve_data_config(size, model=module), is_training=False))


FAMILIES = (
    Family(
        name="timm VisionTransformer",
        classes=("timm.VisionTransformer",),
        image=Tower(ANATOMY, lambda module, pixels: module(pixels), adjust=anatomy_of),
        image_size=lambda module: None if module.dynamic_img_size else module.patch_embed.img_size,
        settings=lambda module: type(module.blocks[0].mlp.act).__name__,
        preprocess=preprocess_of,
    ),
)


def load(name: str, place: str, classifier: bool) -> Loaded:
    """`NAME` with weights from the hub, a folder, `hf-hub:REPO`, or `NAME/FILE.safetensors`."""
    timm = library("timm", name, extra="timm")
    how: dict[str, Any] = {} if classifier else {"num_classes": 0}
    folder = Path(place).expanduser()
    if not folder.is_dir():
        architecture, _, weights = place.partition("/")
        if weights.endswith(".safetensors"):
            how["pretrained_cfg_overlay"] = {"file": str(Path(weights).expanduser())}
            if not Path(weights).expanduser().is_file():
                raise ResidualError(f"{name}: there is no file {weights!r}.")
            return _load(timm, name, architecture, how)
        with fetching(name):
            config = None if ":" in place else timm.models.get_pretrained_cfg(place, allow_unregistered=False)
        repo = place.removeprefix("hf-hub:") if config is None else config.hf_hub_id
        if not repo:
            raise ResidualError(f"{name}: timm knows no weights of {place!r} on the hub.")
        folder = fetched(name, repo, ["config.json", "model.safetensors"])
    has_safetensors(name, folder, "model.safetensors")
    return _load(timm, name, f"local-dir:{folder}", how)


def _load(timm: Any, name: str, model: str, how: dict[str, Any]) -> Loaded:
    with reading(name, model):
        module = timm.create_model(model, pretrained=True, **how)
        return Loaded(module, preprocess_of(module))
