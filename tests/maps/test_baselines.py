"""Raw attention, rollout and Grad-CAM, against their definitions written out; and for kinds of encoders."""

from __future__ import annotations

import pytest
import torch
from families import CASES
from tiny import random_pixels, tiny_clip
from torch import Tensor
from transformers import CLIPModel

from residual import wrap_encoder
from residual.errors import ResidualError
from residual.maps.baselines import attention_rollout, grad_cam, raw_attention


def attentions(model: CLIPModel, pixels: Tensor) -> list[Tensor]:
    """As transformers tells them, each `(n, H, t, t)`."""
    model.set_attn_implementation("eager")
    return list(model.vision_model(pixels, output_attentions=True).attentions)


def rolled(attention: list[Tensor]) -> Tensor:
    product = torch.eye(attention[0].shape[-1], dtype=attention[0].dtype)
    for each in attention:
        product = (0.5 * each.mean(1) + 0.5 * torch.eye(each.shape[-1], dtype=each.dtype)) @ product
    return product


def test_attention_of_a_class_token():
    pixels = random_pixels(3)
    attention = attentions(tiny_clip(), pixels)
    encoder = wrap_encoder(tiny_clip(), name="tiny")
    torch.testing.assert_close(
        raw_attention(encoder, pixels), attention[-1][:, :, 0, 1:].mean(1).view(3, 2, 2)
    )
    expected = rolled(attention)[:, 0, 1:].view(3, 2, 2)
    torch.testing.assert_close(attention_rollout(encoder, pixels), expected)
    torch.testing.assert_close(attention_rollout(encoder.without("2.1"), pixels), expected)


def test_attention_where_tokens_are_averaged():
    """Normed before: a token counts by one over its own deviation."""
    model = CASES["timm average of normed"].make().double()
    encoder, pixels, seen, stream = wrap_encoder(model), random_pixels(3), [], []
    for block in model.blocks:
        block.attn.qkv.register_forward_hook(lambda module, args, output: seen.append(output))
    model.norm.register_forward_hook(lambda module, args, output: stream.append(args[0]))
    model(pixels)
    attention = []
    for joined in seen:
        query, key, _ = joined.unflatten(-1, (3, 3, -1)).permute(2, 0, 3, 1, 4)
        attention.append((query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1))
    over = 1 / (stream[0].var(-1, correction=0) + model.norm.eps).sqrt()
    share = over[:, 1:] / over[:, 1:].sum(1, keepdim=True)
    for found, rows in (
        (raw_attention(encoder, pixels), attention[-1].mean(1)),
        (attention_rollout(encoder, pixels), rolled(attention)),
    ):
        torch.testing.assert_close(found, torch.einsum("nt,ntj->nj", share, rows[:, 1:])[:, 1:].view(3, 2, 2))


def test_grad_cam():
    model, pixels = tiny_clip(), random_pixels(3)
    vision, block = model.vision_model, model.vision_model.encoder.layers[-1]
    before = vision(pixels, output_hidden_states=True).hidden_states[-2].detach()
    tokens = block.layer_norm1(before).detach().requires_grad_()
    x = before + block.self_attn(tokens)[0]
    x = x + block.mlp(block.layer_norm2(x))
    output = model.visual_projection(vision.post_layernorm(x[:, 0]))
    directions = torch.randn(2, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = []
    for direction in directions:
        y = torch.cosine_similarity(output, direction[None]).sum() * direction.norm()
        (slope,) = torch.autograd.grad(y, tokens, retain_graph=True)
        weights = slope[:, 1:].mean(1, keepdim=True)
        expected.append(torch.relu((weights * tokens[:, 1:]).sum(-1)).view(3, 2, 2))
    encoder, hooks = wrap_encoder(model, name="tiny"), [len(each._forward_hooks) for each in model.modules()]
    found = grad_cam(encoder, pixels, directions)
    assert (found > 0).any()
    torch.testing.assert_close(found, torch.stack(expected, 1).detach())
    with torch.no_grad():
        of_units = grad_cam(encoder.keep(range(16)), pixels, directions)  # by what they contribute
        torch.testing.assert_close(of_units, found)
        assert not torch.allclose(grad_cam(encoder.without("2.1"), pixels, directions), found)
    assert [len(each._forward_hooks) for each in model.modules()] == hooks


@pytest.mark.parametrize("name", ["open_clip", "timm attention pool", "dinov3", "aimv2", "deit classifiers"])
def test_kinds_of_encoders(name):
    encoder, pixels = wrap_encoder(CASES[name].make()), random_pixels(2, dtype=torch.float32)
    rows = raw_attention(encoder, pixels), attention_rollout(encoder, pixels)
    for found in (*rows, *grad_cam(encoder, pixels, torch.randn(3, encoder.output_dim)).unbind(1)):
        assert found.shape == (2, 2, 2)
        assert found.isfinite().all()
        assert (found >= 0).all()
    assert all((found.sum((1, 2)) <= 1 + 1e-5).all() for found in rows)


def test_directions_of_another_width():
    with pytest.raises(ResidualError, match=r"Directions are \(c, 12\), got \(3, 5\)"):
        grad_cam(wrap_encoder(tiny_clip()), random_pixels(1), torch.ones(3, 5))
