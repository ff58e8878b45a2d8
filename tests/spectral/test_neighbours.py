"""The two nearest neighbours are those of a brute force by differences, however hard the samples are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from residual.errors import ResidualError
from residual.spectral import nearest_two, neighbours

FEW = range(3, 13)  # around and below the number of candidates that a product proposes


def brute_force(x: torch.Tensor) -> np.ndarray:
    """All distances `(n, n)` by float64 differences, infinity from a sample to itself."""
    rows = x.detach().double().numpy()
    result = np.empty((len(rows), len(rows)))
    for place, row in enumerate(rows):
        result[place] = np.sqrt(((rows - row) ** 2).sum(1))
        result[place, place] = np.inf
    return result


def is_exact(x: torch.Tensor) -> None:
    given = x.detach().clone()
    got, found = nearest_two(x)
    n = len(x)
    assert (got.dtype, found.dtype) == (torch.float64, torch.int64)
    assert got.shape == found.shape == (n, 2)
    assert torch.equal(x.detach(), given)
    every = brute_force(x)
    found, rows = found.numpy(), np.arange(n)
    assert (found != rows[:, None]).all()
    assert (found[:, 0] != found[:, 1]).all()
    np.testing.assert_allclose(got, every[rows[:, None], found], rtol=1e-14, atol=0)
    np.testing.assert_allclose(got, np.sort(every, axis=1)[:, :2], rtol=1e-10, atol=0)
    assert (got[:, 0] <= got[:, 1]).all()


class Watched(TorchFunctionMode):
    """Notes how many rows went through a product in which precision, and how many through differences.

    Args:
        bits: of the mantissa that a float32 product keeps of its factors, as on GPUs that are set to less.
    """

    def __init__(self, bits: int = 23):
        super().__init__()
        self.drop, self.rows = 2 ** (23 - bits), {"float32": 0, "float64": 0, "differences": 0}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.addmm:
            narrow, left, right = args
            self.rows[str(left.dtype).removeprefix("torch.")] += len(left)
            if left.dtype == torch.float32:
                args = (narrow, self._rounded(left), self._rounded(right))
        elif func is torch.cdist:
            self.rows["differences"] += len(args[0])
        return func(*args, **kwargs)

    def _rounded(self, values):
        whole = values.contiguous().view(torch.int32)
        return ((whole + self.drop // 2) & -self.drop).view(torch.float32)


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(n, d, seed):
    return _normal(n, d, seed=seed)


def duplicates(n, d, seed):
    """Every sample about three times."""
    few = _normal(max(1, n // 3), d, seed=seed)
    return few[torch.randint(len(few), (n,), generator=torch.Generator().manual_seed(seed))]


def grid(n, d, seed):
    """Integers: many at one distance, many the same."""
    return torch.randint(-3, 4, (n, d), generator=torch.Generator().manual_seed(seed)).double()


def far_away(n, d, seed):
    return 1e6 + _normal(n, d, seed=seed)


def clusters(n, d, seed, spread=1e-6):
    """Three, with `spread` of the distance between them."""
    centres = 10 * _normal(3, d, seed=seed + 1)
    return centres[torch.arange(n) % 3] + 10 * spread * _normal(n, d, seed=seed)


def tight_clusters(n, d, seed):
    return clusters(n, d, seed, spread=1e-10)


def heavy_tails(n, d, seed):
    """Norms from 1e-6 to 1e6."""
    return _normal(n, d, seed=seed) * torch.exp(5 * _normal(n, 1, seed=seed + 1))


def line(n, d, seed):
    """In one direction, evenly but for a jitter."""
    steps = torch.arange(n) + 0.3 * _normal(n, seed=seed)
    return steps[torch.randperm(n, generator=torch.Generator().manual_seed(seed)), None] * torch.ones(d)


def powers(n, d, seed):
    """Nearer and nearer to one point: 2⁻¹, 2⁻², …"""
    return (0.5 ** (torch.arange(n).double() % 60))[:, None] * _normal(1, d, seed=seed)


def all_but_one_equal(n, d, seed):
    x = _normal(1, d, seed=seed).repeat(n, 1)
    x[n // 2] += 1
    return x


HARD = [
    gaussian,
    duplicates,
    grid,
    far_away,
    clusters,
    tight_clusters,
    heavy_tails,
    line,
    powers,
    all_but_one_equal,
]
DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("make", HARD)
def test_hard_samples(make):
    for n, d in ((200, 1), (150, 3), (90, 40), (60, 300)):
        x = make(n, d, 3)
        for dtype in DTYPES:
            is_exact(x.to(dtype))
        is_exact(x.to(torch.bfloat16))
        is_exact(x.clamp(-6e4, 6e4).to(torch.float16))  # as far as its numbers reach
    for n in FEW:
        for dtype in DTYPES:
            is_exact(make(n, 4, 7).to(dtype))


@settings(max_examples=60, deadline=None)
@given(
    make=st.sampled_from(HARD),
    n=st.integers(3, 70),
    d=st.integers(1, 9),
    seed=st.integers(0, 10_000),
    offset=st.sampled_from([0.0, 1.0, -1e3, 1e6]),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e8]),
    dtype=st.sampled_from(DTYPES),
)
def test_any_samples(make, n, d, seed, offset, scale, dtype):
    is_exact((scale * (make(n, d, seed) + offset)).to(dtype))


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 4).flatmap(
        lambda d: st.lists(
            st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=d, max_size=d),
            min_size=3,
            max_size=30,
        )
    ),
    dtype=st.sampled_from(DTYPES),
)
def test_any_numbers(rows, dtype):
    is_exact(torch.tensor(rows, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_line(dtype):
    is_exact(line(600, 1, 0).to(dtype))
    is_exact((line(600, 1, 0) + 1e6).to(dtype))
    even = torch.arange(600, dtype=dtype)[:, None]
    got, found = nearest_two(even)
    expected = torch.ones(600, 2, dtype=torch.float64)
    expected[[0, -1], 1] = 2
    assert torch.equal(got, expected)
    assert found[0].tolist() == [1, 2]
    assert found[-1].tolist() == [598, 597]
    assert sorted(found[300].tolist()) == [299, 301]


def test_more_than_one_tile_and_part_of_candidates(monkeypatch):
    """A few dozen MB of distances are held at a time; here less, so that few samples need several tiles."""
    monkeypatch.setitem(neighbours._TILE_BYTES, "cpu", 2**17)
    monkeypatch.setitem(neighbours._GATHERED, "cpu", 2**9)
    monkeypatch.setattr(neighbours, "_ROWS", 100)
    for make in (gaussian, tight_clusters):
        for dtype in DTYPES:
            is_exact(make(430, 2, 1).to(dtype))
    is_exact(gaussian(300, 200, 1).float())


# Rows in which neighbours aren't sure


def test_products_in_float32_do_where_samples_are_easy():
    with Watched() as seen:
        is_exact(gaussian(300, 5, 0).float())
    assert seen.rows == {"float32": 300, "float64": 0, "differences": 0}


@pytest.mark.parametrize("dtype", DTYPES)
def test_float64_where_float32_cant_tell(dtype):
    with Watched() as seen:
        is_exact(clusters(300, 5, 0).to(dtype))
    assert seen.rows["float64"] > 250
    assert seen.rows["differences"] == 0 or dtype == torch.float32


@pytest.mark.parametrize("dtype", DTYPES)
def test_differences_where_float64_cant_tell(dtype):
    x = tight_clusters(300, 5, 0).to(torch.float64)
    x[::3] *= 0  # around zero, where float32 has small numbers, too
    x[::3] += 1e-9 * _normal(100, 5, seed=2)
    with Watched() as seen:
        is_exact(x.to(dtype))
    assert seen.rows["differences"] > 90


def test_some_rows_are_sure_and_some_are_not():
    """What isn't sure comes back to its own rows."""
    x = gaussian(400, 3, 5)
    x[10:50] = 20 + 1e-5 * _normal(40, 3, seed=1)
    x[200:230] = -20 + 1e-9 * _normal(30, 3, seed=2)
    x = x[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    with Watched() as seen:
        is_exact(x)
    assert seen.rows["float32"] == 400
    assert 70 <= seen.rows["float64"] < 200
    assert 30 <= seen.rows["differences"] < 70


def nearer_than_many(gap: float, nearer: float, radius: float = 2.0**-7) -> torch.Tensor:
    """Around the first sample twenty others at a distance, and two that are nearer, by parts of 2⁻²⁵.

    Those two lie in a direction in which the mean is at 0.5, where float32 has no more room for that.
    """
    last = 2.0**-25
    around = torch.zeros(23, 12, dtype=torch.float64)
    for axis in range(1, 11):
        around[2 * axis - 1, axis], around[2 * axis, axis] = radius - gap * last, gap * last - radius
    around[21:, 0] = radius - nearer * last
    around[22, 11] = 1e-9
    there = torch.zeros_like(around)
    there[:, 0] = 1 - around[:, 0]
    return torch.cat([around, there])


def test_what_subtracting_the_mean_rounds_away():
    for gap in (0.1, 0.2, 0.3):
        for dtype in DTYPES:
            is_exact(nearer_than_many(gap, 0.45).to(dtype))


def test_many_at_nearly_one_distance():
    """Far from the mean, where even float64 products mix up what differs by less than 1e-6 of itself."""
    centres = _normal(6, 12, seed=1)
    centres /= centres.norm(dim=1, keepdim=True)
    shells = _normal(6, 40, 12, seed=2)
    radii = 1e-5 * (1 + 1e-6 * _uniform(6, 40, seed=3))[..., None]
    shells = centres[:, None] + radii * shells / shells.norm(dim=2, keepdim=True)
    with Watched() as seen:
        is_exact(torch.cat([centres, shells.flatten(0, 1)]))
    assert seen.rows["differences"] >= 6


def test_rounding_of_what_is_farther_than_the_sample():
    """The first is at the mean, where its own norm is nothing; in float32 all others are equally far."""
    for place in range(11):
        around = torch.eye(11, dtype=torch.float64)
        around[place] *= 1 - 1e-8
        x = torch.cat([torch.zeros(1, 11), around, -around])
        is_exact(x)
        assert nearest_two(x)[1][0].sort().values.tolist() == [1 + place, 12 + place]


def test_numbers_whose_squares_float32_cant_hold():
    for n in (*FEW, 40):
        is_exact((1e20 * gaussian(n, 3, 1)).float())
        is_exact((1e-24 * gaussian(n, 3, 1)).float())
        is_exact((1e-24 * grid(n, 3, 1)).float())


# Products that are set to a lower precision


@pytest.fixture(params=["high", "medium"])
def low_precision(request):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("low_precision")
def test_exact_whatever_the_precision_of_products():
    for make in HARD:
        is_exact(make(200, 30, 2).float())


@pytest.mark.parametrize("bits", [10, 7])
def test_exact_with_products_as_of_a_gpu(bits):
    """A CPU may not follow the setting: what GPUs do, by hand."""
    for make in HARD:
        with Watched(bits) as seen:
            is_exact(make(200, 30, 2).float())
        assert seen.rows["float32"] == 200
        if make is gaussian:
            assert seen.rows["float64"] == 200


@pytest.mark.parametrize("bits", [10, 7])
def test_neighbours_that_a_low_precision_takes_for_others(bits):
    """The candidates' products are exact, as they need few bits; two nearer ones are rounded to the sample.

    So nothing in the products of the sample's own row tells that they are off.
    """
    around = torch.zeros(23, 12)
    around[:, 0] = 1
    radius = 2.0 ** -(bits // 2 + 1)
    for axis in range(1, 11):
        far = radius if axis == 1 else 1.25 * radius
        around[2 * axis - 1, axis], around[2 * axis, axis] = far, -far
    around[21, 0] += 0.4 * 2.0**-bits
    around[22, 0] += 0.45 * 2.0**-bits
    with Watched(bits):
        is_exact(torch.cat([around, -around]))


# How it is called


def test_order_moving_and_scaling_do_not_matter():
    x = gaussian(80, 4, 0)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    got, rows = nearest_two(x)
    shuffled, places = nearest_two(x[order])
    torch.testing.assert_close(shuffled, got[order], rtol=1e-14, atol=0)
    assert torch.equal(order[places], rows[order])
    moved, same = nearest_two(-4 * x + 100)
    torch.testing.assert_close(moved, 4 * got, rtol=1e-10, atol=0)
    assert torch.equal(same, rows)


def test_views_gradients_and_no_width():
    x = gaussian(12, 50, 0).T
    assert not x.is_contiguous()
    is_exact(x)
    is_exact(gaussian(100, 6, 0)[::2, ::3])
    assert not nearest_two(gaussian(50, 3, 0).requires_grad_())[0].requires_grad
    with torch.inference_mode():
        is_exact(gaussian(50, 3, 0))
    got, rows = nearest_two(torch.zeros(12, 0))
    assert torch.equal(got, torch.zeros(12, 2, dtype=torch.float64))
    assert (rows[:, 0] != rows[:, 1]).all()


def test_refusals():
    for n in range(3):
        with pytest.raises(ResidualError, match=f"need at least 3 samples, got {n}"):
            nearest_two(torch.zeros(n, 4))
    for value in (float("nan"), float("inf"), -float("inf")):
        for dtype in DTYPES:
            x = gaussian(20, 3, 0).to(dtype)
            x[13, 1] = value
            with pytest.raises(ResidualError, match="hold NaN or infinity, so they have no nearest"):
                nearest_two(x)
