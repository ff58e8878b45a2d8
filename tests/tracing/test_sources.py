"""A head by the token attended to: sums, the definition written out, every family and pooling."""

from __future__ import annotations

import pytest
import torch
from families import CASES, SPLIT_TEXT, open_clip_model, timm_model
from saved import clip_tokenizer
from tiny import random_pixels, tiny_clip, tiny_encoder
from torch import Tensor, nn

from residual import AdaptedEncoder, ResiDual, SpectralBases
from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError
from residual.tracing import Tokens, attention_weights
from residual.tracing.coordinates import SourcedCoordinates
from residual.tracing.decompose import decompose
from residual.tracing.sources import grid_of, source_scores
from residual.tracing.trace import trace

TOWERS = [(name, "image") for name in CASES] + [(name, "text") for name in SPLIT_TEXT]
ENDS = torch.tensor([9, 4, 6])
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def inputs(tower: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """Pixels; or texts that end at `ENDS`, behind which there is padding."""
    if tower == "image":
        return random_pixels(3, dtype=dtype)
    ids = torch.randint(1, 60, (3, 10), generator=torch.Generator().manual_seed(0))
    ids[torch.arange(3), ENDS] = 63
    return ids


def miss(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


def directions_for(encoder, tower: str = "image") -> Tensor:
    width = encoder.parts_of(tower).output_dim
    return torch.randn(4, width, dtype=encoder.dtype, generator=torch.Generator().manual_seed(2))


def heads_of(split) -> Tensor:
    return split.contributions[:, :, (split.units["kind"] == "head").to_list()]


def check(encoder, tower: str, pooling: str, allowed: float = 1e-10) -> None:
    """Every sum, and that both ways to the same numbers agree."""
    given = inputs(tower, encoder.dtype)
    got = decompose(encoder, given, pooling, tower=tower, sources=True)
    heads = heads_of(got)
    assert got.sources.shape == (*heads.shape[:3], len(got.tokens), heads.shape[3])
    assert miss(got.sources.sum(3), heads) < allowed
    assert miss(got.coordinates.sources.sum(-2), got.coordinates.z) < allowed
    assert (got.attention.sum(-1) - 1).abs().max() < allowed
    directions = directions_for(encoder, tower).to(heads)
    scores = source_scores(encoder, given, directions, tower=tower, pooling=pooling)
    expected = torch.einsum("ntujd,cd->ntucj", got.sources, directions)
    assert miss(scores.values.view_as(expected), expected) < allowed
    assert miss(scores.totals, scores.values.sum(-1)) < allowed
    whole = scores.output.to(heads) @ directions.T
    assert miss(scores.totals.sum(-2) + scores.rest, whole) < max(allowed, 1e-6)


@pytest.mark.parametrize(("name", "tower"), TOWERS)
def test_sources_sum_to_each_head(name, tower):
    check(wrap_encoder(CASES[name].make().double()), tower, "own")


@pytest.mark.parametrize("name", ["clip", "siglip", "timm pre-norm", "open_clip average", "beit"])
@pytest.mark.parametrize("pooling", ["avg", "all", "patches", "token:-1"])
def test_of_any_pooling(name, pooling):
    check(wrap_encoder(CASES[name].make().double()), "image", pooling)


@pytest.mark.parametrize("name", ["clip", "aimv2", "open_clip", "eva02"])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str)
def test_in_lower_precision(name, dtype, allowed):
    check(wrap_encoder(CASES[name].make().to(dtype)), "image", "own", allowed)


def test_the_definition_written_out():
    """`a_j = softmax(q·k_j/√h)`, `c_uj = (a_j v_j A ⊙ γ/s) P` and a `j`-th of all the rest."""
    encoder, pixels = tiny_encoder(layers=2, heads=2), random_pixels()
    vision = encoder.module.vision_model
    got = decompose(encoder, pixels, sources=True)
    expected = []
    with torch.no_grad():
        stream = vision.pre_layrnorm(vision.embeddings(pixels))
        for layer in vision.encoder.layers:
            attention, x = layer.self_attn, layer.layer_norm1(stream)
            for rows in torch.arange(x.shape[-1]).chunk(2):
                q, k, v = (
                    x @ part.weight[rows].T + part.bias[rows]
                    for part in (attention.q_proj, attention.k_proj, attention.v_proj)
                )
                a = (q[:, :1] @ k.transpose(1, 2) / len(rows) ** 0.5).softmax(-1)[:, 0]  # (n, j)
                expected.append((a, a[..., None] * v @ attention.out_proj.weight[:, rows].T))
            stream = stream + attention(x)[0]
            stream = stream + layer.mlp(layer.layer_norm2(stream))
        norm = vision.post_layernorm
        s = (stream[:, 0].var(-1, correction=0) + norm.eps).sqrt()[:, None, None]
        heads = heads_of(got)[:, 0]
        for unit, (a, own) in enumerate(expected):
            torch.testing.assert_close(got.attention.flatten(1, 2)[:, unit], a, **EXACT)
            own = own * norm.weight / s @ encoder.module.visual_projection.weight.T  # (n, j, d)
            even = (heads[:, unit] - own.sum(1)) / own.shape[1]
            torch.testing.assert_close(got.sources[:, 0, unit], own + even[:, None], **EXACT)
    assert got.tokens == Tokens(("class", *["patch"] * 4), (2, 2))


@pytest.mark.parametrize("name", ["clip", "timm pre-norm"])
def test_attention_of_a_softmax_and_a_product_is_seen_too(name, monkeypatch):
    model = CASES[name].make().double()
    fused = decompose(wrap_encoder(model), random_pixels(3), sources=True)
    if name == "clip":
        model.set_attn_implementation("eager")
    for part in model.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
    monkeypatch.delattr(torch.nn.functional, "scaled_dot_product_attention")
    got = decompose(wrap_encoder(model), random_pixels(3), sources=True)
    assert miss(got.sources, fused.sources) < 1e-6  # transformers' softmax is in float32


def test_of_adapted_and_ablated_encoders_and_of_directions_of_each_head():
    encoder = tiny_encoder()
    heads, generator = range(4, 16), torch.Generator().manual_seed(3)
    draws = [torch.randn(5, 12, generator=generator, dtype=torch.float64) for _ in heads]
    components, means = [torch.linalg.qr(draw.T)[0].T for draw in draws], torch.stack(draws)[:, 1]
    bases = SpectralBases(list(heads), means, components, [torch.arange(5.0).flip(0)] * len(draws))
    adapted = AdaptedEncoder(encoder, ResiDual(bases, others="keep").double())
    for each in (adapted, adapted.without(["1.0", "2.3"]), encoder.keep(["emb", "1.0"], "zero")):
        check(each.as_encoder(), "image", "own")
    units, pixels = ["2.1", "0.3"], random_pixels(3)
    split = decompose(adapted, pixels, sources=True)
    directions = torch.stack([directions_for(encoder), -2 * directions_for(encoder)])
    got = source_scores(adapted, pixels, directions, units)
    assert got.rest is None
    assert got.attention.shape == (3, 2, 5)
    at = [(2, 1), (0, 3)]
    for place, (layer, head) in enumerate(at):
        expected = split.sources[:, 0, 4 * layer + head] @ directions[place].T  # (n, j, c)
        torch.testing.assert_close(got.values[:, place], expected.transpose(1, 2), **EXACT)
        torch.testing.assert_close(got.attention[:, place], split.attention[:, layer, head], **EXACT)
    assert [f"{row.layer}.{row.head}" for row in got.units.itertuples()] == units


def test_what_follows_the_end_of_a_text_gives_nothing():
    encoder = wrap_encoder(tiny_clip(), tokenizer=clip_tokenizer()[0])
    got = decompose(encoder, inputs("text"), tower="text", sources=True)
    behind = torch.arange(10) > ENDS[:, None]
    assert got.sources.movedim(3, 1)[behind].count_nonzero() == 0
    assert got.sources.movedim(3, 1)[~behind].norm(dim=-1).min() > 0
    scores = source_scores(encoder, ["a cat", "cats"], directions_for(encoder, "text"), tower="text")
    assert scores.tokens.words[1] == ("<|startoftext|>", *"cats", "<|endoftext|>", "", "", "", "")
    assert scores.tokens.kinds == ("word",) * 10


def test_without_sources_nothing_changes():
    encoder, pixels = wrap_encoder(open_clip_model()), random_pixels(dtype=torch.float32)
    before, output = trace(encoder, pixels)
    by_source, again = trace(encoder, pixels, sources=True)
    assert isinstance(by_source, SourcedCoordinates)
    assert type(before) is not SourcedCoordinates
    assert torch.equal(again, output)
    assert all(torch.equal(getattr(by_source, name), getattr(before, name)) for name in ("z", "mlp", "emb"))
    assert by_source[:2].sources.shape == (2, *by_source.sources.shape[1:])
    assert by_source.only(["mlp"]).sources is None
    assert not any(part._forward_pre_hooks for part in encoder.module.modules())
    torch.testing.assert_close(attention_weights(encoder, pixels, pooling="own"), by_source.attention)


def test_a_compiled_encoder_runs_uncompiled():
    def compiler(function):
        raise AssertionError("compiled")

    encoder = wrap_encoder(CASES["timm average of normed"].make().double()).compile(compiler)
    assert decompose(encoder, random_pixels(2), sources=True).sources.isfinite().all()


def test_what_cannot_be_split_is_refused_by_name(monkeypatch):
    encoder, pixels = wrap_encoder(timm_model()), random_pixels(2, dtype=torch.float32)
    attention = encoder.module.blocks[1].attn
    attention.norm = nn.Tanh()
    with pytest.raises(ResidualError, match=r"heads of block 1 \(a Block\) attend to misses what they give"):
        decompose(encoder, pixels, sources=True)
    monkeypatch.setattr(attention, "forward", lambda x, **_: attention.proj(x))
    with pytest.raises(ResidualError, match=r"block 1 \(a Block\) attend to can't be seen"):
        attention_weights(encoder, pixels)
    assert not any(part._forward_pre_hooks for part in encoder.module.modules())
    decompose(encoder, pixels)


def test_what_is_asked_for_wrongly():
    encoder, pixels = tiny_encoder(), random_pixels(2)
    with pytest.raises(ResidualError, match=r"Heads attend to tokens, and mlp\.1 is none"):
        source_scores(encoder, pixels, directions_for(encoder), ["0.1", "mlp.1"])
    with pytest.raises(ResidualError, match=r"Directions are \(c, 12\), or \(1, c, 12\).* got \(4, 3\)"):
        source_scores(encoder, pixels, torch.zeros(4, 3), ["0.1"])


# The last is one column of wide patches: as many as two by two would be.
@pytest.mark.parametrize(
    ("size", "patch", "grid"),
    [
        ((48, 32), 16, (3, 2)),
        ((32, 64), 16, (2, 4)),
        ((32, 32), (16, 8), (2, 4)),
        ((32, 32), (8, 32), (4, 1)),
    ],
)
def test_the_grid_of_patches(size, patch, grid):
    encoder = wrap_encoder(timm_model(image_size=size, patch_size=patch, reg_tokens=2))
    pixels = torch.zeros(1, 3, *size)
    tokens = source_scores(encoder, pixels, directions_for(encoder)).tokens
    assert tokens.kinds[:4] == ("class", "register", "register", "patch")
    assert tokens.grid == grid
    assert tokens.patches == list(range(3, 3 + grid[0] * grid[1]))


def test_grids_of_patches_that_are_cut_off_padded_or_overlap():
    assert grid_of((40, 50), 2 * 3) == (2, 3)
    assert grid_of((40, 50), 3 * 4) == (3, 4)
    assert grid_of((32, 32), 9 * 9) == (9, 9)
    assert grid_of((32, 48), 7) is None
