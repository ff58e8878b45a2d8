"""The sum of units is the output; every unit is what its definition says; the model is left as it was."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from families import open_clip_model
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny import random_pixels, tiny_encoder, tiny_vision

from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError
from residual.tracing.capture import capture
from residual.tracing.decompose import decompose
from residual.tracing.linearization import Linearization
from residual.tracing.trace import trace

CENTERINGS = ["shared", "own"]


@settings(max_examples=20, deadline=None)
@given(
    layers=st.integers(1, 4),
    heads=st.integers(1, 5),
    head_width=st.integers(2, 9),
    tokens=st.integers(1, 4),
    output=st.integers(2, 30),
    centering=st.sampled_from(CENTERINGS),
    seed=st.integers(0, 10_000),
)
def test_units_sum_to_the_output(layers, heads, head_width, tokens, output, centering, seed):
    sizes = {"layers": layers, "heads": heads, "head_width": head_width, "output": output}
    encoder = tiny_encoder(seed, centering=centering, image=8 * tokens, patch=8, **sizes)
    pixels = random_pixels(3, 8 * tokens, seed)
    split_up = decompose(encoder, pixels)
    with torch.no_grad():
        own = encoder.encode_image(pixels)
    assert split_up.contributions.shape == (3, 1, 1 + layers + layers * heads, output)
    torch.testing.assert_close(split_up.output[:, 0], own, rtol=1e-12, atol=1e-12)
    error = (split_up.contributions.sum(2)[:, 0] - own).norm() / own.norm()
    assert error < 1e-12


def test_the_sum_in_float16():
    split_up = decompose(tiny_encoder(dtype=torch.float16, layers=6), random_pixels(8, dtype=torch.float16))
    error = (split_up.contributions.sum(2) - split_up.output).norm() / split_up.output.norm()
    assert error < 1e-2


def test_the_paper_s_definition_written_out():
    """c_u = (x_u ⊙ γ/s − w_u (μ γ/s − β)) P + w_u p, from a forward pass by hand."""
    encoder = tiny_encoder(layers=2, heads=2)
    vision, pixels = encoder.module.vision_model, random_pixels()
    expected = []
    with torch.no_grad():
        stream = vision.pre_layrnorm(vision.embeddings(pixels))
        units = {"emb": [stream[:, 0]], "mlp": [], "head": []}
        for block in vision.encoder.layers:
            seen = []
            attention = block.self_attn
            hook = attention.out_proj.register_forward_pre_hook(
                lambda module, args, seen=seen: seen.append(args[0])
            )
            added = attention(block.layer_norm1(stream))[0]
            hook.remove()
            for head in range(2):
                only = torch.zeros_like(seen[0])
                only[..., head * 8 : head * 8 + 8] = seen[0][..., head * 8 : head * 8 + 8]
                units["head"].append((only @ attention.out_proj.weight.T + attention.out_proj.bias / 2)[:, 0])
            stream = stream + added
            added = block.mlp(block.layer_norm2(stream))
            units["mlp"].append(added[:, 0])
            stream = stream + added
        x, norm = stream[:, 0], vision.post_layernorm
        mean, s = x.mean(1, keepdim=True), (x.var(1, correction=0, keepdim=True) + norm.eps).sqrt()
        for kind, share in (("emb", 1 / 5), ("mlp", 1 / 5), ("head", 1 / 10)):
            for unit in units[kind]:
                normed = unit * norm.weight / s - share * (mean * norm.weight / s - norm.bias)
                expected.append(normed @ encoder.module.visual_projection.weight.T)
    got = decompose(encoder, pixels).contributions[:, 0]
    torch.testing.assert_close(got, torch.stack(expected, dim=1), rtol=1e-10, atol=1e-10)


def test_layer_scales_are_part_of_the_unit():
    """A layer scale of the attention or the MLP is the same as one multiplied into the weights before it."""
    scaled = open_clip_model(ls_init_value=0.1).double()
    plain = open_clip_model().double()
    plain.load_state_dict({k: v for k, v in scaled.state_dict().items() if ".ls_" not in k})
    for with_scale, block in zip(
        scaled.visual.transformer.resblocks, plain.visual.transformer.resblocks, strict=True
    ):
        for part, scale in (
            (block.attn.out_proj, with_scale.ls_1.gamma),
            (block.mlp.c_proj, with_scale.ls_2.gamma),
        ):
            part.weight.data *= scale.data[:, None]
            part.bias.data *= scale.data
    pixels = random_pixels()
    expected = decompose(wrap_encoder(plain), pixels)
    torch.testing.assert_close(decompose(wrap_encoder(scaled), pixels).contributions, expected.contributions)


def test_the_map_follows_weights_that_change_between_calls():
    encoder, pixels = tiny_encoder(), random_pixels()
    first = decompose(encoder, pixels)
    assert decompose(encoder, pixels).linearization is first.linearization
    attention = encoder.parts.blocks[1].attention_output
    attention.weight.data[0, 0] += 1
    changed = decompose(encoder, pixels)
    torch.testing.assert_close(changed.contributions.sum(2), changed.output)
    attention.weight.data[0, 0] -= 1
    encoder.centering = "own"
    again = decompose(encoder, pixels)
    torch.testing.assert_close(again.contributions.sum(2), first.output)
    assert not torch.allclose(again.contributions, first.contributions)


def test_kinds_pick_units_in_order():
    encoder = tiny_encoder()
    pixels = random_pixels()
    whole = decompose(encoder, pixels)
    assert list(whole.units["kind"]) == ["emb"] + ["mlp"] * 3 + ["head"] * 12
    assert whole.units["layer"].isna().sum() == 1
    assert whole.units["head"].isna().sum() == 4
    assert whole.units.columns.tolist() == ["unit", "kind", "layer", "head"]
    heads = decompose(encoder, pixels, kinds=("head",))
    assert heads.units["unit"].tolist() == list(range(4, 16))
    assert (heads.units["layer"] * 4 + heads.units["head"]).tolist() == list(range(12))
    torch.testing.assert_close(heads.contributions, whole.contributions[:, :, 4:])
    pd.testing.assert_frame_equal(
        decompose(encoder, pixels, pooling="cls", kinds=("mlp", "emb")).units, whole.units.iloc[:4]
    )


def test_unknown_choices_are_refused():
    encoder, pixels = tiny_encoder(), random_pixels()
    with pytest.raises(ResidualError, match=r"Unknown pooling 'max'. Known: own, cls"):
        decompose(encoder, pixels, pooling="max")
    with pytest.raises(ResidualError, match=r"Unknown kinds of unit: 'neuron'. Known: emb, mlp, head"):
        decompose(encoder, pixels, kinds=("head", "neuron"))
    with pytest.raises(ResidualError, match="No kind of unit"):
        decompose(encoder, pixels, kinds=())
    linearization = Linearization.of(encoder)
    coordinates, _ = trace(encoder, pixels)
    with pytest.raises(ResidualError, match=r"Units are 0 to 15, got \[16\]"):
        linearization.contributions(coordinates, [0, 16])
    with pytest.raises(ResidualError, match="centering is 'shared' or 'own', got 'half'"):
        Linearization(linearization.state, "half")


def test_a_wrong_sum_is_an_error_with_its_size():
    encoder = tiny_encoder()
    block = encoder.module.vision_model.encoder.layers[0]
    block.register_forward_hook(lambda module, args, output: output * 1.01)
    with pytest.raises(ResidualError, match=r"tiny: the sum of units misses .* by \d\.\de[+-]\d+ of it"):
        decompose(encoder, random_pixels())
    with pytest.raises(ResidualError, match="by nan of it"):
        decompose(tiny_encoder(), random_pixels() * torch.nan)


def test_a_part_that_did_not_run_is_named():
    with (
        capture(tiny_encoder()) as kept,
        pytest.raises(ResidualError, match="did not go through: embedding, stream, z 0"),
    ):
        kept.take()


@pytest.mark.parametrize("centering", CENTERINGS)
def test_linearization_is_affine_in_small_features_and_survives_saving(centering, tmp_path):
    encoder = wrap_encoder(tiny_vision(), centering=centering)
    coordinates, output = trace(encoder, random_pixels())
    linearization = Linearization.of(encoder)
    linearization.save(tmp_path / "map.safetensors")
    loaded = Linearization.load(tmp_path / "map.safetensors")
    assert loaded.centering == centering
    contributions = loaded.contributions(coordinates)
    torch.testing.assert_close(contributions, linearization.contributions(coordinates), rtol=0, atol=0)
    for unit in range(len(loaded.units)):
        features = loaded.features(coordinates, unit)
        assert features.shape[1] == (32 if unit < 4 else 8) + 2
        by_hand = features @ loaded.matrix(unit) + loaded.offset(unit)
        torch.testing.assert_close(contributions[:, unit], by_hand)
    torch.testing.assert_close(loaded.output(coordinates), output.detach())


def test_files_that_hold_no_linearization(tmp_path):
    path = tmp_path / "map.safetensors"
    with pytest.raises(ResidualError, match=r"map.safetensors can't be read \("):
        Linearization.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ResidualError, match="holds no linearization but something else"):
        Linearization.load(path)
    path.unlink()
    Linearization.of(tiny_encoder()).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ResidualError, match=r"map.safetensors can't be read \("):
        Linearization.load(path)


def test_coordinates_are_indexed_joined_and_converted():
    coordinates, _ = trace(tiny_encoder(), random_pixels(6))
    joined = coordinates[:1].room(6)
    for start, part in ((4, torch.tensor([4, 5])), (0, slice(2)), (2, [2, 3])):
        joined.put(start, coordinates[part])
    for name in ("z", "mlp", "emb", "mean", "std"):
        torch.testing.assert_close(getattr(joined, name), getattr(coordinates, name), rtol=0, atol=0)
    assert len(coordinates[1:3]) == 2
    assert coordinates.to(dtype=torch.float16).mlp.dtype == torch.float16
