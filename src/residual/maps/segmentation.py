"""How well maps find things whose places are known, as clip_prs measures it on ImageNet-segmentation.

Gandelsman, Efros and Steinhardt (2024, arXiv 2310.05916, section 5), whose code takes the measures of Chefer
et al. (2021, arXiv 2012.09838). Each map is laid over its picture bilinearly; what is below zero is set to
zero; then it is scaled to 0 to 1. What is over the mean of that is taken for the thing, the rest for
background.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from residual.errors import ResidualError
from residual.maps.maps import resized


@dataclass(frozen=True, repr=False, eq=False)
class Segmentation:
    """What maps say of each pixel against what is there, picture by picture.

    Args:
        right: share of the pixels that are told right, thing or background.
        common: pixels that both call background, and that both call thing.
        either: pixels that the one or the other calls background, and thing.
        precision: average precision of the picture's pixels. Each is ranked twice, as the thing by the
            scaled map and as background by one less that: `Σ_k (R_k − R_{k−1}) P_k` over thresholds, with
            recall `R` and precision `P` of both together. Chance is 50 %.
    """

    right: Float[Tensor, " n"]
    common: Float[Tensor, "n 2"]
    either: Float[Tensor, "n 2"]
    precision: Float[Tensor, " n"]

    @property
    def pixel_accuracy(self) -> float:
        """Share of all pixels that are told right."""
        return self.right.mean().item()

    @property
    def mean_iou(self) -> float:
        """Intersection over union of all pictures' pixels together; the mean of background and thing."""
        return (self.common.sum(0) / self.either.sum(0)).mean().item()

    @property
    def mean_precision(self) -> float:
        """The mean over pictures, as published (mAP)."""
        return self.precision.mean().item()

    def __repr__(self) -> str:
        measures = {
            "pixel accuracy": self.pixel_accuracy,
            "mIoU": self.mean_iou,
            "mAP": self.mean_precision,
        }
        told = ", ".join(f"{name} {100 * value:.1f} %" for name, value in measures.items())
        n = len(self.right)
        return f"Segmentation({n} picture{'s' * (n > 1)}: {told})"


def against_masks(values: Float[Tensor, "n rows cols"], masks: Bool[Tensor, "m h w"]) -> Segmentation:
    """Hold maps against masks.

    Args:
        values: one map a picture, on its grid of patches; with sign.
        masks: where the thing is, in the part of the picture that the encoder sees.

    Raises:
        ResidualError: not as many masks as maps; or a map that isn't finite.

    Example:
        >>> there = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> there[:, :4, :4] = True
        >>> against_masks(torch.tensor([[[1.0, 0.0], [0.0, -1.0]]]), there)
        Segmentation(1 picture: pixel accuracy 90.6 %, mIoU 80.1 %, mAP 99.3 %)
    """
    if len(values) != len(masks):
        raise ResidualError(f"Each map needs a mask, got {len(values)} maps and {len(masks)} masks.")
    if not values.isfinite().all():
        raise ResidualError("A map holds a number that isn't finite.")
    height, width = masks.shape[-2:]
    laid = resized(values[:, None].double(), (height, width))[:, 0].clamp(min=0).flatten(1)  # (n, pixels)
    low, high = laid.amin(1, keepdim=True), laid.amax(1, keepdim=True)
    flat = low == high  # nothing is found: all of it background, and no pixel before another
    scaled = torch.where(flat, 0, (laid - low) / torch.where(flat, 1, high - low))
    found, there = scaled > scaled.mean(1, keepdim=True), masks.flatten(1)
    sides = ((~found, ~there), (found, there))
    ranked = torch.cat([torch.where(flat, 0, 1 - scaled), scaled], 1)
    return Segmentation(
        right=(found == there).double().mean(1),
        common=torch.stack([(a & b).sum(1) for a, b in sides], 1).double(),
        either=torch.stack([(a | b).sum(1) for a, b in sides], 1).double(),
        precision=average_precision(ranked, torch.cat([~there, there], 1)),
    )


def average_precision(scores: Float[Tensor, "n k"], true: Bool[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """`Σ (R_k − R_{k−1}) P_k` over the thresholds of each row, equal scores at once; 0 if nothing is true."""
    scores, order = scores.sort(dim=1, descending=True)
    true = true.gather(1, order).double()
    count = scores.shape[1]
    places = torch.arange(count, device=scores.device).expand_as(scores)
    last = torch.ones_like(scores, dtype=torch.bool)  # of equal scores
    last[:, :-1] = scores[:, 1:] != scores[:, :-1]
    ends = torch.where(last, places, count).flip(1).cummin(1).values.flip(1)
    precision = true.cumsum(1).gather(1, ends) / (ends + 1)
    return (precision * true).sum(1) / true.sum(1).clamp(min=1)
