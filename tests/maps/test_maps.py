"""Maps add up to the score, light what is planted, and lie where the encoder looked."""

from __future__ import annotations

import pytest
import torch
from families import CASES
from PIL import Image
from tiny import TinyImages, random_pixels, tiny_clip, tiny_encoder

from residual import AdaptedEncoder, decompose, encode_dataset, fit_bases, load_encoder, wrap_encoder
from residual.adapters import LinearMap
from residual.encoders.preprocess import Preprocess
from residual.errors import ResidualError
from residual.maps import Maps, box_of, class_maps, component_maps, heat, overlay, text_maps
from residual.text import TextDictionary, ZeroShotClassifier

EXACT = {"rtol": 1e-8, "atol": 1e-8}
NAMES = ["cat", "dog", "bird"]


def classifier_of(encoder, scale: float = 20) -> ZeroShotClassifier:
    rows = torch.randn(3, encoder.output_dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return ZeroShotClassifier(rows, NAMES, scale)


# A class token; registers; an attention pool; a mean.
@pytest.mark.parametrize("name", ["clip", "dinov2 registers", "siglip", "timm average of normed"])
def test_maps_add_up_to_the_logits(name):
    encoder, pixels = wrap_encoder(CASES[name].make().double()), random_pixels(3)
    classifier = classifier_of(encoder)
    maps = class_maps(encoder, pixels, classifier, against=())
    logits = classifier.logits(encoder.encode_image(pixels).detach())
    assert (maps.names, maps.of, maps.values.shape) == (tuple(NAMES), "logit", (3, 3, 2, 2))
    torch.testing.assert_close(maps.total, logits, **EXACT)
    torch.testing.assert_close(maps.shown + maps.rest, logits, **EXACT)
    centred = class_maps(encoder, pixels, classifier)
    torch.testing.assert_close(centred.values, maps.values - maps.values.mean(1, keepdim=True), **EXACT)

    heads = ["1.2", "0.1"]  # by the contributions of each of their sources
    some = class_maps(encoder, pixels, classifier, ["dog"], ["cat", "bird"], heads)
    split = decompose(encoder, pixels, sources=True, kinds=("head",))
    places = [k for k, unit in enumerate(split.units["unit"]) if unit in encoder_heads(encoder, heads)]
    norms = split.output[:, 0].norm(dim=1)[:, None]
    direction = 20 * (classifier.weights[1] - classifier.weights[[0, 2]].mean(0))
    by_token = (split.sources[:, 0, places] @ direction).sum(1) / norms  # (n, j)
    first = len(split.tokens) - 4
    torch.testing.assert_close(some.values[:, 0].flatten(1), by_token[:, first:], **EXACT)
    torch.testing.assert_close(some.elsewhere[:, 0], by_token[:, :first].sum(1), **EXACT)
    torch.testing.assert_close(some.total[:, 0], logits[:, 1] - logits[:, [0, 2]].mean(1), **EXACT)
    torch.testing.assert_close(some.shown + some.rest, some.total, **EXACT)
    assert some.names == ("dog against 2 others",)

    apart = class_maps(encoder, pixels, classifier, ["dog"], ["cat", "bird"], heads, separate=True)
    assert apart.names == ("1.2: dog against 2 others", "0.1: dog against 2 others")
    torch.testing.assert_close(apart.values.sum(1), some.values[:, 0], **EXACT)
    torch.testing.assert_close(apart.shown + apart.rest, some.total.expand(3, 2), **EXACT)
    found = class_maps(encoder, pixels, classifier, ["dog"], ["cat", "bird"], heads, signed=False)
    torch.testing.assert_close(found.values[:, 0], apart.values.clamp(min=0).sum(1), **EXACT)
    torch.testing.assert_close(found.shown + found.rest, some.total, **EXACT)


def encoder_heads(encoder, heads: list[str]) -> list[int]:
    return decompose(encoder, random_pixels(1)).linearization.units.checked(heads)


def test_an_adapter_s_maps_add_up_to_its_logits():
    encoder, pixels = tiny_encoder(), random_pixels(2)
    classifier = classifier_of(encoder)
    matrix = torch.randn(12, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    adapted = AdaptedEncoder(encoder, LinearMap(12, matrix), classifier)
    maps = class_maps(adapted, pixels, classifier, against="cat")
    logits = adapted(pixels).detach()
    torch.testing.assert_close(maps.total, logits - logits[:, :1], **EXACT)
    torch.testing.assert_close(maps.shown + maps.rest, maps.total, **EXACT)


def test_a_component_s_map_adds_up_to_its_score():
    encoder, data = tiny_encoder(), TinyImages(40)
    bases = fit_bases(encode_dataset(encoder, data, dtype="float32"))
    pixels = encoder.pixels([data[k][0] for k in range(3)])
    maps = component_maps(encoder, pixels, bases, ["2.1:0", "0.3:2", "2.1:1"])
    split = decompose(encoder, pixels)
    for place, (head, k) in enumerate([("2.1", 0), ("0.3", 2), ("2.1", 1)]):
        own = bases[head]
        score = (split[head][:, 0] - own.means[0]) @ own.components[0][k]
        torch.testing.assert_close(maps.total[:, place], score, **EXACT)
    torch.testing.assert_close(maps.shown + maps.rest, maps.total, **EXACT)
    assert torch.allclose(maps.rest, maps.rest[:1])  # the means alone
    one = component_maps(encoder, pixels, bases, "2.1:1")
    torch.testing.assert_close(one.values[:, 0], maps.values[:, 2], **EXACT)


def test_the_patch_that_a_head_copies_is_lit():
    model = tiny_clip(layers=1)
    vision, block = model.vision_model, model.vision_model.encoder.layers[0]
    with torch.no_grad():
        for part in (vision.embeddings, vision.pre_layrnorm, block.self_attn, block.layer_norm1):
            for name, parameter in part.named_parameters():
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        vision.pre_layrnorm.weight.fill_(1)
        block.layer_norm1.weight.fill_(1)
        vision.embeddings.patch_embedding.weight[5] = 1  # stream 5: how bright a patch is
        block.self_attn.v_proj.weight[8, 5] = 1  # head 1 copies that
        block.self_attn.out_proj.weight[:, 8] = torch.linspace(-1, 1, 32, dtype=torch.float64)
    encoder = wrap_encoder(model)
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    pixels[:, :, 16:, :16] = 1  # bottom left
    head = decompose(encoder, pixels)["0.1"][0, 0]
    classifier = ZeroShotClassifier(torch.stack([head, -head]), ["it", "not it"])
    maps = class_maps(encoder, pixels, classifier, against=(), heads="0.1")
    cells = maps.values - maps.values[..., :1, :1]  # what all tokens share is even
    lit = cells[0, 0, 1, 0].item()
    torch.testing.assert_close(cells[0, 0], torch.tensor([[0.0, 0], [lit, 0]], dtype=torch.float64), **EXACT)
    torch.testing.assert_close(cells[0, 1], -cells[0, 0], **EXACT)
    assert lit > 0.5 * maps.shown[0, 0].abs().item()
    others = class_maps(encoder, pixels, classifier, "it", heads=["0.0", "0.2", "0.3"])
    torch.testing.assert_close(others.values, others.values[..., :1, :1].expand(1, 1, 2, 2), **EXACT)


def test_texts_are_cosines_with_templates_and_against_others():
    encoder = load_encoder("picto", device="cpu")
    pixels = random_pixels(2, 64, dtype=torch.float32)
    told = torch.nn.functional.normalize(encoder.encode_text(["a cat", "a dog", "a bird", "a b"]), dim=1)
    output = torch.nn.functional.normalize(encoder.encode_image(pixels), dim=1)
    maps = text_maps(encoder, pixels, ["a cat", "a dog"], against=["a bird", "a b"], templates=["{}"])
    expected = output @ (told[:2] - told[2:].mean(0)).T
    torch.testing.assert_close(maps.total, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps.shown + maps.rest, maps.total, rtol=1e-4, atol=1e-5)
    prompts = text_maps(encoder, pixels, "cat", against=(), templates=["a {}"])
    torch.testing.assert_close(prompts.total, output @ told[:1].T, rtol=1e-4, atol=1e-5)
    neutral = TextDictionary.encode(encoder, "attributes").embeddings.mean(0)
    plain = text_maps(encoder, pixels, "a cat")
    torch.testing.assert_close(plain.total[:, 0], output @ (told[0] - neutral), rtol=1e-4, atol=1e-5)


def test_some_of_the_maps_their_scale_and_sizes():
    values = torch.arange(12.0).view(1, 3, 2, 2) - 6
    maps = Maps(values, *torch.zeros(3, 1, 3), ("a", "b", "c"), "logit")
    assert maps.scale == 6
    assert maps.take(maps=[2, 0]).names == ("c", "a")
    assert maps.largest(2) == [0, 2]  # by size: −18, then 14
    assert Maps(torch.zeros(1, 1, 2, 2), *torch.zeros(3, 1, 1), ("a",)).scale == 0
    many = torch.ones(1, 1, 20, 20)
    many[0, 0, 0, :3] = 100
    assert Maps(many, *torch.zeros(3, 1, 1), ("a",)).scale == 1
    blocks = maps.resized((4, 6), "nearest")[0, 0]
    torch.testing.assert_close(blocks, values[0, 0].repeat_interleave(2, 0).repeat_interleave(3, 1))
    smooth = maps.resized((4, 4))[0, 0]  # centres of cells a quarter in
    torch.testing.assert_close(smooth[0, 1] - smooth[0, 0], torch.tensor(0.25))
    told = maps.to_json()[0][1]
    assert told == {"name": "b", "values": [[-2, -1], [0, 1]], "elsewhere": 0, "rest": 0, "total": 0}
    with pytest.raises(ResidualError, match="Maps are resized 'bilinear' or 'nearest', got 'cubic'"):
        maps.resized((4, 4), "cubic")


@pytest.mark.parametrize(
    ("steps", "size", "box"),
    [
        (Preprocess(64, (64, 64)), (64, 64), (0, 0, 1, 1)),
        (Preprocess(64, (64, 64)), (200, 100), (0.25, 0, 0.75, 1)),
        (Preprocess(32, (24, 16)), (60, 150), (0.25, 0.35, 0.75, 0.65)),
        (Preprocess((32, 32), None), (70, 30), (0, 0, 1, 1)),  # squeezed
        (Preprocess(None, (64, 64)), (32, 64), (-0.5, 0, 1.5, 1)),  # a border beside
    ],
)
def test_what_an_encoder_sees_of_a_picture(steps, size, box):
    encoder = tiny_encoder()
    encoder.preprocess = steps
    assert box_of(encoder, Image.new("RGB", size)) == pytest.approx(box, abs=0.01)


def test_colours_lie_over_the_part_that_was_seen():
    picture, values = Image.new("RGB", (80, 40), "black"), torch.tensor([[0.0, -2.0], [4.0, 0.0]])
    seen = overlay(picture, values, 2.0, (0.25, 0, 0.75, 1), "nearest")
    below, beside = (102, 102, 102), (191, 191, 191)
    blue, orange = (
        tuple(round(0.9 * c + 0.1 * g) for c, g in zip(colour, below, strict=True))
        for colour in ((0, 114, 178), (213, 94, 0))
    )
    expected = {(10, 20): beside, (30, 10): below, (50, 10): blue, (30, 30): orange, (70, 20): beside}
    for place, colour in expected.items():
        assert seen.getpixel(place) == pytest.approx(colour, abs=2)
    assert overlay(picture, values, box=(-0.5, 0, 1.5, 1)).size == (80, 40)
    assert heat(torch.zeros(2, 2)).tolist() == [[[213, 94, 0, 0]] * 2] * 2


def test_refusals_say_what_is_wrong():
    encoder, pixels = tiny_encoder(), random_pixels(1)
    classifier = classifier_of(encoder)
    vit = wrap_encoder(CASES["vit"].make().double())
    bases = fit_bases(encode_dataset(encoder, TinyImages(8), dtype="float32"), ("head",))
    for call, message in (
        (lambda: text_maps(vit, pixels, "a cat"), "has no text tower, so there are no maps of texts"),
        (lambda: class_maps(encoder, pixels, classifier, heads="9.0"), "There is no head 9.0"),
        (lambda: class_maps(encoder, pixels, classifier, heads="mlp.1"), "No head: mlp.1"),
        (lambda: class_maps(encoder, pixels, classifier, "cow"), "Unknown class 'cow'"),
        (lambda: class_maps(encoder, pixels, classifier, heads=[]), "No head was named"),
        (lambda: class_maps(vit, pixels, classifier), "takes features of width 12"),
        (lambda: component_maps(encoder, pixels, bases, "2.1"), "A component is a head and a number"),
        (lambda: component_maps(encoder, pixels, bases, "2.1:99"), "There is no component 99 of head 2.1"),
        (lambda: component_maps(encoder, pixels, bases.select(["0.1"]), "2.1:0"), "No basis for units"),
        (lambda: component_maps(tiny_encoder(1), pixels, bases, "2.1:0"), "The bases are of another encoder"),
    ):
        with pytest.raises(ResidualError, match=message):
            call()
