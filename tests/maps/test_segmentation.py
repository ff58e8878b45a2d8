"""How maps are held against masks: the published measures written out plainly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from residual.errors import ResidualError
from residual.maps.segmentation import against_masks, average_precision


def plain_precision(scores: np.ndarray, true: np.ndarray) -> float:
    """Threshold by threshold."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = scores >= threshold
        recall = (found & true).sum() / true.sum()
        total, before = total + (recall - before) * (found & true).sum() / found.sum(), recall
    return total


def test_measures_are_those_published():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 3, 4, generator=generator)
    values[3] = -1  # nothing is found
    masks = torch.rand(5, 12, 16, generator=generator) > 0.7
    found = against_masks(values, masks)
    right, common, either, precisions = [], np.zeros(2), np.zeros(2), []
    for value, mask in zip(values, masks.numpy(), strict=True):
        laid = torch.nn.functional.interpolate(value[None, None].double(), scale_factor=4, mode="bilinear")
        laid = laid[0, 0].numpy().clip(0, None)
        span = laid.max() - laid.min()
        scaled = (laid - laid.min()) / span if span else np.zeros_like(laid)
        background = 1 - scaled if span else np.zeros_like(laid)
        thing = scaled > scaled.mean()
        right.append((thing == mask).mean())
        for side, (ours, theirs) in enumerate(((~thing, ~mask), (thing, mask))):
            common[side] += (ours & theirs).sum()
            either[side] += (ours | theirs).sum()
        both = np.concatenate([background.ravel(), scaled.ravel()])
        precisions.append(plain_precision(both, np.concatenate([~mask.ravel(), mask.ravel()])))
    assert found.pixel_accuracy == pytest.approx(np.mean(right))
    assert found.mean_iou == pytest.approx((common / either).mean())
    assert found.precision.tolist() == pytest.approx(precisions)
    assert precisions[3] == 0.5


def test_a_map_like_the_mask_is_right_everywhere_but_at_its_rim():
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[:, 16:40, 8:48] = True
    exact = masks[:, ::1, ::1].float()
    assert against_masks(exact, masks).mean_iou == 1
    assert against_masks(exact, masks).mean_precision == 1
    wrong = against_masks(-exact, masks)
    assert wrong.pixel_accuracy < 0.8
    assert repr(wrong).startswith("Segmentation(1 picture: pixel accuracy 76.6 %")


def test_nothing_that_is_true_has_no_precision():
    assert average_precision(torch.rand(1, 5), torch.zeros(1, 5, dtype=torch.bool)).tolist() == [0]


def test_what_cannot_be_measured():
    masks = torch.ones(2, 8, 8, dtype=torch.bool)
    with pytest.raises(ResidualError, match="got 1 maps and 2 masks"):
        against_masks(torch.ones(1, 2, 2), masks)
    with pytest.raises(ResidualError, match="isn't finite"):
        against_masks(torch.full((2, 2, 2), torch.nan), masks)
