"""The same weights, the same features: one CLIP, as open_clip, transformers and timm hold it, is split alike.

The three libraries were written apart (one hides its heads in `nn.MultiheadAttention`, one has q, k, v apart,
one joins them), so what they agree on to rounding isn't an accident of one of them.
"""

from __future__ import annotations

import families
import pandas as pd
import pytest
import torch
import transformers
from convert import clip_in_transformers, vision_in_timm, vision_in_transformers
from tiny import random_pixels

import residual

ATOL = {torch.float32: 1e-5, torch.float64: 1e-10}
DTYPES = pytest.mark.parametrize("dtype", ATOL, ids=lambda dtype: str(dtype).removeprefix("torch."))
ACTIVATIONS = pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
CENTERINGS = pytest.mark.parametrize("centering", ["shared", "own"])
IN = {
    "transformers": clip_in_transformers,
    "transformers vision": vision_in_transformers,
    "timm": vision_in_timm,
}
LIBRARIES = pytest.mark.parametrize("library", IN)
LEGACY_EOS = 2  # transformers' mark of configs from before the end-of-text token was written down


def source(activation: str, dtype: torch.dtype) -> torch.nn.Module:
    return families.open_clip_model(quick_gelu=activation == "quick_gelu").to(dtype)


def texts() -> torch.Tensor:
    """Token ids that end (63) at different positions, with padding behind."""
    ids = torch.randint(3, 62, (5, 10), generator=torch.Generator().manual_seed(3))
    for row, end in enumerate([9, 1, 4, 7, 2]):
        ids[row, end], ids[row, end + 1 :] = 63, 0
    return ids


@pytest.fixture
def float64():
    """As the default: transformers before 5 makes the mask of texts in that."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.skipif(transformers.__version__ >= "5", reason="of transformers before 5 alone")
def test_texts_that_cannot_be_masked_are_one_sentence():
    encoder = residual.wrap_encoder(clip_in_transformers(source("gelu", torch.float64), "gelu"))
    with pytest.raises(residual.ResidualError, match=r"can't mask texts in float64\. Say torch\.set_default"):
        encoder.run("text", texts())


def assert_alike(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=ATOL[expected.dtype], rtol=ATOL[expected.dtype])


@LIBRARIES
@ACTIVATIONS
@CENTERINGS
@DTYPES
def test_vision_features_and_every_units_contribution_agree(library, activation, centering, dtype):
    model = source(activation, dtype)
    ours = residual.wrap_encoder(model, centering)
    theirs = residual.wrap_encoder(IN[library](model, activation), centering)
    pixels = random_pixels(dtype=dtype)
    with torch.no_grad():
        expected = model.encode_image(pixels)
        assert_alike(theirs.encode_image(pixels), expected)
        assert_alike(ours.encode_image(pixels), expected)
    first, second = residual.decompose(ours, pixels), residual.decompose(theirs, pixels)
    assert first.contributions.shape == (5, 1, 1 + 2 + 2 * 3, 12)
    pd.testing.assert_frame_equal(first.units, second.units)
    assert_alike(second.contributions, first.contributions)
    assert_alike(second.contributions.sum(2)[:, 0], expected)


@LIBRARIES
@pytest.mark.parametrize("pooling", ["cls", "avg", "avg:all", "all", "patches", "token:2"])
def test_other_poolings_agree(library, pooling):
    model = source("gelu", torch.float64)
    pixels = random_pixels()
    first = residual.decompose(residual.wrap_encoder(model), pixels, pooling)
    second = residual.decompose(residual.wrap_encoder(IN[library](model)), pixels, pooling)
    assert_alike(second.output, first.output)
    assert_alike(second.contributions, first.contributions)


@LIBRARIES
@pytest.mark.parametrize(("weights", "built"), [("quick_gelu", "gelu"), ("gelu", "quick_gelu")])
def test_the_wrong_activation_does_not_agree(library, weights, built):
    """So the tests above can fail: the two activations differ by far more than their tolerance."""
    model = source(weights, torch.float64)
    ours, theirs = residual.wrap_encoder(model), residual.wrap_encoder(IN[library](model, built))
    pixels = random_pixels()
    with torch.no_grad():
        assert (ours.encode_image(pixels) - theirs.encode_image(pixels)).abs().max() > 1e-3
    first, second = residual.decompose(ours, pixels), residual.decompose(theirs, pixels)
    apart = (first.contributions - second.contributions).abs().amax((0, 1, 3))
    assert apart[first.linearization.units.positions("mlp")].min() > 1e-4
    # What comes before any activation, the embedding and the first layer's heads, still agrees.
    assert_alike(second.coordinates.emb, first.coordinates.emb)
    assert_alike(second.coordinates.z[:, 0], first.coordinates.z[:, 0])


@ACTIVATIONS
@CENTERINGS
@DTYPES
@pytest.mark.parametrize("eos", [63, LEGACY_EOS])
def test_text_features_and_every_units_contribution_agree(activation, centering, dtype, eos, request):
    if dtype == torch.float64:
        request.getfixturevalue("float64")
    model = source(activation, dtype)
    ours = residual.wrap_encoder(model, centering)
    theirs = residual.wrap_encoder(clip_in_transformers(model, activation, eos), centering)
    ids = texts()
    first = residual.decompose(ours, ids, tower="text")
    second = residual.decompose(theirs, ids, tower="text")
    with torch.no_grad():
        expected = model.encode_text(ids)
    assert_alike(second.contributions.sum(2)[:, 0], expected)
    assert_alike(second.output, first.output)
    assert first.contributions.shape == (5, 1, 1 + 2 + 2 * 2, 12)
    pd.testing.assert_frame_equal(first.units, second.units)
    assert_alike(second.contributions, first.contributions)
    assert theirs.logit_scale == pytest.approx(ours.logit_scale)


@pytest.mark.usefixtures("float64")
def test_the_wrong_end_of_text_does_not_agree():
    model = source("gelu", torch.float64)
    right, wrong = (residual.wrap_encoder(clip_in_transformers(model, eos=eos)) for eos in (63, 61))
    ids = texts()
    ids[:, 0] = 61  # ends every text at once, where the model is told that this is the end
    apart = (
        residual.decompose(right, ids, tower="text").output
        - residual.decompose(wrong, ids, tower="text").output
    )
    assert apart.abs().amax(-1).min() > 1e-3
