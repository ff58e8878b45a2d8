"""Preprocessing in two halves gives the numbers of the whole; the first can be done to decoded pictures."""

from __future__ import annotations

import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from test_preprocessing import picture
from timm.data import create_transform
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from residual.encoders.halves import halves_of
from residual.encoders.preprocess import OnWhite, Preprocess, Squared, Unrounded
from residual.errors import ResidualError

SHAPES = [(57, 91), (91, 57), (40, 40), (33, 47), (60, 13), (7, 5), (41, 60), (1, 1), (90, 90)]
KNOWN = {
    "shortest edge, cropped": Preprocess(46, (40, 40)),
    "odd margins": Preprocess(45, (40, 38)),
    "a square, not rounded": Unrounded((40, 40), None, interpolation=2),
    "cropped alone": Preprocess(None, (40, 50)),
    "open_clip": OnWhite(image_transform_v2(PreprocessCfg(size=40), is_train=False)),
    "open_clip, squashed": OnWhite(
        image_transform_v2(PreprocessCfg(size=40, resize_mode="squash"), is_train=False)
    ),
    "timm": OnWhite(create_transform(40, is_training=False, crop_pct=0.9)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_halves_give_the_numbers_of_the_whole(name):
    preprocess = KNOWN[name]
    halves = halves_of(preprocess)
    assert halves is not None
    assert halves.geometry is not None
    rounds = halves.geometry.rounds
    for shape in SHAPES:
        for mode in ("RGB", "L", "RGBA"):
            seen = picture(shape, mode)
            drawn = halves.draw(seen)
            assert drawn.dtype == (torch.uint8 if rounds else torch.float32)
            assert torch.equal(halves.normalise(drawn) if rounds else drawn, preprocess(seen))
        drawn = halves.draw(picture(shape))
        again = halves.geometry.drawn([torch.as_tensor(_bytes(shape))])[0]
        again = again if rounds else halves.normalise(again)
        assert again.shape[1:] == halves.geometry.check(*shape)
        if isinstance(preprocess, OnWhite):  # which Pillow resizes; pressed together, in another order
            gap, pressed = (drawn.int() - again.int()).abs(), name.endswith("squashed")
            assert gap.max() <= (32 if pressed else 1), shape
            assert gap.float().mean() <= (0.5 if pressed else 0.1), shape
        else:
            assert torch.equal(drawn, again)


def _bytes(shape):
    import numpy as np

    return np.array(picture(shape)).transpose(2, 0, 1)


def test_pictures_of_many_sizes_are_drawn_as_each_alone():
    geometry = halves_of(KNOWN["open_clip"]).geometry
    pictures = [torch.as_tensor(_bytes(shape)) for shape in [*SHAPES, *SHAPES[::-1]]]
    together = geometry.drawn(pictures)
    assert torch.equal(together, torch.cat([geometry.drawn([each]) for each in pictures]))
    with pytest.raises(ResidualError, match=r"one picture has the shape \(3, 46, 73\), and another"):
        halves_of(Preprocess(46, None)).geometry.drawn(pictures[:2])


def test_what_is_not_known_step_by_step_stays_whole():
    steps = [ToTensor(), Normalize([0.5] * 3, [0.5] * 3)]
    assert halves_of(lambda image: image) is None
    assert halves_of(OnWhite(Compose([Resize(40), *steps, Normalize([0.5] * 3, [0.5] * 3)]))) is None
    assert halves_of(OnWhite(lambda image: image)) is None
    for preprocess in (
        Preprocess(40, None, interpolation=0),  # nearest
        Squared((40, 40), None),  # warns of each picture
        OnWhite(Compose([Resize(40, max_size=60), *steps])),
        OnWhite(image_transform_v2(PreprocessCfg(size=40, resize_mode="longest"), is_train=False)),
    ):
        halves = halves_of(preprocess)
        assert halves.geometry is None
        seen = picture((50, 50))
        assert torch.equal(halves.normalise(halves.draw(seen)), preprocess(seen))
