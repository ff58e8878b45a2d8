"""Procedural scenes and the augmentation: what a training draws from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

FORMS = json.loads((Path(__file__).parents[2] / "picto/captions.json").read_text(encoding="utf-8"))
KINDS = ["pen", "row", "texture", "shape", "count", "sign"]


@pytest.fixture
def corpus(build) -> list:
    from packed import read_pictures

    return read_pictures()


def test_all_kinds_are_here():
    from scenes import MAKERS

    assert list(MAKERS) == KINDS  # their order is part of every seed
    assert sum(count for _, count in MAKERS.values()) == 114_000


@pytest.mark.parametrize("which", KINDS)
def test_a_scene_is_fixed_by_its_number(corpus, which):
    from packed import read_pictures
    from scenes import make

    first = [make(which, index, corpus) for index in range(40)]
    again = [make(which, index, read_pictures()) for index in reversed(range(40))][::-1]
    for (pixels, kind, name), (pixels2, kind2, name2) in zip(first, again, strict=True):
        assert pixels.shape == (64, 64, 3)
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, pixels2)
        assert (kind, name) == (kind2, name2)
        assert kind in FORMS
    assert len({pixels.tobytes() for pixels, _, _ in first}) == 40
    assert len({name for _, _, name in first}) > 3
    assert np.mean([pixels.std() for pixels, _, _ in first]) > 10


@pytest.mark.parametrize("which", ["pen", "texture", "shape"])
def test_scenes_without_drawings_need_no_corpus(which):
    from scenes import make

    assert make(which, 3, [])[0].shape == (64, 64, 3)


def test_counted_things_are_as_many_as_said(corpus):
    from scenes import make
    from scenes.paint import WORDS

    for index in range(60):
        _, kind, name = make("count", index, corpus)
        number, _, thing = name.partition(" ")
        assert kind == "count"
        assert number in WORDS["counts"][1:]
        assert thing.endswith("s") == (number != "one") or thing.split()[-1] in ("cross", "crosses")


def test_things_of_two_lists_are_not_mixed_up(corpus):
    from scenes.stock import digit_fonts, things

    assert sorted(things(corpus)) == ["bicycle", "cat", "dog"]
    assert sorted(things(corpus[:4])) == ["dog"]
    assert len(digit_fonts(corpus)) == 2
    assert digit_fonts([]) == []


def test_captions_name_what_is_drawn(corpus):
    import random

    from captions import icon_caption, image_keys, scene_caption

    rng = random.Random(0)
    for record, _ in corpus:
        for _ in range(20):
            text, key = icon_caption(rng, record)
            assert text
            assert "{" not in text
            assert key in image_keys(record)
    assert scene_caption(rng, "texture", "grey sand")[1] == "grey sand"


def batch(n: int = 24) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    rgba = torch.rand(n, 4, 64, 64, generator=generator)
    kind = torch.arange(n) % 3
    rgba[kind == 2, 3] = 1
    return rgba, kind, kind == 1, torch.rand(n, 3, 64, 64, generator=generator)


def test_augmentation_keeps_shape_and_range():
    from augment import augment

    given = batch()
    before = [tensor.clone() for tensor in given]
    torch.manual_seed(1)
    for _ in range(8):
        out = augment(*given)
        assert out.shape == (24, 3, 64, 64)
        assert out.dtype == torch.float32
        assert out.isfinite().all()
        assert -1 <= out.min() <= out.max() <= 1
    assert all(torch.equal(now, then) for now, then in zip(given, before, strict=True))


def test_augmentation_differs_between_calls_and_repeats_with_the_seed():
    from augment import augment

    given = batch()
    torch.manual_seed(2)
    first, second = augment(*given), augment(*given)
    assert ((first - second).abs().mean((1, 2, 3)) > 1e-3).all()
    torch.manual_seed(2)
    assert torch.equal(augment(*given), first)
