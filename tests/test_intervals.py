"""Intervals against SciPy, against Newcombe's published example, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from residual.errors import FewSamplesWarning
from residual.intervals import (
    FEW_SAMPLES,
    few_samples,
    mean_and_interval,
    over_pictures,
    over_seeds,
    paired_difference,
    warn_of_few,
    wilson,
)


def test_intervals_over_fits_are_students():
    mean, half = mean_and_interval([0.1, 0.2, 0.3])
    assert mean == pytest.approx(0.2)
    assert half == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert mean_and_interval([0.4]) == (0.4, None)
    assert mean_and_interval([0.5] * 40)[1] == 0


@pytest.mark.parametrize(("correct", "n"), [(0, 4), (4, 4), (965, 1_000), (1, 1), (17, 30)])
def test_wilsons_is_that_of_scipy(correct, n):
    theirs = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert wilson(correct, n) == pytest.approx((correct / n, theirs.low, theirs.high), abs=1e-6)


def test_newcombes_published_example():
    """36 pairs right both times, 12 only after, 2 only before (Statistics in Medicine 17, 1998, table II)."""
    after, before = np.repeat([1, 1, 0], [36, 12, 2]) > 0, np.repeat([1, 0, 1], [36, 12, 2]) > 0
    assert paired_difference(before, after) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)


def test_differences_lie_in_their_intervals_as_often_as_is_said():
    random, inside, tells = np.random.default_rng(0), [], []
    for _ in range(400):
        before = random.random(120) < 0.9
        after = np.where(random.random(120) < 0.85, before, random.random(120) < 0.7)
        found = paired_difference(before, after)
        inside.append(found.low <= 0.15 * (0.7 - 0.9) <= found.high)
        tells.append(paired_difference(before, random.permutation(before)).tells)
    assert np.mean(inside) > 0.93
    assert np.mean(tells) == 0  # as many are right, whichever they are


def test_nothing_is_certain_where_all_is_right(unchecked):
    every = np.ones(50, bool)
    value, low, high = paired_difference(every, every)
    assert value == 0
    assert low < 0 < high
    for wrong in (lambda: wilson(1, 0), lambda: wilson(5, 4)):
        with pytest.raises(ValueError, match="one picture at least"):
            wrong()
    with pytest.raises(ValueError, match="the same pictures"):
        paired_difference(every, every[1:])


def test_each_kind_has_its_own_sign():
    assert over_seeds(0.0031) == " ± 0.3"
    assert [over_seeds(none) for none in (None, float("nan"), 0.0, 0.0004)] == [""] * 4
    assert over_pictures(wilson(965, 1_000)) == over_pictures((0.9517, 0.9747)) == "(95.2 to 97.5)"


def test_few_pictures_are_told_with_the_width_of_what_they_leave_open():
    assert "100 % of them is anything from 51 to 100 % of others" in few_samples(4, 4)
    assert few_samples(FEW_SAMPLES) == few_samples(0) == ""
    with pytest.warns(FewSamplesWarning, match="Only 4 pictures say next to nothing.*from 15 to 85 %"):
        warn_of_few(4)
