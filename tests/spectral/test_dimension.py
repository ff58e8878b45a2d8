"""Dimensions against their definitions, against manifolds whose dimension is known, and their intervals."""

from __future__ import annotations

import math
from dataclasses import asdict
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residual.errors import ResidualError
from residual.spectral import PCA, dimension, linear_dimension, pca, two_nn, two_nn_estimate, two_nn_scales
from residual.spectral.neighbours import nearest_two

DTYPES = [torch.float32, torch.float64]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def _uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=_generator(seed), dtype=torch.float64)


def two_distances(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """From every sample to its nearest and to its second nearest, by differences."""
    rows = x.detach().double().numpy()
    nearest = []
    for place, row in enumerate(rows):
        squares = ((rows - row) ** 2).sum(1)
        squares[place] = np.inf
        nearest.append(np.sort(squares)[:2])
    return tuple(np.sqrt(np.array(nearest)).T)


def two_nn_by_hand(x: torch.Tensor, fraction: float = 0.9) -> tuple[float, int, float]:
    """The dimension, how many samples went into it, and the mean of their second distances."""
    first, second = two_distances(x.unique(dim=0))
    kept = first < second
    ratios = np.sort(second[kept] / first[kept])
    count = len(ratios)
    horizontal, vertical = [], []
    for place in range(1, count + 1):
        if place <= math.floor(fraction * count) and place < count:
            horizontal.append(math.log(ratios[place - 1]))
            vertical.append(-math.log(1 - place / count))
    products = math.fsum(a * b for a, b in zip(horizontal, vertical, strict=True))
    squares = math.fsum(a * a for a in horizontal)
    return products / squares, count, second[kept].mean()


# Manifolds


def flat_torus(n: int, d: int, seed: int) -> torch.Tensor:
    """`d` circles at right angles to each other."""
    angles = 2 * math.pi * _uniform(n, d, seed=seed)
    return torch.cat([angles.cos(), angles.sin()], 1)


def ball_of_gauss(n: int, d: int, seed: int) -> torch.Tensor:
    return _normal(n, d, seed=seed)


def sphere(n: int, d: int, seed: int) -> torch.Tensor:
    x = _normal(n, d + 1, seed=seed)
    return x / x.norm(dim=1, keepdim=True)


def torus(n: int, d: int, seed: int) -> torch.Tensor:
    """A ring's surface in three dimensions."""
    along, around = (2 * math.pi * _uniform(n, d, seed=seed)).T
    radius = 3 + around.cos()
    return torch.stack([radius * along.cos(), radius * along.sin(), around.sin()], 1)


def swiss_roll(n: int, d: int, seed: int) -> torch.Tensor:
    turn, height = _uniform(n, d, seed=seed).T
    angle = 3 * math.pi * (1 + 3 * turn).sqrt()  # so that it is even along the roll
    return torch.stack([angle * angle.cos(), angle * angle.sin(), 30 * height], 1)


def in_100_dimensions(x: torch.Tensor, seed: int = 5) -> torch.Tensor:
    """Turned at random, and off the origin."""
    rotation = torch.linalg.qr(_normal(100, 100, seed=seed)).Q
    return x @ rotation[: x.shape[1]] + 3 * _normal(100, seed=seed)


MANIFOLDS = [
    (flat_torus, 1, 2000),
    (sphere, 2, 2000),
    (torus, 2, 2000),
    (swiss_roll, 2, 2000),
    (flat_torus, 5, 5000),
    (ball_of_gauss, 5, 3000),
    (sphere, 10, 6000),
]


@pytest.mark.parametrize(("make", "d", "n"), MANIFOLDS)
def test_dimension_of_manifolds(make, d, n):
    x = in_100_dimensions(make(n, d, seed=d))
    got = two_nn_estimate(x)
    assert got.dimension == pytest.approx(d, rel=0.1)
    assert (got.samples, got.dropped) == (n, 0)
    if d < 5:
        assert two_nn(x.float()) == pytest.approx(got.dimension, rel=1e-3)  # other numbers, nearly the same


@pytest.mark.parametrize(("make", "d"), [(sphere, 2), (ball_of_gauss, 5)])
def test_linear_dimension_is_that_of_the_space_around(make, d):
    x = in_100_dimensions(make(2000, d, seed=1))
    assert linear_dimension(pca(x)) == (3 if make is sphere else 5)


# TwoNN by its definition


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("make", "d"), [(flat_torus, 2), (sphere, 5), (swiss_roll, 2)])
def test_two_nn_is_its_definition(make, d, dtype):
    x = in_100_dimensions(make(300, d, seed=0)).to(dtype)
    for fraction in (0.1, 0.5, 0.9, 0.95, 1.0):
        dimension, count, distance = two_nn_by_hand(x, fraction)
        got = two_nn_estimate(x, fraction)
        assert got.dimension == pytest.approx(dimension, rel=1e-9)
        assert got.distance == pytest.approx(distance, rel=1e-9)
        assert (got.samples, got.dropped) == (count, 300 - count)
        assert two_nn(x, fraction) == got.dimension


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(6, 60),
    d=st.integers(1, 6),
    seed=st.integers(0, 10_000),
    fraction=st.sampled_from([0.3, 0.5, 0.77, 0.9, 1.0]),
    integers=st.booleans(),
    repeated=st.integers(0, 5),
    dtype=st.sampled_from(DTYPES),
)
def test_two_nn_with_duplicates_and_ties(n, d, seed, fraction, integers, repeated, dtype):
    x = _normal(n, d, seed=seed)
    x = (20 * x).round() if integers else x
    x = torch.cat([x, x[:repeated]])[torch.randperm(n + repeated, generator=_generator(seed))].to(dtype)
    distinct = x.unique(dim=0)
    first, second = two_distances(distinct)
    count, total = int((first < second).sum()), n + repeated
    if min(math.floor(fraction * count), count - 1) < 1 or 2 * count < len(distinct):
        twins = f"Of {total} samples {total - len(distinct)} are duplicates of others"
        with pytest.raises(ResidualError, match=f"{twins} and {len(distinct) - count} have two neighbours"):
            two_nn(x, fraction)
        return
    dimension, _, distance = two_nn_by_hand(x, fraction)
    got = two_nn_estimate(x, fraction)
    assert (got.samples, got.dropped) == (count, n + repeated - count)
    assert got.dimension == pytest.approx(dimension, rel=1e-8)
    assert got.distance == pytest.approx(distance, rel=1e-8)
    assert 0 < got.low < got.dimension < got.high


def test_two_ratios_by_pencil():
    """On a line at 0, 1, 3 and 7: first distances 1, 1, 2, 4, second ones 3, 2, 3, 6; ratios 3, 2, 1.5, 1.5.

    Half of four are the two smallest, at heights −ln 3/4 and −ln 1/2.
    """
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    expected = (math.log(4 / 3) + math.log(2)) / (2 * math.log(1.5))
    assert two_nn(x, 0.5) == pytest.approx(expected, rel=1e-12)
    assert two_nn_estimate(x, 0.5).distance == pytest.approx(14 / 4, rel=1e-12)
    a, b, c = math.log(1.5), math.log(1.5), math.log(2)
    heights = -math.log(3 / 4), -math.log(1 / 2), -math.log(1 / 4)
    expected = (a * heights[0] + b * heights[1] + c * heights[2]) / (a**2 + b**2 + c**2)
    assert two_nn(x, 1.0) == pytest.approx(expected, rel=1e-12)  # without the last, whose height is infinite
    assert two_nn(x, 0.75) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("last_bits", [0.0, 1e-7])
@pytest.mark.parametrize("times", [2, 3])
def test_duplicates_change_no_number(times, last_bits):
    """Also such as differ in their last bits: pictures that come twice, in other batches."""
    x = sphere(200, 3, seed=3)
    expected = two_nn_estimate(x)
    twins = torch.cat([x, *(x[:150] for _ in range(times - 1))])
    twins += last_bits * _normal(*twins.shape, seed=4)
    order = torch.randperm(len(twins), generator=_generator(5))
    got = two_nn_estimate(twins[order], resolution=10 * last_bits)
    assert (got.samples, got.dropped) == (200, 150 * (times - 1))
    assert got.dimension == pytest.approx(expected.dimension, rel=1e-9 + 1e3 * last_bits)
    assert got.high == pytest.approx(expected.high, rel=1e-9 + 1e3 * last_bits)
    if times == 2:  # seen without being told, where the precision is that of the last bits
        assert two_nn_estimate(twins.float()).dropped == 150


def test_dense_clusters_are_no_duplicates():
    x = _normal(400, 3)
    assert two_nn_estimate(torch.cat([1e-7 * x[:300], x[300:]])).dropped == 0


def test_only_what_is_near_a_kept_sample_is_dropped():
    """Of a chain every other one: the second is near the first, the third near the second alone."""
    x = _normal(100, 3)
    chain = x[:1] + 1e-4 * torch.tensor([[0], [1], [2.1], [3.2], [4.1]]) * torch.tensor([[1.0, 0, 0]])
    assert two_nn_estimate(torch.cat([chain, x[1:]]), resolution=1.5e-4).dropped == 2


def test_copies_cost_no_more_searches(monkeypatch):
    calls = []
    monkeypatch.setattr(dimension, "nearest_two", lambda x: calls.append(len(x)) or nearest_two(x))
    two_nn_estimate(_normal(50, 3).repeat(20, 1))
    assert calls == [50]


def test_precision_that_rounds_distances_away():
    x = sphere(300, 2, seed=0)
    assert two_nn(x + 1e6) == pytest.approx(two_nn(x), rel=1e-6)
    with pytest.raises(ResidualError, match=r"that torch\.float32 rounds their distances away\. Subtract"):
        two_nn((x + 1e6).float())


@pytest.mark.parametrize("dtype", DTYPES)
def test_moving_turning_scaling_and_order_do_not_matter(dtype):
    x = flat_torus(500, 2, seed=2)
    expected = two_nn_estimate(x)
    rotation = torch.linalg.qr(_normal(4, 4)).Q
    for changed in (x + 100, x @ rotation, 1e-6 * x, x[torch.randperm(500, generator=_generator(0))]):
        got = two_nn_estimate(changed.to(dtype))
        tolerance = 1e-9 if dtype == torch.float64 else 1e-2  # what rounding samples to float32 does to it
        assert got.dimension == pytest.approx(expected.dimension, rel=tolerance)
        assert got.low == pytest.approx(expected.low, rel=tolerance)
        assert got.high == pytest.approx(expected.high, rel=tolerance)


# Its interval


@pytest.mark.parametrize(
    ("make", "d", "fraction"),
    [(flat_torus, 2, 0.9), (flat_torus, 2, 0.5), (flat_torus, 1, 1.0), (sphere, 5, 0.9)],
)
def test_the_interval_holds_the_mean_as_often_as_it_says(make, d, fraction):
    found = [two_nn_estimate(make(200, d, seed=seed), fraction) for seed in range(120)]
    mean = np.mean([each.dimension for each in found])
    held = np.mean([each.low < mean < each.high for each in found])
    assert 0.9 <= held <= 0.99
    low, high = (np.mean([side(each) for each in found]) for side in (lambda e: e.low, lambda e: e.high))
    spread = np.std([math.log(each.dimension) for each in found])
    assert math.log(high / low) / 2 == pytest.approx(NormalDist().inv_cdf(0.975) * spread, rel=0.2)


@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_the_interval_is_its_definition(fraction):
    """The variance of the influences' sum, where a sample depends on its neighbours and on whose it is."""
    x = sphere(200, 2, seed=0)
    dimension, count, _ = two_nn_by_hand(x, fraction)
    first, second = two_distances(x)
    y = np.linspace(0, -math.log(1 - fraction), 20_001)
    below = np.log(second / first)[:, None] * dimension <= y
    influence = np.trapezoid(y * (below - 1 + np.exp(-y)), y) / np.trapezoid(y**2 * np.exp(-y), y)
    nearest = np.eye(200, dtype=bool)
    np.put_along_axis(nearest, torch.cdist(x, x).topk(3, largest=False).indices.numpy(), True, axis=1)
    variance = influence @ (nearest | nearest.T) @ influence
    got = two_nn_estimate(x, fraction)
    error = NormalDist().inv_cdf(0.975) * math.sqrt(variance) / count
    assert math.log(got.high / got.dimension) == pytest.approx(error, rel=1e-3)


def test_the_interval_is_normal_in_the_logarithm():
    x = sphere(400, 2, seed=0)
    reference = two_nn_estimate(x)
    error = math.log(reference.high / reference.dimension)
    last = 0.0
    for level in (0.01, 0.5, 0.8, 0.95, 0.99, 0.9999):
        got = two_nn_estimate(x, level=level)
        assert got.dimension == reference.dimension
        assert got.low * got.high == pytest.approx(got.dimension**2, rel=1e-12)
        quantiles = [NormalDist().inv_cdf((1 + each) / 2) for each in (level, 0.95)]
        assert math.log(got.high / got.dimension) == pytest.approx(
            error * quantiles[0] / quantiles[1], rel=1e-9
        )
        assert got.high - got.low > last
        last = got.high - got.low


def test_more_samples_make_it_narrower():
    widths = []
    for n in (100, 400, 1600):
        got = two_nn_estimate(sphere(n, 2, seed=n))
        assert got.low < got.dimension < got.high
        widths.append(math.log(got.high / got.low))
    for wide, narrow in pairwise(widths):
        assert wide / narrow == pytest.approx(2, rel=0.25)  # as the root of how many there are


# At larger scales


@pytest.mark.parametrize(("fraction", "level"), [(0.9, 0.95), (0.6, 0.8)])
def test_scales_are_means_over_disjoint_parts(fraction, level):
    x = sphere(811, 3, seed=1)
    scales = two_nn_scales(x, fraction, level, halvings=2, seed=7)
    assert len(scales) == 3
    for name, value in asdict(two_nn_estimate(x, fraction, level)).items():
        assert getattr(scales[0], name) == pytest.approx(value, rel=1e-12), name
    order = torch.randperm(811, generator=_generator(7))
    for times, scale in enumerate(scales):
        parts = [x[order[start :: 2**times]] for start in range(2**times)]
        found = [two_nn_estimate(part, fraction, level) for part in parts]
        by_hand = [two_nn_by_hand(part, fraction) for part in parts]
        assert scale.dimension == pytest.approx(np.mean([each[0] for each in by_hand]), rel=1e-9)
        assert scale.samples == round(np.mean([each[1] for each in by_hand]))
        assert scale.distance == pytest.approx(np.mean([each[2] for each in by_hand]), rel=1e-9)
        assert scale.dropped == round(np.mean([each.dropped for each in found]))
        # the variance of a mean of independent parts
        errors = [math.log(each.high / each.dimension) for each in found]
        error = math.sqrt(np.mean(np.square(errors)) / len(parts))
        assert scale.high == pytest.approx(scale.dimension * math.exp(error), rel=1e-9)
        assert scale.low == pytest.approx(scale.dimension * math.exp(-error), rel=1e-9)


def test_sizes_halve_and_distances_grow():
    scales = two_nn_scales(flat_torus(1600, 2, seed=3))
    assert [scale.samples for scale in scales] == [1600, 800, 400, 200]
    for near, far in pairwise(scales):
        assert far.distance / near.distance == pytest.approx(math.sqrt(2), rel=0.05)
    for scale in scales:  # a cloud without noise has one dimension at all scales
        assert scale.dimension == pytest.approx(2, rel=0.1)


def test_noise_on_a_curve_fades_with_the_scale():
    curve = in_100_dimensions(flat_torus(2400, 1, seed=0))
    noisy = two_nn_scales(curve + 1e-3 * _normal(2400, 100, seed=1), halvings=4)
    dimensions = [scale.dimension for scale in noisy]
    assert dimensions == sorted(dimensions, reverse=True)
    assert dimensions[0] > 5
    assert dimensions[-1] < 2
    assert noisy[-1].high < noisy[0].low


def test_parts_are_no_smaller_than_the_least():
    x = sphere(800, 2, seed=0)
    for n, halvings, least, expected in (
        (800, 3, 100, 4), (799, 3, 100, 3), (800, 9, 100, 4), (800, 1, 100, 2), (800, 0, 100, 1),
        (199, 3, 100, 1), (20, 3, 100, 1), (200, 3, 50, 3),
    ):  # fmt: skip
        scales = two_nn_scales(x[:n], halvings=halvings, least=least)
        assert len(scales) == expected
        assert all(scale.samples >= min(least, n) for scale in scales)


def test_parts_without_ratios_end_the_scales():
    """However small the parts may be, and where most samples are the same, what there is is given."""
    assert [scale.samples for scale in two_nn_scales(sphere(14, 2, seed=0), halvings=5, least=1)] == [
        14,
        7,
        4,
    ]
    x = torch.cat([flat_torus(12, 2, seed=0), torch.zeros(788, 4)])
    scales = two_nn_scales(x)
    assert 1 <= len(scales) < 4
    assert scales[0] == two_nn_estimate(x)


def test_scales_have_a_seed():
    x = sphere(400, 2, seed=0)
    assert two_nn_scales(x, seed=1) == two_nn_scales(x, seed=1)
    one, other = two_nn_scales(x, seed=1), two_nn_scales(x, seed=2)
    assert one[1].dimension != other[1].dimension
    torch.manual_seed(5)
    assert two_nn_scales(x, seed=1) == one


# Refusals


@pytest.mark.parametrize("measure", [two_nn, two_nn_estimate, two_nn_scales])
def test_what_has_no_dimension(measure):
    x = sphere(50, 2, seed=0)
    for fraction in (0.0, -0.5, 1.0001, float("nan")):
        with pytest.raises(ResidualError, match=r"fraction of ratios lies in \(0, 1\], got"):
            measure(x, fraction)
    for n in range(3):
        with pytest.raises(ResidualError, match=f"need at least 3 samples, got {n}"):
            measure(x[:n])
    for value in (float("nan"), float("inf")):
        with pytest.raises(ResidualError, match="The samples hold NaN or infinity"):
            measure(torch.cat([x, torch.tensor([[0, value, 0]])]))
    for few in (torch.ones(40, 3), x[:2].repeat(20, 1)):
        with pytest.raises(ResidualError, match=r"Of 40 samples 3[89] are duplicates of others: TwoNN needs"):
            measure(few)
    with pytest.raises(ResidualError, match=r"0 have two .* the 50 left are too few .* fraction 0\.01"):
        measure(x, 0.01)
    with pytest.raises(ResidualError, match="0 are duplicates of others and 3 have two neighbours equally"):
        measure(torch.eye(3))
    with pytest.raises(ResidualError, match=r"TwoNN is for distinct samples of a density, not for .* a grid"):
        measure((5 * _uniform(400, 3)).round())
    with pytest.raises(ResidualError, match="TwoNN is for distinct samples of a density"):
        measure(torch.arange(1000.0)[:, None] / 7)  # rounded: neighbours are nearly as far


def test_no_such_level():
    x = sphere(50, 2, seed=0)
    for level in (0.0, 1.0, -0.1, 95.0, float("nan")):
        for measure in (two_nn_estimate, two_nn_scales):
            with pytest.raises(ResidualError, match=r"level of confidence lies in \(0, 1\), got"):
                measure(x, level=level)


# By the spectrum


def planted(eigenvalues: list[float], n: int = 200) -> torch.Tensor:
    """Samples with exactly these variances, along random directions."""
    d = len(eigenvalues)
    columns = torch.linalg.qr(torch.cat([torch.ones(n, 1).double(), _normal(n, d, seed=1)], 1)).Q[:, 1:]
    rotation = torch.linalg.qr(_normal(d, d, seed=2)).Q
    return columns * (torch.tensor(eigenvalues).double() * (n - 1)).sqrt() @ rotation + 2


def test_linear_dimension_of_planted_spectra():
    for eigenvalues, threshold, expected in (
        ([90.5, 9, 0.5], 0.9, 1), ([89.5, 10, 0.5], 0.9, 2),
        ([50, 30, 19.5, 0.5], 0.99, 3), ([50, 30, 18.5, 1.5], 0.99, 4),
        ([1] * 10, 0.75, 8), ([1] * 10, 0.01, 1), ([1] * 10, 0.999999, 10), ([1], 0.99, 1),
        ([99.5] + [0.5 / 20] * 20, 0.99, 1),
        ([98] + [2 / 20] * 20, 0.9895, 11),  # 98 + 10 · 0.1 = 99
    ):  # fmt: skip
        assert linear_dimension(pca(planted(eigenvalues)), threshold) == expected
        for dtype in DTYPES:
            assert linear_dimension(torch.tensor(eigenvalues, dtype=dtype), threshold) == expected


def test_the_part_must_be_exceeded():
    equal = torch.ones(4)
    assert linear_dimension(equal, 0.5) == 3
    assert linear_dimension(equal, 0.49) == 2
    assert linear_dimension(equal) == linear_dimension(equal, 0.99) == 4


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30),
    threshold=st.floats(0.001, 0.999),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
)
def test_linear_dimension_is_its_definition(values, threshold, scale):
    values = sorted(values, reverse=True)
    running = [math.fsum(values[: place + 1]) / math.fsum(values) for place in range(len(values))]
    if min(abs(share - threshold) for share in running) < 1e-9:
        return  # rounding decides
    expected = next(place for place, share in enumerate(running, start=1) if share > threshold)
    assert linear_dimension(scale * torch.tensor(values, dtype=torch.float64), threshold) == expected


def test_linear_dimension_of_some_components():
    whole = pca(planted([50, 30, 15, 4, 1]))
    cut = PCA(whole.mean, whole.components[:2], whole.eigenvalues[:2], whole.total_variance)
    assert linear_dimension(cut, 0.7) == linear_dimension(whole, 0.7) == 2
    assert linear_dimension(cut, 0.4) == 1
    with pytest.raises(ResidualError, match=r"2 components hold 0\.8 of the variance.*0\.9"):
        linear_dimension(cut, 0.9)


def test_without_variance_there_is_no_dimension():
    assert linear_dimension(torch.zeros(5)) == 0
    assert linear_dimension(torch.zeros(0)) == 0
    assert linear_dimension(pca(torch.full((20, 4), 2.0))) == 0


def test_no_such_part_of_the_variance():
    for threshold in (0.0, 1.0, -0.5, 1.5, 99.0, float("nan")):
        with pytest.raises(ResidualError, match=r"share of the variance lies in \(0, 1\), got"):
            linear_dimension(torch.ones(3), threshold)


def test_eigenvalues_descend():
    for values in ([1.0, 90.0, 9.0], [9.0, -1.0]):
        with pytest.raises(ResidualError, match="Eigenvalues are variances, in descending order"):
            linear_dimension(torch.tensor(values))
