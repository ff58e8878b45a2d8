"""Masks of what the suite draws: where a picture would be another one without the things of its class."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from residual.data import ImageDataset, load_dataset
from residual.data.suite import characters, draw
from residual.data.suite.generated import GeneratedDataset
from residual.errors import ResidualError


def drawn(data: ImageDataset, index: int) -> np.ndarray:
    assert isinstance(data, GeneratedDataset)
    return data.draw(index).astype(float)


@pytest.mark.parametrize("name", ["counting", "house-numbers", "road-signs"])
def test_a_mask_is_where_the_picture_changes_without_the_thing(name, monkeypatch):
    data, over, digit = load_dataset(name, "val"), draw.over, characters._digit
    monkeypatch.setattr(draw, "blurred", lambda canvas, radius: canvas)
    # A cast shadow is none of a digit's own pixels.
    monkeypatch.setattr(
        draw, "over", lambda canvas, sprite, opacity=1: canvas if opacity < 1 else over(canvas, sprite)
    )
    for index in range(20):
        masks, whole = data.masks(index), drawn(data, index)
        assert masks.dtype == bool
        assert masks.any((1, 2)).all() or name == "house-numbers"  # neighbours may lie outside
        assert masks.sum(0).max() == 1
        with monkeypatch.context() as without:
            if name == "house-numbers":
                own = data.class_names[data.labels[index]]

                def other(font, which, height, own=own):
                    glyph = digit(font, which, height)
                    return Image.new("L", glyph.size) if which == own else glyph

                without.setattr(characters, "_digit", other)
            else:
                without.setattr(draw, "over", lambda canvas, sprite: canvas)
            changed = np.abs(whole - drawn(data, index)).max(-1)
        mask = masks.any(0)
        # Not quite all: the wall may be like the thing before it; and its rim half hides the wall.
        assert (changed[mask] > 0).mean() > 0.95
        assert (changed > 24)[mask].sum() > 0.7 * (changed > 24).sum()


def test_there_is_a_mask_for_each_thing_that_is_counted():
    data = load_dataset("counting", "test")
    words = dict(zip(("one", "two", "three", "four", "five", "six"), range(1, 7), strict=True))
    few = data.subset([3, 65, 700])
    for index in range(3):
        assert len(few.masks(index)) == words[few.class_names[few.labels[index]].split()[0]]


def test_what_has_no_masks_says_so():
    with pytest.raises(ResidualError, match=r"in the pictures of letters isn't known. Of the suite"):
        load_dataset("letters", "test").masks(0)
