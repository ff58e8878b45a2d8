"""timm's `Eva`: EVA-02, DINOv3, the Perception Encoder and others with rotary positions, as timm holds them.

It pools its class token, an average (normed before or after) or by attention over all tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from residual.encoders.anatomy import Anatomy
from residual.encoders.families import timm
from residual.encoders.family import Tower
from residual.encoders.pooling import AttentionPool, LatentPool, MeanPool, Pool, TokenPool
from residual.errors import ResidualError

_ANATOMY = replace(timm.ANATOMY, attention_scale="gamma_1", mlp_scale="gamma_2", block_kinds=("EvaBlock",))
# What rotary positions depend on besides their weights; a kind that has no such setting has "".
_ROTARY = ("temperature", "in_pixels", "ref_feat_shape", "grid_offset", "grid_indexing", "rotate_half")


def _adjusted(module: Any, anatomy: Anatomy) -> Anatomy:
    kinds = {name: type(getattr(module, name)).__name__ for name in ("norm", "fc_norm")}
    norms = [name for name, kind in kinds.items() if kind != "Identity"]
    if len(norms) != 1:
        raise ResidualError(
            f"Eva can't be split: it norms {'twice' if norms else 'nothing'} after its blocks ({kinds}). Can "
            "be split: one norm, before or behind pooling."
        )
    pools: dict[str, Pool] = {
        "token": TokenPool(0),
        "avg": MeanPool(module.num_prefix_tokens, norm_first=norms == ["norm"]),
    }
    if module.attn_pool is not None and norms == ["norm"]:
        pool: Pool | None = AttentionPool("attn_pool", LatentPool)
    else:
        pool = None if module.attn_pool is not None else pools.get(module.global_pool)
    if pool is None:
        raise ResidualError(
            f"Eva can't be split: it pools by {module.global_pool!r}, which is no sum over tokens or no "
            "pooling, or norms behind attention. Can be split: token, avg, and map with a norm before it "
            "(timm.create_model(…, global_pool=…))."
        )
    scales = {
        f"{part}_scale": path
        for part, path in (("attention", "gamma_1"), ("mlp", "gamma_2"))
        if getattr(module.blocks[0], path, None) is not None
    }
    return replace(
        anatomy,
        **({"attention_scale": None, "mlp_scale": None} | scales),
        final_norm=norms[0],
        projection="head" if module.num_classes else None,
        pool=pool,
        prefix=module.num_prefix_tokens,
        class_token=module.cls_token is not None,
    )


def _settings(module: Any) -> str:
    rotary = [type(module.rope).__name__, *(getattr(module.rope, name, "") for name in _ROTARY)]
    return f"{module.blocks[0].mlp.act!r} {rotary}"


FAMILIES = (
    replace(
        timm.FAMILIES[0],
        name="timm Eva",
        classes=("timm.Eva",),
        image=Tower(_ANATOMY, timm.FAMILIES[0].image.encode, adjust=_adjusted),
        settings=_settings,
    ),
)
