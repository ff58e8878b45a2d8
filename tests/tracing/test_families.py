"""Every family: units sum to what the model's own library gives, and each is what its definition says.

Nothing of `residual` goes into the expected values: where parts are, what heads and MLPs write, the last
norm, the pooling and the projection are written out here, from plain hooks on an untouched model.
"""

from __future__ import annotations

from collections import defaultdict
from operator import attrgetter
from typing import Any

import pandas as pd
import pytest
import torch
from families import CASES, PATCH, PATCHES
from hypothesis import given, settings
from hypothesis import strategies as st
from saved import IMAGE_OUTPUT
from tiny import random_pixels
from torch import Tensor, nn

from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError
from residual.tracing.decompose import decompose
from residual.tracing.linearization import Linearization

LAYERS, HEADS = 2, 3
FAMILY = pytest.mark.parametrize("name", CASES)
CENTERING = pytest.mark.parametrize("centering", ["shared", "own"])

# Where things are, by class: blocks, a block's output projection, the last norm, the projection. From version
# to version transformers moves some.
INNER = ("vision_model.encoder.layers", "self_attn.out_proj", "vision_model.post_layernorm")
CLIP = (*INNER, "visual_projection")
OPEN_CLIP = ("transformer.resblocks", "attn.out_proj", "ln_post", "proj")
VIT = ("layers or encoder.layer", "attention.o_proj or attention.output.dense", "layernorm", None)
BEIT = (VIT[0], VIT[1], "pooler.layernorm or layernorm", None)
DINO = ("encoder.layer", VIT[1], "layernorm", None)
PLACES: dict[str, tuple[str, str, str, str | None]] = {
    "CLIPModel": CLIP,
    "CLIPVisionModelWithProjection": CLIP,
    "SiglipModel": (*INNER, None),
    "SiglipVisionModel": (
        "encoder.layers or vision_model.encoder.layers",
        "self_attn.out_proj",
        "post_layernorm or vision_model.post_layernorm",
        None,
    ),
    "BlipForImageTextRetrieval": (INNER[0], "self_attn.projection", INNER[2], "vision_proj"),
    "ViTModel": VIT,
    "ViTForImageClassification": ("vit.layers or vit.encoder.layer", VIT[1], "vit.layernorm", "classifier"),
    "Dinov2Model": DINO,
    "Dinov2WithRegistersModel": DINO,
    "MetaClip2Model": CLIP,
    "Siglip2Model": (*INNER, None),
    "DINOv3ViTModel": ("model.layer or layer", VIT[1], "norm", None),
    "Aimv2Model": (INNER[0], "attention.out_proj", "vision_model.rms_norm", "visual_projection"),
    "Aimv2VisionModel": ("encoder.layers", "attention.out_proj", "rms_norm", None),
    "DeiTModel": VIT,
    "DeiTForImageClassification": (
        "deit.layers or deit.encoder.layer",
        VIT[1],
        "deit.layernorm",
        "classifier",
    ),
    "CLIPVisionModel": (
        "encoder.layers or vision_model.encoder.layers",
        "self_attn.out_proj",
        "post_layernorm or vision_model.post_layernorm",
        None,
    ),
    "BeitModel": BEIT,
    "Data2VecVisionModel": BEIT,
    "BeitForImageClassification": (
        "beit.layers or beit.encoder.layer",
        VIT[1],
        "beit.pooler.layernorm",
        "classifier",
    ),
    "DeiTForImageClassificationWithTeacher": (
        "deit.layers or deit.encoder.layer",
        VIT[1],
        "deit.layernorm",
        None,
    ),
}
# How the tokens from the second on become one, where it isn't the first token that is pooled.
POOLS = {
    "open_clip average": ("mean of normed", 1),
    "open_clip norm after average": ("norm of mean", 1),
    "siglip": ("attention", 0),
    "siglip vision": ("attention", 0),
    "timm norm after average": ("norm of mean", 1),
    "timm average of normed": ("mean of normed", 1),
    "timm average, no class token": ("norm of mean", 0),
    "timm average of all": ("norm of mean", 0),
    "timm attention pool": ("attention", 0),
    "timm attention pool past a class token": ("attention", 1),
    "siglip2": ("attention", 0),
    "aimv2": ("attention", 0),
    "aimv2 vision average": ("mean of normed", 0),
    "timm aimv2 average": ("mean of normed", 0),
    "beit": ("norm of mean", 1),
    "data2vec": ("norm of mean", 1),
    "timm beit": ("norm of mean", 1),
    "timm deit": ("mean of normed", slice(0, 2)),
    "timm deit classifiers": ("two heads", slice(0, 2)),
    "deit classifiers": ("two heads", slice(0, 2)),
    "eva average": ("norm of mean", 1),
    "eva dinov3 average": ("mean of normed", 3),
    "eva perception": ("attention", 0),
}


def raw_output(model: nn.Module, pixels: Tensor) -> Tensor:
    """The image output as users of the model's own library get it."""
    own = IMAGE_OUTPUT.get(type(model).__name__)
    with torch.no_grad():
        return own(model, pixels) if own else getattr(model, "encode_image", model)(pixels)


def part(module: Any, paths: str) -> Any:
    for path in paths.split(" or "):
        try:
            found = attrgetter(path)(module)
        except AttributeError:
            continue
        if found is not None:
            return found
    raise AttributeError(paths)


def image_tower(model: Any) -> tuple[Any, tuple[str, str, str, str | None]]:
    if type(model).__name__ in PLACES:
        return model, PLACES[type(model).__name__]
    if type(model).__module__.startswith("timm"):
        norm = "norm" if isinstance(model.fc_norm, nn.Identity) else "fc_norm"
        two = hasattr(model, "head_dist")
        return model, ("blocks", "attn.proj", norm, "head" if model.num_classes and not two else None)
    if type(model).__module__.startswith("torchvision"):
        return model, ("encoder.layers", "self_attention.out_proj", "encoder.ln", "heads.head")
    return getattr(model, "visual", model), OPEN_CLIP


def scale(block: nn.Module, which: int) -> Tensor | float:
    named = dict(block.named_parameters())
    paths = (f"ls_{which}.gamma", f"ls{which}.gamma", f"layer_scale{which}.lambda1", f"gamma_{which}")
    paths += (f"lambda_{which}",)
    return next((named[path] for path in paths if path in named), 1.0)


def mlp_of(block: Any) -> nn.Module:
    return part(block, "ffn or mlp or output.dense")


def heads_outputs(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """What its output projection gets `(n, t, D)`: torch never shows it."""
    joined = tokens @ attention.in_proj_weight.T + attention.in_proj_bias
    q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in joined.chunk(3, dim=-1))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def vectors_by_hand(model: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Each unit's vector at each token `(n, t, u, D)`, and the stream that they sum to."""
    tower, (at_blocks, at_output, _, _) = image_tower(model)
    blocks, seen, hooks = part(tower, at_blocks), defaultdict(list), []

    def first(module, args, kwargs):
        seen["emb"].append(args[0] if args else kwargs["hidden_states"])

    hooks.append(blocks[0].register_forward_pre_hook(first, with_kwargs=True))
    for block in blocks:
        output = part(block, at_output)
        holder = part(block, at_output.split(" or ")[0].rpartition(".")[0])
        hidden = isinstance(holder, nn.MultiheadAttention)

        def heads(module, args, holder=holder, hidden=hidden):
            seen["z"].append(heads_outputs(holder, args[0]) if hidden else args[0])

        hooks.append((holder if hidden else output).register_forward_pre_hook(heads))

        def mlp(module, args, out, block=block):
            seen["mlp"].append(out * scale(block, 2))

        hooks.append(mlp_of(block).register_forward_hook(mlp))

    def last(module, args, out):
        seen["stream"].append(out[0] if isinstance(out, tuple) else out)

    hooks.append(blocks[-1].register_forward_hook(last))
    raw_output(model, pixels)
    for hook in hooks:
        hook.remove()
    by_head = []
    for block, z in zip(blocks, seen["z"], strict=True):
        output = part(block, at_output)
        bias = 0 if output.bias is None else output.bias / HEADS
        for columns in torch.arange(z.shape[-1]).chunk(HEADS):
            by_head.append((z[..., columns] @ output.weight[:, columns].T + bias) * scale(block, 1))
    return torch.stack([*seen["emb"], *seen["mlp"], *by_head], dim=2).detach(), seen["stream"][0]


def attention_pool(model: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Any]:
    """Softmax weights `(n, P, t)` of normed tokens, maps of the values `(P, D, D)`, the constant, the MLP."""
    if hasattr(model, "attn_pool"):
        pool, query = model.attn_pool, model.attn_pool.latent[0, 0]
        out, pool_norm = pool.proj, pool.norm
        weights = (pool.q.weight, *pool.kv.weight.chunk(2))
        biases = (pool.q.bias, *pool.kv.bias.chunk(2))
    elif hasattr(pool := getattr(model, "vision_model", model).head, "output_proj"):
        query, out = pool.cls_token[0, 0], pool.output_proj
        weights, biases = (
            (torch.eye(len(query)), pool.k_proj.weight, pool.v_proj.weight),
            torch.zeros(3, len(query)),
        )
    else:
        query, out, pool_norm = pool.probe[0, 0], pool.attention.out_proj, pool.layernorm
        weights, biases = pool.attention.in_proj_weight.chunk(3), pool.attention.in_proj_bias.chunk(3)
    shares, maps = [], []
    weights, biases = [each.double() for each in weights], [each.double() for each in biases]
    for rows in torch.arange(tokens.shape[-1]).chunk(getattr(pool, "num_heads", HEADS)):
        q, k = query @ weights[0][rows].T + biases[0][rows], tokens @ weights[1][rows].T + biases[1][rows]
        shares.append((k @ q / len(rows) ** 0.5).softmax(-1))
        maps.append(weights[2][rows].T @ out.weight[:, rows].T)
    constant = biases[2] @ out.weight.T + out.bias
    mlp = (lambda x: pool.mlp(pool_norm(x))) if hasattr(pool, "mlp") else None
    return torch.stack(shares, 1), torch.stack(maps), constant, mlp


def two_heads(model: Any) -> list[nn.Linear]:
    names = ("head", "head_dist") if hasattr(model, "head") else ("cls_classifier", "distillation_classifier")
    return [getattr(model, name) for name in names]


@torch.no_grad()
def contributions_by_hand(name: str, model: Any, vectors: Tensor, stream: Tensor, w: Tensor, centering: str):
    """`Σ_j a_j ((x_uj − mean) γ/s_j + w_u β) P + w_u p` over the pooled tokens `j`; `w` are the shares."""
    tower, (_, _, at_norm, at_projection) = image_tower(model)
    norm = part(tower, at_norm)
    how, first = POOLS.get(name, ("token", slice(0, 1)))
    tokens = first if isinstance(first, slice) else slice(first, None)
    x, stream = vectors[:, tokens], stream[:, tokens]
    if how == "norm of mean":
        x, stream = x.mean(1, keepdim=True), stream.mean(1, keepdim=True)
    if isinstance(norm, nn.LayerNorm):
        mean, s = stream.mean(-1), (stream.var(-1, correction=0) + norm.eps).sqrt()
        lost = x.mean(-1, keepdim=True) if centering == "own" else w[:, None] * mean[..., None, None]
        normed = (x - lost) * norm.weight / s[..., None, None] + w[:, None] * norm.bias
    else:
        eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
        normed = x * norm.weight / (stream.square().mean(-1) + eps).sqrt()[..., None, None]
    if how == "attention":
        shares, maps, constant, mlp = attention_pool(model, norm(stream))
        pooled = torch.einsum("npt,ntux,pxy->nuy", shares, normed, maps) + w[:, None] * constant
        at = 1 + (vectors.shape[2] - 1) // (1 + HEADS)  # behind the embedding and the blocks' MLPs
        if mlp is not None:
            pooled = torch.cat([pooled[:, :at], mlp(pooled.sum(1))[:, None], pooled[:, at:]], dim=1)
            w = torch.cat([w[:at], w.new_zeros(1), w[at:]])
    elif how == "two heads":
        parts = [normed[:, j] @ h.weight.T + w[:, None] * h.bias for j, h in enumerate(two_heads(model))]
        pooled = sum(parts) / 2
    else:
        pooled = normed.mean(1)
    projection = at_projection and part(tower, at_projection)
    if projection is None:
        return pooled
    if isinstance(projection, nn.Linear):
        bias = 0 if projection.bias is None else w[:, None] * projection.bias
        return pooled @ projection.weight.T + bias
    return pooled @ projection


def shares_of(layers: int) -> Tensor:
    stream_units = 2 * layers + 1
    by_kind = [1 / stream_units] * (1 + layers) + [1 / (stream_units * HEADS)] * (layers * HEADS)
    return torch.tensor(by_kind, dtype=torch.float64)


def miss(got: Tensor, expected: Tensor) -> float:
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


@FAMILY
@CENTERING
def test_sums_shapes_and_units(name, centering):
    case, pixels = CASES[name], random_pixels()
    model = case.make().double()
    expected, encoder = raw_output(model, pixels), wrap_encoder(model, centering)
    assert (encoder.parts.prefix, encoder.parts.class_token) == (case.prefix, case.class_token)
    got = decompose(encoder, pixels)
    mlps = LAYERS + case.pool_mlp
    assert got.contributions.shape == (5, 1, 1 + mlps + LAYERS * HEADS, expected.shape[1])
    assert got.output.shape == (5, 1, encoder.output_dim)
    assert miss(got.contributions.sum(2)[:, 0], expected) < case.allowed
    assert got.units["kind"].tolist() == ["emb"] + ["mlp"] * mlps + ["head"] * (LAYERS * HEADS)
    assert got.units["unit"].tolist() == list(range(len(got.units)))
    layers = pd.Series([pd.NA, *range(mlps), *[0] * HEADS, *[1] * HEADS], dtype="Int64")
    heads = pd.Series([pd.NA] * (1 + mlps) + [0, 1, 2] * LAYERS, dtype="Int64")
    pd.testing.assert_series_equal(got.units["layer"], layers, check_names=False)
    pd.testing.assert_series_equal(got.units["head"], heads, check_names=False)
    assert decompose(encoder, pixels, "all").contributions.shape[:2] == (5, case.prefix + PATCHES)


@FAMILY
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str)
def test_sums_in_lower_precision(name, dtype, allowed):
    model, pixels = CASES[name].make().to(dtype), random_pixels(8, dtype=dtype)
    expected = raw_output(model, pixels)
    for centering in ("shared", "own"):
        got = decompose(wrap_encoder(model, centering), pixels)
        assert got.contributions.dtype == torch.float32
        assert miss(got.contributions.sum(2), got.output) < allowed
        # In half precision our forward pass, of fewer tokens in the last block, rounds a little otherwise.
        assert miss(got.contributions.sum(2)[:, 0], expected) < (1e-5 if dtype == torch.float32 else 2e-2)


@FAMILY
@CENTERING
def test_every_unit_is_what_its_definition_says(name, centering):
    model, pixels = CASES[name].make().double(), random_pixels()
    vectors, stream = vectors_by_hand(model, pixels)
    torch.testing.assert_close(vectors.sum(2), stream, rtol=1e-12, atol=1e-12)
    expected = contributions_by_hand(name, model, vectors, stream, shares_of(LAYERS), centering)
    got = decompose(wrap_encoder(model, centering), pixels).contributions[:, 0]
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@FAMILY
def test_a_head_isolated_by_hand(name):
    """With all else that the block writes at zero, the head is what the block adds; the others are still."""
    model, pixels = CASES[name].make(layers=1).double(), random_pixels()
    tower, (at_blocks, at_output, _, _) = image_tower(model)
    (block,) = part(tower, at_blocks)
    output = part(block, at_output)
    last = [part for part in mlp_of(block).modules() if isinstance(part, nn.Linear)][-1]
    with torch.no_grad():
        for value in (output.bias, last.weight, last.bias):
            if value is not None:
                value.zero_()
        first, _, third = output.weight.chunk(HEADS, dim=1)
        first.zero_(), third.zero_()
    vectors, stream = vectors_by_hand(model, pixels)
    before, none = vectors[:, :, 0], torch.zeros_like(stream)
    vectors = torch.stack([before, none, none, stream - before, none], 2)
    expected = contributions_by_hand(name, model, vectors, stream, shares_of(1), "own")
    got = decompose(wrap_encoder(model, "own"), pixels).contributions[:, 0]
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
    moves = (got - got[:1]).abs().amax((0, 2)) > 1e-10 * got.abs().max()
    mlps = [True] if CASES[name].pool_mlp else []  # an attention pool's own
    assert moves.tolist() == [True, False, *mlps, False, True, False]


OF_ANY_SIZE = [name for name in CASES if name.startswith(("open_clip", "timm", "dinov2"))]


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(OF_ANY_SIZE),
    layers=st.integers(1, 4),
    heads=st.integers(1, 5),
    head_width=st.integers(3, 9),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    centering=st.sampled_from(["shared", "own"]),
    seed=st.integers(0, 10_000),
)
def test_sums_of_models_of_any_size(name, layers, heads, head_width, grid, centering, seed):
    size = (PATCH * grid[0], PATCH * grid[1])
    own_size = PATCH if name.startswith("dinov2") else size  # one that takes any
    sizes = {"layers": layers, "heads": heads, "width": heads * head_width, "seed": seed}
    model = CASES[name].make(image_size=own_size, **sizes).double()
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    got = decompose(wrap_encoder(model, centering), pixels)
    assert len(got.units) == 1 + layers + CASES[name].pool_mlp + layers * heads
    assert miss(got.contributions.sum(2)[:, 0], raw_output(model, pixels)) < 1e-12


@FAMILY
def test_one_black_image_and_pixels_that_are_not_contiguous(name):
    model = CASES[name].make().double()
    encoder, black = wrap_encoder(model), torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    got = decompose(encoder, black).contributions.sum(2)[:, 0]
    assert miss(got, raw_output(model, black)) < CASES[name].allowed
    channels_last = random_pixels(4).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    every_other = random_pixels(3, 64)[:, :, ::2, 1::2]
    for pixels in (channels_last, every_other, random_pixels(1).expand(3, -1, -1, -1)):
        got, plain = decompose(encoder, pixels), decompose(encoder, pixels.contiguous())
        allowed = CASES[name].allowed
        torch.testing.assert_close(got.contributions, plain.contributions, rtol=allowed, atol=allowed)


@pytest.mark.parametrize("size", [(48, 48), (16, 64), (40, 50)])
def test_dinov2_takes_images_of_another_size_than_its_configs(size):
    model = CASES["dinov2 registers"].make().double()
    encoder, pixels = wrap_encoder(model), random_pixels(2, 64)[..., : size[0], : size[1]]
    assert miss(decompose(encoder, pixels).contributions.sum(2)[:, 0], raw_output(model, pixels)) < 1e-12
    assert decompose(encoder, pixels, "patches").output.shape[1] == (size[0] // PATCH) * (size[1] // PATCH)


@pytest.mark.parametrize("name", ["aimv2", "timm aimv2 average"])
def test_an_rms_norm_has_no_mean_to_be_shared(name):
    model, pixels = CASES[name].make().double(), random_pixels()
    shared, own = (decompose(wrap_encoder(model, centering), pixels) for centering in ("shared", "own"))
    assert torch.equal(shared.contributions, own.contributions)
    assert not shared.coordinates.mean.any()
    again = Linearization.unpack(shared.linearization.pack(), "a file")
    assert wrap_encoder(model, "none").centering == again.centering == "none"
    assert torch.equal(again.contributions(shared.coordinates), shared.contributions[:, 0])
    with pytest.raises(
        ResidualError, match="norms with a mean, so centering is 'shared' or 'own', got 'none'"
    ):
        wrap_encoder(CASES["vit"].make(), "none")
