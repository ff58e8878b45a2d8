"""The optimisers of several sets at once are those of schedulefree and of torch, set by set."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from schedulefree import AdamWScheduleFree

from residual.adapters.descent import AdamW, ScheduleFreeAdamW


def gradients(steps, sets, size, seed):
    return torch.randn(steps, sets, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


sizes = {
    "rates": st.lists(st.floats(1e-4, 2.0), min_size=1, max_size=4),
    "size": st.integers(1, 7),
    "steps": st.integers(1, 25),
    "decay": st.sampled_from([0.0, 0.1]),
    "seed": st.integers(0, 1000),
}


@given(**sizes)
@settings(deadline=None, max_examples=30)
def test_schedule_free_is_that_of_its_library(rates, size, steps, decay, seed):
    given_gradients = gradients(steps, len(rates), size, seed)
    first = gradients(1, len(rates), size, seed + 1)[0]
    ours = ScheduleFreeAdamW(first, rates, decay)
    theirs = [first[k].clone().requires_grad_() for k in range(len(rates))]
    optimizers = [
        AdamWScheduleFree([own], lr=rate, weight_decay=decay) for own, rate in zip(theirs, rates, strict=True)
    ]
    for gradient in given_gradients:
        ours.update(gradient)
        for own, optimizer, part in zip(theirs, optimizers, gradient, strict=True):
            optimizer.train()
            own.grad = part.clone()
            optimizer.step()
    torch.testing.assert_close(ours.at, torch.stack([own.detach() for own in theirs]))
    for optimizer in optimizers:
        optimizer.eval()
    torch.testing.assert_close(ours.weights(), torch.stack([own.detach() for own in theirs]))


@given(**sizes, warmup=st.sampled_from([0.0, 0.1, 0.5]))
@settings(deadline=None, max_examples=30)
def test_adamw_is_that_of_torch_with_warm_up_and_cosine(rates, size, steps, decay, seed, warmup):
    first = gradients(1, len(rates), size, seed + 1)[0]
    total = [steps + 3 * k for k in range(len(rates))]
    ours = AdamW(first, rates, decay, total=total, warmup=warmup)
    theirs = [first[k].clone().requires_grad_() for k in range(len(rates))]
    optimizers = [torch.optim.AdamW([own], lr=1.0, weight_decay=decay) for own in theirs]
    for number, gradient in enumerate(gradients(steps, len(rates), size, seed), 1):
        ours.update(gradient)
        for own, optimizer, part, rate, whole in zip(theirs, optimizers, gradient, rates, total, strict=True):
            rising = math.floor(whole * warmup)
            if number <= rising:
                now = number / rising
            else:
                now = (1 + math.cos(math.pi * (number - 1 - rising) / (whole - rising))) / 2
            optimizer.param_groups[0]["lr"] = rate * now
            own.grad = part.clone()
            optimizer.step()
    torch.testing.assert_close(ours.weights(), torch.stack([own.detach() for own in theirs]))


KINDS = [ScheduleFreeAdamW, lambda *given: AdamW(*given, total=[9, 9], warmup=0.2)]


@pytest.mark.parametrize("kind", KINDS)
def test_decay_towards_the_start_is_decay_towards_zero_of_the_way_from_there(kind):
    first, own = gradients(1, 2, 5, 0)[0], torch.tensor([[1, 1, 0, 1, 1], [1, 0, 0, 1, 1]]).double()
    for masks in (None, own):
        ours = kind(first, [0.3, 0.01], 0.4, masks, "start")
        way = kind(torch.zeros_like(first), [0.3, 0.01], 0.4, masks)
        for number, gradient in enumerate(gradients(9, 2, 5, 1)):
            for each in (ours, way):
                each.update(gradient[: 1 if number in (3, 6) else 2])
            torch.testing.assert_close(ours.at, first + way.at)
            torch.testing.assert_close(ours.weights(), first + way.weights())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_the_first_sets_leaves_the_others_and_weights_that_are_not_own_stay(kind):
    first, given_gradients = gradients(1, 2, 5, 0)[0], gradients(9, 2, 5, 1)
    own = torch.tensor([[1, 1, 0, 1, 1], [1, 0, 0, 1, 1]], dtype=torch.float64)
    ours = kind(first, [0.3, 0.01], 0.1, own)
    for gradient in given_gradients[:4]:
        ours.update(gradient)
    second = ours.at[1].clone()
    ours.update(given_gradients[4, :1])
    assert torch.equal(ours.at[1], second)
    assert torch.equal(ours.weights()[own == 0], first[own == 0])
    assert (ours.weights()[own == 1] != first[own == 1]).all()
    ours.update(given_gradients[5])
    alone = kind(first, [0.3, 0.01], 0.1, own)
    for gradient in given_gradients[[0, 1, 2, 3, 5]]:
        alone.update(gradient)
    torch.testing.assert_close(ours.at[1], alone.at[1])
