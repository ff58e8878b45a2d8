"""A trace leaves the model as it was, captures don't disturb each other, stand-ins are equal, modes of torch.

Compiled code is in `test_real_size.py`.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import timm
import torch
from families import CASES, open_clip_model
from saved import IMAGE_OUTPUT
from tiny import random_pixels
from torch import Tensor, nn
from torch.testing import assert_close

from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError
from residual.tracing.capture import _shared_out, capture
from residual.tracing.decompose import decompose
from residual.tracing.linearization import Linearization
from residual.tracing.stand_ins import PatchProduct, SplitAttention, can_split, cuts_patches

SOME = pytest.mark.parametrize("name", ["clip", "open_clip", "siglip", "timm attention pool", "dinov2"])
FLOAT, PIXELS = random_pixels(dtype=torch.float32), random_pixels()
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@contextmanager
def left_alone(model: nn.Module):
    """Compared bit by bit: which objects are where, their attributes and hooks, and all weights."""

    def seen():
        for name, part in model.named_modules():
            hooks = {key: list(value or ()) for key, value in vars(part).items() if "hooks" in key}
            yield name, id(part), type(part), sorted(vars(part)), hooks
        yield list(model.state_dict())

    before, weights = list(seen()), {key: value.clone() for key, value in model.state_dict().items()}
    yield
    assert list(seen()) == before
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def stop(*_):
    raise RuntimeError("stop")


@SOME
def test_nothing_is_left_behind_by_a_trace_or_by_an_exception(name):
    model = CASES[name].make()
    encoder = wrap_encoder(model)
    with left_alone(model):
        expected = decompose(encoder, FLOAT).contributions
        decompose(encoder, FLOAT, "all")
    with left_alone(model), pytest.raises(RuntimeError, match="stop"), capture(encoder):
        stop(encoder.encode_image(FLOAT))
    hook = encoder.parts.blocks[1].block.register_forward_pre_hook(stop)
    with left_alone(model), pytest.raises(RuntimeError, match="stop"):
        decompose(encoder, FLOAT)
    hook.remove()
    with left_alone(model), pytest.raises(ResidualError, match="misses"):
        decompose(encoder, FLOAT * torch.nan)
    assert_close(decompose(encoder, FLOAT).contributions, expected, rtol=0, atol=0)


class NoHooks(nn.Sequential):
    def register_forward_hook(self, *args, **how):
        raise RuntimeError("no hooks here")


def test_nothing_is_left_behind_where_a_hook_cannot_be_placed():
    model = open_clip_model()
    first, second = model.visual.transformer.resblocks
    second.mlp = NoHooks(*second.mlp)
    with left_alone(model), pytest.raises(RuntimeError, match="no hooks here"):
        decompose(wrap_encoder(model), FLOAT)
    second.mlp, second.attn = nn.Sequential(*second.mlp), nn.MultiheadAttention(24, 3)
    sentence = "attn is a MultiheadAttention with extra keys, other widths or tokens first: it can't be split"
    with left_alone(model), pytest.raises(ResidualError, match=sentence):
        decompose(wrap_encoder(model), FLOAT)
    assert type(first.attn) is nn.MultiheadAttention


def taken(encoder, kept) -> Tensor:
    return Linearization.of(encoder).contributions(kept.take()[0])


def test_a_tower_is_captured_once_at_a_time():
    encoder, ids = wrap_encoder(open_clip_model().double()), torch.randint(1, 64, (2, 10))
    expected = decompose(encoder, PIXELS).contributions[:, 0]
    of_text = decompose(encoder, ids, tower="text").contributions
    with left_alone(encoder.module), capture(encoder) as kept:
        for again in (lambda: decompose(encoder, PIXELS), lambda: capture(encoder).__enter__()):
            with pytest.raises(ResidualError, match="This tower is being captured already; leave that"):
                again()
        assert_close(decompose(encoder, ids, tower="text").contributions, of_text, **EXACT)
        encoder.encode_image(PIXELS)
        assert_close(taken(encoder, kept), expected, **EXACT)


def test_captures_of_two_models_do_not_disturb_each_other():
    encoders = [wrap_encoder(open_clip_model(seed=seed).double()) for seed in (0, 1)]
    expected = [decompose(encoder, PIXELS).contributions[:, 0] for encoder in encoders]
    first, second = ExitStack(), ExitStack()
    with left_alone(encoders[0].module), left_alone(encoders[1].module):
        kept = [first.enter_context(capture(encoders[0])), second.enter_context(capture(encoders[1]))]
        for encoder in encoders:
            encoder.encode_image(PIXELS)
        assert_close(taken(encoders[0], kept[0]), expected[0], **EXACT)
        first.close()  # not in the reverse order of entering
        assert_close(taken(encoders[1], kept[1]), expected[1], **EXACT)
        second.close()


def overlapping(encoders) -> list[Tensor]:
    """Two traces in two threads: the second starts inside the first and ends after it."""
    reached, got = [threading.Event() for _ in range(3)], {}

    def wait(index: int) -> None:
        reached[index].set()
        assert reached[index + 1].wait(30)

    def run(index: int) -> None:
        assert index == 0 or reached[0].wait(30)
        got[index] = decompose(encoders[index], PIXELS).contributions
        reached[2].set()

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    with ExitStack() as hooks:
        for index, encoder in enumerate(encoders):
            block = encoder.parts.blocks[1].block
            hook = block.register_forward_pre_hook(lambda module, args, index=index: wait(index))
            hooks.callback(hook.remove)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [got[0], got[1]]


def test_traces_in_two_threads_do_not_disturb_each_other_nor_compiled_code():
    encoders = [wrap_encoder(make().double()) for make in (CASES["clip"].make, open_clip_model)]
    expected = [decompose(encoder, PIXELS).contributions for encoder in encoders]
    compiled: list[str] = []
    try:
        with left_alone(encoders[0].module), left_alone(encoders[1].module):
            for got, alone in zip(overlapping(encoders), expected, strict=True):
                assert_close(got, alone, rtol=0, atol=0)
        torch.compile(torch.sin, backend=lambda graph, _: compiled.append("sin") or graph)(torch.ones(3))
        assert compiled == ["sin"]  # what compiled code does is said for the whole process
    finally:
        torch.compiler.set_stance("default"), torch._dynamo.reset()


def test_another_thread_s_use_of_the_model_is_left_alone():
    """A plain call in one thread while another traces: each gets its own; two traces take turns."""
    encoder = wrap_encoder(CASES["clip"].make().double())
    ids = [torch.randint(1, 63, (2, 10)), torch.randint(1, 63, (3, 10))]
    ids[0][:, 4], ids[1][:, 7] = 63, 63
    with torch.no_grad():
        plain = encoder.run("text", ids[1])
    expected = [decompose(encoder, each, tower="text").contributions for each in ids]
    with capture(encoder, "text") as kept, torch.no_grad():
        kept.expect(encoder.module, ids[0])
        encoder.run("text", ids[0])
        with ThreadPoolExecutor(1) as other:
            assert_close(other.submit(encoder.run, "text", ids[1]).result(), plain, rtol=0, atol=0)
        coordinates, _ = kept.take()
    of_text = Linearization.of(encoder, "text").contributions(coordinates)
    assert_close(of_text[:, None], expected[0], **EXACT)
    with ThreadPoolExecutor(2) as both:
        got = list(both.map(lambda each: decompose(encoder, each, tower="text").contributions, ids * 5))
    for each, alone in zip(got, expected * 5, strict=True):
        assert_close(each, alone, **EXACT)


MASK = torch.full((5, 5), -torch.inf).double().triu(1)  # causal


MASKS = {
    "none": {},
    "added": {"attn_mask": MASK},
    "causal": {"attn_mask": MASK, "is_causal": True},
    "booleans": {"attn_mask": MASK < 0},  # True: isn't attended to
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mask", MASKS)
def test_split_attention_equals_the_original_and_shares_its_parameters(bias, mask):
    original = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True).double().eval()
    for value in original.parameters():
        nn.init.normal_(value)
    stand_in, x = SplitAttention(original), torch.randn(2, 5, 12, dtype=torch.float64)
    assert {id(value) for value in stand_in.parameters()} == {id(value) for value in original.parameters()}
    expected, _ = original(x, x, x, need_weights=False, **MASKS[mask])
    got, weights = stand_in(x, x, x, need_weights=False, **MASKS[mask])
    assert weights is None
    assert_close(got, expected, **EXACT)
    of_some = SplitAttention(original, lambda tokens: tokens[:, 1:3])
    got, _ = of_some(x, x, x, need_weights=False, **MASKS[mask])
    assert_close(got[:, 1:3] if got.shape[1] == 5 else got, expected[:, 1:3], **EXACT)


@pytest.mark.parametrize("how", [{}, {"bias": False}, {"padding": "valid"}, {"kernel_size": (4, 6)}], ids=str)
@pytest.mark.parametrize("size", [(24, 24), (8, 24), (31, 42), (12, 25)])
def test_patch_product_equals_the_convolution_and_shares_its_parameters(how, size):
    how = {"kernel_size": 8} | how
    original = nn.Conv2d(3, 5, stride=how["kernel_size"], **how).double()
    assert cuts_patches(original)
    stand_in, image = PatchProduct(original), torch.randn(2, 3, *size, dtype=torch.float64)
    assert {id(value) for value in stand_in.parameters()} == {id(value) for value in original.parameters()}
    assert_close(stand_in(image), original(image), **EXACT)


def test_attentions_and_convolutions_that_are_not_stood_in_for():
    for how in ({"batch_first": False}, {"kdim": 8}, {"add_bias_kv": True}, {"add_zero_attn": True}):
        assert not can_split(nn.MultiheadAttention(12, 3, **({"batch_first": True} | how)))
    for how in ({"stride": 4}, {"stride": 9}, {"dilation": 2}, {"groups": 3}, {"padding": 1}):
        assert not cuts_patches(nn.Conv2d(3, 6, **({"kernel_size": 8, "stride": 8} | how)))
    for other in (nn.Conv2d(3, 6, 1), nn.Conv3d(3, 6, 8, 8), nn.Linear(3, 6)):
        assert not cuts_patches(other)


def test_convolutions_that_do_more_than_convolve_do_not_cut_patches():
    assert not cuts_patches(timm.layers.StdConv2d(3, 6, 8, 8, padding=0))  # it standardises its weights


def seen_by_hooks(encoder, run, names) -> dict[str, list[Tensor]]:
    """What a user's hook on each of these submodules is given while `run` runs."""
    seen, named = defaultdict(list), dict(encoder.module.named_modules())
    with ExitStack() as hooks, torch.no_grad():
        for name in names:

            def note(module, args, output, name=name):
                seen[name].append(output if isinstance(output, Tensor) else output[0])

            hooks.callback(named[name].register_forward_hook(note).remove)
        run()
    return seen


@SOME
def test_hooks_of_the_user_run_once_and_see_what_they_saw(name):
    """Where one token is pooled, its slice is all that's right in the last block and behind it."""
    encoder = wrap_encoder(CASES[name].make().double())
    parts, named = encoder.parts, dict(encoder.module.named_modules())
    elsewhere = [key for key, part in named.items() if isinstance(part, nn.MultiheadAttention)]
    elsewhere += ["attn_pool", next(key for key in named if named[key] is parts.final_norm)]
    names = [key for key in named if not key.startswith(tuple(elsewhere))]  # see the next test
    last = next(key for key in named if named[key] is parts.blocks[-1].block)
    plain = seen_by_hooks(encoder, lambda: encoder.encode_image(PIXELS), names)
    traced = seen_by_hooks(encoder, lambda: decompose(encoder, PIXELS), names)
    assert len(plain) > 20
    assert traced.keys() == plain.keys()
    for key, outputs in plain.items():
        late = parts.class_token and (key.startswith(last) or last.startswith(key))
        for got, expected in zip(traced[key], outputs, strict=True):
            shown = slice(1 if late and got.ndim == 3 else None)
            assert_close(got[:, shown], expected[:, shown], **EXACT)


ATTENTION = ("open_clip", "visual.transformer.resblocks.0.attn")  # stood in for
LAST_NORM = ("siglip", "vision_model.post_layernorm")  # normed once more for the pool's weights


@pytest.mark.parametrize(("name", "part"), [ATTENTION, LAST_NORM, ("timm attention pool", "attn_pool.q")])
def test_hooks_of_the_user_on_parts_that_are_stood_in_for_or_called_again_run_once(name, part):
    encoder = wrap_encoder(CASES[name].make().double())
    (plain,) = seen_by_hooks(encoder, lambda: encoder.encode_image(PIXELS), [part])[part]
    traced = seen_by_hooks(encoder, lambda: decompose(encoder, PIXELS), [part])[part]
    assert len(traced) == 1
    assert_close(traced[0], plain, **EXACT)


@SOME
def test_modes_of_torch(name):
    encoder = wrap_encoder(CASES[name].make())
    expected = decompose(encoder, FLOAT)
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            assert_close(decompose(encoder, FLOAT).contributions, expected.contributions, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = decompose(encoder, FLOAT)
    assert mixed.contributions.dtype == torch.float32
    assert (mixed.contributions.sum(2) - mixed.output).norm() < 1e-2 * mixed.output.norm()
    assert (mixed.contributions.sum(2) - expected.output).norm() < 3e-2 * expected.output.norm()
    held = (expected.output, expected.contributions, *vars(expected.coordinates).values())
    assert not any(value.requires_grad for value in held if value is not None)


POOLS = ["clip", "open_clip", "timm", "timm norm after average", "timm average of normed", "siglip"]


@pytest.mark.parametrize("name", [*POOLS, "timm attention pool"])
def test_gradients_are_the_model_s_own(name):
    model, pixels = CASES[name].make().double(), PIXELS.clone().requires_grad_()
    own = IMAGE_OUTPUT.get(type(model).__name__, lambda model, x: getattr(model, "encode_image", model)(x))
    output = own(model, pixels)
    weights = torch.randn_like(output)
    (expected,) = torch.autograd.grad((output * weights).sum(), pixels)
    contributions = decompose(wrap_encoder(model), pixels, grad=True).contributions
    (got,) = torch.autograd.grad((contributions.sum(2)[:, 0] * weights).sum(), pixels)
    assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["clip", "open_clip", "timm", "dinov2 registers"])
def test_only_the_token_s_slices_are_kept(name):
    encoder = wrap_encoder(CASES[name].make())
    with capture(encoder) as kept, torch.no_grad():
        encoder.encode_image(FLOAT)
        held = list(kept._slices.values())
        coordinates, _ = kept.take()
    held += filter(torch.is_tensor, vars(coordinates).values())
    assert len(held) == 6 + 5  # embedding, stream, z and MLP of two blocks; and what they became
    assert all(value.untyped_storage().nbytes() == value.numel() * 4 <= 5 * 2 * 24 * 4 for value in held)


def test_what_rounding_lost_is_shared_out_over_the_embedding_and_the_mlps():
    """In four parts where there are three blocks; all that was added is then the stream, to the last bit."""
    emb, stream = torch.ones(2, 5).half(), torch.full((2, 5), 31.0).half()
    mlp, attention = torch.full((2, 3, 5), 3.0).half(), torch.full((2, 3, 5), 4.0).half()
    shared_emb, shared_mlp, lost = _shared_out(emb, mlp, attention, stream)
    assert torch.equal(shared_emb, emb + 2.25)
    assert torch.equal(shared_mlp, mlp + 2.25)
    assert torch.equal(shared_emb + (shared_mlp + attention).sum(-2), stream.float())
    assert_close(lost, torch.full((2,), 9 / 31))
