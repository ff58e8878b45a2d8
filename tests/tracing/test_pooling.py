"""Every pooling of every family, images and texts: sums, shapes, how poolings agree, what is refused."""

from __future__ import annotations

import open_clip
import pytest
import torch
from families import CASES, IMAGE, PATCHES, SPLIT_TEXT, open_clip_model, timm_model
from saved import TOKENIZERS
from saved import pooled as pooled_output
from tiny import random_pixels
from torch import Tensor, nn

from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError
from residual.tracing.decompose import decompose
from residual.tracing.units import Units

# They pool as another case does, with the same code.
ALIKE = (
    "metaclip2", "siglip2", "dinov3", "deit", "timm deit classifiers", "eva02", "eva dinov3 average",
    "clip vision without projection", "deit classifier", "beit class token", "data2vec", "timm beit",
    "timm beit class token", "torchvision",
)  # fmt: skip
FAMILY = pytest.mark.parametrize("name", [name for name in CASES if name not in ALIKE])
TEXT = pytest.mark.parametrize("name", SPLIT_TEXT)
CENTERINGS = ("shared", "own")
CENTERING = pytest.mark.parametrize("centering", CENTERINGS)
POOLINGS = ["own", "cls", "avg", "avg:all", "all", "patches", "token:0", "token:2", "token:-1"]
# What each encoder does itself, where that has a name among the poolings; None for an attention pool.
OWN = {
    **{name: None for name, case in CASES.items() if case.pool_mlp or case.pool},
    **{name: "avg" for name in CASES if "average" in name},
    "timm average of all": "avg:all",
    "beit": "avg",
}
NORM_AFTER = (
    "open_clip norm after average",
    "timm norm after average",
    "timm average, no class token",
    "timm average of all",
    "eva average",
    "beit",
)
TEXT_LENGTH, ENDS = 10, [9, 1, 4, 7, 2]


def exact(got: Tensor, expected: Tensor, allowed: float = 1e-12) -> None:
    assert got.shape == expected.shape
    assert (got - expected).norm() <= allowed * expected.norm()


def same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


def last_hidden_state(encoder, pixels: Tensor) -> Tensor:
    """What leaves the last block, from a plain forward pass; with older transformers, first of several."""
    seen = []
    hook = encoder.parts.blocks[-1].block.register_forward_hook(lambda _, args, output: seen.append(output))
    with torch.no_grad():
        encoder.encode_image(pixels)
    hook.remove()
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


def normed_and_projected(encoder, tokens: Tensor) -> Tensor:
    norm, projection = encoder.parts.final_norm, encoder.parts.projection
    if isinstance(norm, nn.LayerNorm):
        normed = nn.functional.layer_norm(tokens, tokens.shape[-1:], norm.weight, norm.bias, norm.eps)
    else:
        normed = nn.functional.rms_norm(tokens, tokens.shape[-1:], norm.weight, encoder.parts.epsilon)
    if projection is None:
        return normed
    weight, bias = projection.affine()
    return normed @ weight + (0 if bias is None else bias)


@FAMILY
@torch.no_grad()
def test_every_pooling_sums_to_norm_and_projection_by_hand(name):
    case, pixels = CASES[name], random_pixels(3)
    model = case.make().double()
    encoders = [wrap_encoder(model, centering) for centering in CENTERINGS]
    stream, own = last_hidden_state(encoders[0], pixels), encoders[0].encode_image(pixels)[:, None]
    for pooling in POOLINGS:
        if pooling == "cls" and not case.class_token:
            with pytest.raises(ResidualError, match=r"has no class token; pooling 'own' is what it does"):
                decompose(encoders[0], pixels, "cls")
            continue
        expected = own if pooling == "own" else pooled(name, encoders[0], stream, pooling)
        tokens = {"all": case.prefix + PATCHES, "patches": PATCHES}.get(pooling, 1)
        pool_mlp = case.pool_mlp and pooling == "own"
        for encoder in encoders:
            got = decompose(encoder, pixels, pooling)
            exact(got.contributions.sum(2), got.output, case.allowed)
            exact(got.output, expected, case.allowed)
            assert got.contributions.shape == (3, tokens, 9 + pool_mlp, expected.shape[-1])
            assert got.units.equals(Units(2, 3, pool_mlp).table)


def pooled(name: str, encoder, stream: Tensor, pooling: str) -> Tensor:
    """A pooling written out, of what leaves the last block."""
    prefix = CASES[name].prefix
    if pooling.startswith("avg"):
        tokens = stream[:, prefix if pooling == "avg" else 0 :]
        if name in NORM_AFTER:
            return normed_and_projected(encoder, tokens.mean(1, keepdim=True))
        return normed_and_projected(encoder, tokens).mean(1, keepdim=True)
    if pooling.startswith("token"):
        return normed_and_projected(encoder, stream[:, int(pooling.partition(":")[2])][:, None])
    first, last = {"cls": (0, 1), "all": (0, None), "patches": (prefix, None)}[pooling]
    return normed_and_projected(encoder, stream[:, first:last])


@FAMILY
def test_poolings_agree_with_each_other(name):
    """Of every other family with its own centering: that both sum to the output is tested of all."""
    case, centering = CASES[name], CENTERINGS[[*CASES].index(name) % 2]
    encoder, pixels = wrap_encoder(case.make().double(), centering), random_pixels(3)

    def by_units(pooling: str) -> Tensor:
        return decompose(encoder, pixels, pooling).contributions

    whole = by_units("all")
    same(by_units("patches"), whole[:, case.prefix :])
    for index in (1, -2, -whole.shape[1]):
        same(by_units(f"token:{index}")[:, 0], whole[:, index])
    if case.class_token:
        same(by_units("cls"), whole[:, :1])
    if name not in NORM_AFTER:
        same(by_units("avg"), whole[:, case.prefix :].mean(1, keepdim=True))
        same(by_units("avg:all"), whole.mean(1, keepdim=True))
    if own := OWN.get(name, "cls"):
        same(by_units("own"), by_units(own))


@pytest.mark.parametrize("name", ["clip", "open_clip", "vit classifier", "timm"])
def test_tokens_that_are_not_there_are_refused(name):
    encoder = wrap_encoder(CASES[name].make().double())
    for index in (5, 99, -6, -99):
        with pytest.raises(ResidualError, match=f"Pooling 'token:{index}' keeps none of this tower's"):
            decompose(encoder, random_pixels(), f"token:{index}")


def test_tokens_that_are_not_there_are_refused_where_there_is_one():
    encoder = wrap_encoder(timm_model(global_pool="avg", class_token=False, image_size=16).double())
    for index in (1, 3, -2):
        with pytest.raises(ResidualError, match=f"Pooling 'token:{index}' keeps none of this tower's"):
            decompose(encoder, random_pixels(2, 16), f"token:{index}")


def test_unknown_poolings_are_refused():
    encoder, pixels = wrap_encoder(CASES["clip"].make()), random_pixels(dtype=torch.float32)
    tokens = ("token", "token:", "token:x", "token:1.0", "token:--1", "token:²", "token:1-")
    for pooling in ("max", "", "patch:1", "CLS", *tokens):
        with pytest.raises(ResidualError, match=f"Unknown pooling '{pooling}'. Known: own, cls, .*token:"):
            decompose(encoder, pixels, pooling)


def ids(largest: int = 63) -> Tensor:
    """Texts of different lengths in one batch: the end of each, and padding behind it."""
    made = torch.randint(3, 60, (5, TEXT_LENGTH), generator=torch.Generator().manual_seed(3))
    for row, end in enumerate(ENDS):
        made[row, end], made[row, end + 1 :] = largest, 0
    return made


def raw_text(model, tokens: Tensor) -> Tensor:
    """As users of the model's own library get it."""
    with torch.no_grad():
        if hasattr(model, "encode_text"):
            return model.encode_text(tokens)
        if type(model).__name__ == "Aimv2Model":  # causal only so, or with a mask that hides something
            model.set_attn_implementation("eager")
            return pooled_output(model.get_text_features(tokens, torch.ones_like(tokens)))
        return pooled_output(model.get_text_features(tokens))


@TEXT
@CENTERING
def test_texts_sum_to_the_model_s_own_output(name, centering):
    model = CASES[name].make().double()
    expected = raw_text(model, ids())
    got = decompose(wrap_encoder(model, centering), ids(), tower="text")
    exact(got.contributions.sum(2)[:, 0], expected, CASES[name].allowed)
    exact(got.output[:, 0], expected, CASES[name].allowed)
    assert got.contributions.shape == (5, 1, 1 + 2 + 2 * 2, expected.shape[1])
    assert got.units.equals(Units(2, 2).table)  # an attention pool is the image tower's alone


@TEXT
@CENTERING
def test_texts_are_pooled_where_each_ends(name, centering):
    encoder = wrap_encoder(CASES[name].make().double(), centering)
    own, whole = (decompose(encoder, ids(), how, tower="text") for how in ("own", "all"))
    assert whole.contributions.shape == (5, TEXT_LENGTH, 7, own.output.shape[-1])
    exact(whole.contributions.sum(2), whole.output, CASES[name].allowed)
    last = name.startswith("siglip") or name == "open_clip custom text"
    at = torch.full((5,), TEXT_LENGTH - 1) if last else torch.tensor(ENDS)
    same(own.contributions[:, 0], whole.contributions[torch.arange(5), at])
    exact(own.output[:, 0], whole.output[torch.arange(5), at], CASES[name].allowed)
    same(decompose(encoder, ids(), "avg", tower="text").contributions[:, 0], whole.contributions.mean(1))
    same(decompose(encoder, ids(), "token:4", tower="text").contributions, whole.contributions[:, 4:5])


def test_a_text_s_units_do_not_depend_on_what_else_is_in_the_batch():
    encoder = wrap_encoder(CASES["clip"].make().double())
    together = decompose(encoder, ids(), tower="text").contributions
    for row in range(5):
        alone = decompose(encoder, ids()[row : row + 1], tower="text").contributions
        same(alone[0], together[row])


def test_text_towers_pooled_at_the_first_token_and_without_a_projection():
    model = open_clip_model(custom_text=True, text={"pool_type": "first", "no_causal_mask": True}).double()
    got = decompose(wrap_encoder(model), ids(), tower="text")
    exact(got.contributions.sum(2)[:, 0], raw_text(model, ids()))
    model.text.text_projection = None
    got = decompose(wrap_encoder(model), ids(), tower="text")
    assert got.output.shape == (5, 1, 16)
    exact(got.contributions.sum(2)[:, 0], raw_text(model, ids()))


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_strings_go_through_the_tokenizer(name):
    model = CASES[name].make().double()
    tokenizer, _ = TOKENIZERS["CLIPModel" if name == "clip" else "SiglipModel"]()
    encoder = wrap_encoder(model, tokenizer=tokenizer)
    texts = ["a", "a red cat", "cat"]
    tokens = tokenizer(
        texts, padding="max_length", truncation=True, max_length=TEXT_LENGTH, return_tensors="pt"
    )
    got = decompose(encoder, texts, tower="text")
    exact(got.contributions.sum(2)[:, 0], raw_text(model, tokens["input_ids"]))
    same(got.output[:, 0], encoder.encode_text(texts).detach())


def test_strings_go_through_open_clip_s_tokenizer():
    model = open_clip_model(text={"vocab_size": 49408}).double()
    tokenizer = open_clip.SimpleTokenizer(context_length=TEXT_LENGTH)
    texts = ["a", "a photo of a cat"]
    got = decompose(wrap_encoder(model, tokenizer=tokenizer), texts, tower="text")
    exact(got.contributions.sum(2)[:, 0], raw_text(model, tokenizer(texts)))


def test_text_towers_that_are_not_there_or_cannot_be_split_are_refused():
    blip = wrap_encoder(CASES["blip"].make(), name="tiny")
    why = r"it is a BERT, whose blocks norm after each sum \(post-norm\)"
    with pytest.raises(ResidualError, match=rf"The text tower of tiny \(.*BLIP.* can't be split: {why}"):
        decompose(blip, ids(), tower="text")
    for name in ("clip vision", "open_clip visual", "siglip vision", "vit", "dinov2", "timm"):
        encoder = wrap_encoder(CASES[name].make(), name="tiny")
        with pytest.raises(ResidualError, match=r"tiny \(.*\) has no text tower"):
            decompose(encoder, ids(), tower="text")
        with pytest.raises(ResidualError, match=r"tiny \(.*\) has no text tower"):
            decompose(encoder, ["a cat"], tower="text")
    encoder = wrap_encoder(CASES["clip"].make(), name="tiny")
    with pytest.raises(ResidualError, match=r"Unknown tower 'audio'. Known: image, text"):
        decompose(encoder, ids(), tower="audio")
    with pytest.raises(ResidualError, match="tiny has no tokenizer: its folder holds none, or none"):
        decompose(encoder, ["a cat"], tower="text")
    with pytest.raises(ResidualError, match=r"The image tower takes pixels as an array, got list"):
        decompose(encoder, ["a cat"])
    with pytest.raises(ResidualError, match="has no class token"):
        decompose(encoder, ids(), "cls", tower="text")
    with pytest.raises(ResidualError, match=f"takes images of {IMAGE} by {IMAGE} pixels, got 48 by 48"):
        decompose(encoder, random_pixels(1, 48, dtype=torch.float32))
