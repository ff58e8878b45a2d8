"""Models of real size and depth, compiled models, and models that aren't split.

Everything here is about what tiny eager models don't show.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jaxtyping
import open_clip
import pytest
import timm
import torch
import torchvision
import transformers
from families import CASES, open_clip_model, randomized, timm_model
from tiny import random_pixels
from torch import Tensor, nn
from torch.testing import assert_close

from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError
from residual.tracing.capture import capture
from residual.tracing.decompose import decompose
from residual.tracing.linearization import Linearization

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
PIXELS = random_pixels(dtype=torch.float32)


def miss(got: Tensor, expected: Tensor) -> float:
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.slow
def test_vit_b_16_of_open_clip(tmp_path):
    text = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
    model = randomized(open_clip.CLIP(**open_clip.get_model_config("ViT-B-16") | {"text_cfg": text}))
    pixels, allowed = random_pixels(2, 224, dtype=torch.float32), 1e-5
    with torch.no_grad():
        expected = model.encode_image(pixels)
    got = decompose(wrap_encoder(model), pixels)
    assert got.contributions.shape == (2, 1, 157, 512)
    assert got.units["kind"].value_counts().to_dict() == {"head": 144, "mlp": 12, "emb": 1}
    assert miss(got.contributions.sum(2), got.output) <= allowed
    assert miss(got.contributions.sum(2)[:, 0], expected) <= 2 * allowed
    path = tmp_path / "map.safetensors"
    got.linearization.save(path)
    del model
    loaded = Linearization.load(path).contributions(got.coordinates)
    assert_close(loaded[:, None], got.contributions, rtol=0, atol=0)


def test_what_a_deep_model_in_bfloat16_loses_to_rounding_is_shared_out():
    """What the model added up misses its stream by rounding alone: nothing in it is off."""
    encoder = wrap_encoder(open_clip_model(layers=24, heads=4, width=64).to(torch.bfloat16))
    pixels = random_pixels(8, dtype=torch.bfloat16)
    got = decompose(encoder, pixels)
    with capture(encoder) as kept, torch.no_grad():
        encoder.encode_image(pixels)
        captured = {name: value[:, 0].float() for name, value in kept._slices.items()}
    mlp = torch.stack([captured[f"mlp {layer}"] for layer in range(24)], dim=1)
    attention = sum(captured[f"attention {layer}"] for layer in range(24))
    lost = captured["stream"] - captured["embedding"] - mlp.sum(1) - attention
    assert_close(got.coordinates.rounding, lost.norm(dim=1) / captured["stream"].norm(dim=1), **CLOSE)
    unshared = replace(got.coordinates, emb=captured["embedding"], mlp=mlp)
    assert miss(got.linearization.output(unshared), got.output[:, 0]) > 0.005
    assert miss(got.contributions.sum(2), got.output) < 0.005
    # Its share of that is the same for the embedding and each MLP.
    assert_close(got.coordinates.emb - captured["embedding"], lost / 25, rtol=1e-4, atol=1e-4)
    assert_close(got.coordinates.mlp - mlp, (lost / 25)[:, None].expand_as(mlp), rtol=1e-4, atol=1e-4)


@pytest.fixture
def _dynamo():
    """Compiled code and its limits are of the whole process; and the checks of types that tests add to the
    library can't be compiled, so it is compiled without them, as users have it.
    """
    torch._dynamo.reset()
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    torch._dynamo.reset()


COMPILED = pytest.mark.usefixtures("_dynamo")


class Counting:
    """A backend that runs graphs as they are, and counts them."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, example_inputs):
        self.graphs += 1
        return graph.forward


@COMPILED
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("clip", "eager"),
        ("timm norm after average", "eager"),
        ("siglip", "eager"),
        pytest.param("timm attention pool", "aot_eager", marks=pytest.mark.slow),
    ],
)
def test_a_compiled_encoder_gives_the_same(name, backend):
    model = CASES[name].make(layers=2 if name == "clip" else 1)
    encoder = wrap_encoder(model)
    with torch.no_grad():
        plain = encoder.encode_image(PIXELS)
        expected = {pooling: decompose(encoder, PIXELS, pooling) for pooling in ("own", "patches")}
        before = dict(model.named_modules())
        encoder.compile(backend=backend)
        for pooling, eager in expected.items():
            got = decompose(encoder, PIXELS, pooling)
            assert_close(got.contributions, eager.contributions, **CLOSE)
            assert_close(got.output, eager.output, **CLOSE)
        assert_close(encoder.encode_image(PIXELS), plain, **CLOSE)
        assert dict(model.named_modules()) == before
        for n in (1,) if backend == "aot_eager" else ():  # it is compiled anew
            got = decompose(encoder, PIXELS[:n]).contributions
            assert_close(got, expected["own"].contributions[:n], **CLOSE)


@COMPILED
def test_a_compiled_encoder_sees_weights_that_change_in_place_and_another_precision():
    model = CASES["open_clip"].make()
    encoder = wrap_encoder(model).compile(backend="eager")
    decompose(encoder, PIXELS)
    model.load_state_dict(open_clip_model(seed=1).state_dict())
    expected = decompose(wrap_encoder(model), PIXELS).contributions
    assert_close(decompose(encoder, PIXELS).contributions, expected, **CLOSE)
    encoder.to(dtype=torch.float64)
    assert_close(decompose(encoder, PIXELS).contributions, expected.double(), **CLOSE)
    ids = torch.randint(1, 64, (3, 10), generator=torch.Generator().manual_seed(0))
    expected = decompose(wrap_encoder(model), ids, tower="text").contributions
    assert_close(decompose(encoder, ids, tower="text").contributions, expected, **CLOSE)


@COMPILED
def test_a_compiled_encoder_sees_weights_that_are_exchanged():
    model = CASES["open_clip"].make()
    encoder = wrap_encoder(model).compile(backend="eager")
    decompose(encoder, PIXELS)
    weights = open_clip_model(seed=1).state_dict()
    model.visual.class_embedding = nn.Parameter(weights["visual.class_embedding"])
    expected = decompose(wrap_encoder(model), PIXELS).contributions
    assert_close(decompose(encoder, PIXELS).contributions, expected, **CLOSE)


@COMPILED
@pytest.mark.slow
def test_many_encoders_in_one_process_are_all_compiled():
    """Torch counts how often a function is compiled; here it may be twice, so that few show it."""
    with torch._dynamo.config.patch(recompile_limit=2):
        for name in list(CASES)[::9][:3]:
            encoder, backend = wrap_encoder(CASES[name].make(layers=1)), Counting()
            decompose(encoder.compile(backend=backend), PIXELS)
            assert backend.graphs, f"{name} ran as it is"


@COMPILED
@pytest.mark.parametrize("first", ["wrapped", "compiled", "run"])
def test_blocks_that_the_user_compiled_in_place_are_traced(first):
    model, backend = CASES["open_clip"].make(), Counting()
    expected = decompose(wrap_encoder(model), PIXELS).contributions
    encoder = wrap_encoder(model)
    with torch.no_grad():
        plain = model.encode_image(PIXELS)
        for block in model.visual.transformer.resblocks:
            block.compile(backend=backend)
        encoder = encoder if first == "wrapped" else wrap_encoder(model)
        _ = model.encode_image(PIXELS) if first == "run" else None
        assert_close(decompose(encoder, PIXELS).contributions, expected, **CLOSE)
        assert_close(model.encode_image(PIXELS), plain, **CLOSE)
        assert backend.graphs  # compiled once more where it isn't traced
        assert_close(decompose(encoder, PIXELS).contributions, expected, **CLOSE)


@COMPILED
def test_decompose_inside_a_function_that_the_user_compiled():
    encoder, backend = wrap_encoder(CASES["open_clip"].make()), Counting()
    expected, plain = decompose(encoder, PIXELS).contributions, encoder.encode_image(PIXELS)
    compiled = torch.compile(lambda pixels: 2 * decompose(encoder, pixels).contributions, backend=backend)
    for _ in range(2):
        assert_close(compiled(PIXELS), 2 * expected, **CLOSE)
        assert_close(encoder.encode_image(PIXELS), plain, rtol=0, atol=0)
    assert backend.graphs


@COMPILED
def test_wrapping_a_compiled_model_keeps_how_it_was_compiled():
    model, backend = CASES["open_clip"].make(), Counting()
    expected = decompose(wrap_encoder(model), PIXELS).contributions
    encoder = wrap_encoder(torch.compile(model, backend=backend))
    assert_close(decompose(encoder, PIXELS).contributions, expected, **CLOSE)
    assert backend.graphs
    with torch.no_grad():
        assert_close(encoder.encode_image(PIXELS), model.encode_image(PIXELS), **CLOSE)


@COMPILED
def test_a_model_really_compiled():
    model = CASES["open_clip"].make(layers=1)
    expected = decompose(wrap_encoder(model), PIXELS)
    encoder = wrap_encoder(torch.compile(model))
    got = decompose(encoder, PIXELS)
    assert_close(got.contributions, expected.contributions, **CLOSE)
    with torch.no_grad():
        assert_close(encoder.encode_image(PIXELS), expected.output[:, 0], **CLOSE)
        assert_close(model.encode_image(PIXELS), expected.output[:, 0], **CLOSE)


def _bert() -> Any:
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.BertModel(transformers.BertConfig(vocab_size=20, **small))


def _coca() -> Any:
    return open_clip_model(attentional_pool=True, attn_pooler_heads=3, attn_pooler_queries=4)


def _swin() -> Any:
    return timm.models.SwinTransformer(32, 2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)


LOOKED = "looked for .*; not found:"
UNKNOWN = rf"is of no known family \(known classes: .*\). Compared with the nearest, .*: {LOOKED}"
RESNET = partial(timm.create_model, "resnet18", pretrained=False)
OTHER_BLOCK = "blocks.0 as a block that norms before its attention and MLP"
BLOCKS = timm.models.vision_transformer
REFUSED: dict[str, tuple[Any, str]] = {
    "ResNet of torchvision": (torchvision.models.resnet18, rf"ResNet {UNKNOWN} .*attn"),
    "ResNet of timm": (RESNET, rf"ResNet {UNKNOWN} .*attn"),
    "Swin of timm": (_swin, rf"SwinTransformer {UNKNOWN}"),
    "BERT": (_bert, rf"BertModel {UNKNOWN}"),
    "post-norm": (
        partial(timm_model, block_fn=BLOCKS.ResPostBlock, init_values=0.1),
        rf"VisionTransformer can't be split: {LOOKED} .*{OTHER_BLOCK} \(a ResPostBlock, expected a Block\)",
    ),
    "parallel": (
        partial(timm_model, block_fn=BLOCKS.ParallelScalingBlock),
        rf"VisionTransformer can't be split: {LOOKED} .*{OTHER_BLOCK} \(a ParallelScalingBlock, expected",
    ),
    "maximum": (
        partial(timm_model, global_pool="max"),
        r"VisionTransformer can't be split: it pools by 'max', which is no sum over tokens",
    ),
    "no pooling": (partial(timm_model, global_pool=""), r"VisionTransformer can't be split: it pools by ''"),
    "CoCa": (_coca, r"VisionTransformer can't be split: its attentional pooler has a norm of its own"),
    "open_clip's ResNet": (
        partial(open_clip_model, layers=(1, 1, 1, 1), width=32, head_width=8),
        r"CLIP can't be split: looked for .*; not found: visual.ln_post, .*visual.transformer.resblocks",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_are_not_split_are_told_what_was_looked_for(name):
    make, message = REFUSED[name]
    with pytest.raises(ResidualError, match=message):
        wrap_encoder(make())


def test_a_model_that_computes_otherwise_than_its_class_is_refused_by_its_sum():
    """A class derived from timm's that averages tokens where its settings name the class token."""

    class Averaging(timm.models.VisionTransformer):
        def pool(self, x, pool_type=None):
            return x.mean(1)

    with pytest.raises(ResidualError, match="Averaging: the sum of units misses the model's"):
        decompose(wrap_encoder(timm_model(kind=Averaging)), PIXELS)
