"""Numbers that are numbers: NaN and infinity are refused wherever a result is made of them, and so are
fractions where only whole ones count.

`argmax` takes NaN for the largest logit, so that a broken model would be right about class 0. Whoever counts
what is right does it here.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from residual.errors import ResidualError

SHORTEST = 1e-12  # of a norm that is divided by, as torch's `normalize` has it


def plain(values: Any) -> Any:
    """Numbers out of numpy, pandas or torch, on a GPU too: lists for axes; anything else as it is.

    What a mask of pandas lacks is False, as where pandas takes one.
    """
    if str(getattr(values, "dtype", "")) == "boolean":
        values = values.fillna(False)
    return values.tolist() if hasattr(values, "tolist") else values


def whole(value: Any) -> int:
    """A whole number, numpy's too, as a plain one.

    Raises:
        TypeError: it is none; booleans aren't.
    """
    if isinstance(plain(value), bool):
        raise TypeError(f"{value!r} is no whole number")
    return operator.index(value)


def whole_fields(settings: Any, *names: str) -> None:
    """Make fields of settings plain whole numbers.

    Raises:
        ResidualError: one is none; says which.
    """
    for name in names:
        try:
            object.__setattr__(settings, name, whole(getattr(settings, name)))
        except TypeError:
            message = f"{name} must be a whole number, got {getattr(settings, name)!r}."
            raise ResidualError(message) from None


def check_finite(values: Tensor, what: str) -> Tensor:
    """Refuse NaN and infinity; the values as they came.

    It waits for the device that they are on.

    Args:
        values: of any shape.
        what: they are, in the plural, at the beginning of a sentence.

    Raises:
        ResidualError: some aren't finite; says how many.
    """
    if values.is_floating_point() and not (finite := values.isfinite()).all():
        raise ResidualError(
            f"{what} hold NaN or infinity: {int((~finite).sum()):,} of {values.numel():,} numbers."
        )
    return values


def hits(logits: Float[Tensor, "*n c"], labels: Tensor) -> Float[Tensor, "*n"]:
    """1 for a sample whose largest logit is its label's, 0 for another, NaN where logits aren't finite.

    Nothing waits for a device: a sum of these tells whether all was finite when it is read.

    Args:
        logits: of each sample, on any device.
        labels: class numbers `(n,)` there.

    Raises:
        ResidualError: there isn't one label a sample, which would be compared with each of the others.
    """
    if labels.shape != logits.shape[-2:-1]:
        raise ResidualError(
            f"Logits of the shape {tuple(logits.shape)} need labels of the shape "
            f"{tuple(logits.shape[-2:-1])}; got {tuple(labels.shape)}."
        )
    right = (logits.argmax(-1) == labels).float()
    # A sum is finite if all are, and costs a tenth of looking at each.
    sums = logits.sum(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    return torch.where(sums.isfinite(), right, torch.nan)


def correct(logits: Float[Tensor, "*n c"], labels: Tensor) -> Bool[Tensor, "*n"]:
    """Whether each sample's largest logit is its label's.

    Raises:
        ResidualError: as `hits`; or logits that aren't finite; says of how many samples.
    """
    return all_measured(hits(logits, labels))


def all_measured(measured: Float[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
    """Which `hits` are hits; it waits for the device that they are on.

    Raises:
        ResidualError: logits weren't finite; says of how many samples.
    """
    missing = torch.atleast_2d(measured.isnan()).flatten(0, -2).any(0)  # (n,)
    if wrong := int(missing.sum()):
        raise ResidualError(
            f"Logits hold NaN or infinity for {wrong:,} of {len(missing):,} samples: what they were made of, "
            "pixels, weights or scores, isn't finite."
        )
    return measured > 0
