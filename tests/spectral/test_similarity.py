"""Similarities against their definitions, against planted answers, and what they don't change with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residual.adapters import FitSettings
from residual.errors import ResidualError
from residual.heads import DescribeSettings
from residual.spectral import (
    GeometrySettings,
    SimilaritySettings,
    linear_cka,
    linear_dimension,
    mean_correlation,
    mean_cosine,
    mean_distance,
    principal_angles,
    relative,
    spectral_cosine,
)


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(_normal(d, d, seed=seed)).Q


def basis(k: int, d: int, seed: int = 0) -> torch.Tensor:
    return rotation(d, seed)[:k]


def weights(k: int, seed: int = 0) -> torch.Tensor:
    """Descending, over some orders of magnitude."""
    return torch.exp(2 * _normal(k, seed=seed)).sort(descending=True).values


# Spectral cosine


def cosine_by_hand(x, y, a=None, b=None, match="greedy") -> float:
    x, y = x.double().tolist(), y.double().tolist()
    few = min(len(x), len(y))
    a = [1.0] * len(x) if a is None else a.tolist()
    b = [1.0] * len(y) if b is None else b.tolist()
    norm = math.sqrt(sum((a[i] * b[i]) ** 2 for i in range(few)))
    entries = {}
    for i, row in enumerate(x):
        for j, other in enumerate(y):
            cosine = abs(sum(p * q for p, q in zip(row, other, strict=True)))
            entries[i, j] = cosine * a[i] * b[j] / norm
    taken = [entries[i, i] for i in range(few)] if match == "index" else []
    while match == "greedy" and len(taken) < few:
        row, column = max(entries, key=entries.get)
        taken.append(entries[row, column])
        entries = {at: value for at, value in entries.items() if at[0] != row and at[1] != column}
    return math.sqrt(sum(value**2 for value in taken))


BASES = {
    "k": st.integers(1, 7),
    "m": st.integers(1, 7),
    "more": st.integers(0, 4),
    "seed": st.integers(0, 10_000),
    "weighted": st.booleans(),
    "match": st.sampled_from(["greedy", "index"]),
}


def two_bases(k, m, more, seed, weighted):
    """Two bases, near each other for odd seeds, and their weights or None."""
    d = max(k, m) + more
    x, y = basis(k, d, seed), basis(m, d, seed + 1)
    if seed % 2:
        near = torch.linalg.qr(rotation(d, seed) + 0.1 * _normal(d, d, seed=seed + 2)).Q
        y = near[torch.randperm(d, generator=torch.Generator().manual_seed(seed))[:m]]
    if not weighted:
        return x, y, None, None
    return x, y, weights(k, seed), weights(m, seed + 1)


@settings(max_examples=60, deadline=None)
@given(**BASES)
def test_spectral_cosine_is_its_definition(k, m, more, seed, weighted, match):
    x, y, a, b = two_bases(k, m, more, seed, weighted)
    got = spectral_cosine(x, y, a, b, match)
    assert got == pytest.approx(cosine_by_hand(x, y, a, b, match), rel=1e-9, abs=1e-12)
    assert 0 <= got <= 1 + 1e-12
    if match == "greedy":
        assert spectral_cosine(x, y, a, b) == got
    if match == "index" and not weighted:
        few = min(k, m)
        own = [float(x[i] @ y[i]) ** 2 for i in range(few)]
        assert got == pytest.approx(math.sqrt(sum(own) / few), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(**BASES)
def test_what_spectral_cosine_does_not_change_with(k, m, more, seed, weighted, match):
    x, y, a, b = two_bases(k, m, more, seed, weighted)
    d = x.shape[1]
    expected = pytest.approx(spectral_cosine(x, y, a, b, match), rel=1e-9, abs=1e-12)
    assert spectral_cosine(y, x, b, a, match) == expected
    signs = torch.where(_normal(k, seed=seed + 5) > 0, 1.0, -1.0)
    assert spectral_cosine(signs[:, None] * x, y, a, b, match) == expected
    assert spectral_cosine(x, -y, a, b, match) == expected
    turn = rotation(d, seed + 9)
    assert spectral_cosine(x @ turn, y @ turn, a, b, match) == expected
    wider = torch.nn.functional.pad
    assert spectral_cosine(wider(x, (0, 3)), wider(y, (0, 3)), a, b, match) == expected
    if weighted:
        assert spectral_cosine(x, y, 7 * a, b / 3, match) == expected
        ones = spectral_cosine(x, y, torch.ones(k), torch.full((m,), 0.1), match)
        assert ones == pytest.approx(spectral_cosine(x, y, match=match), rel=1e-6)


@pytest.mark.parametrize("match", ["greedy", "index"])
def test_like_itself_and_nothing_in_common(match):
    for k, d in ((1, 1), (1, 6), (4, 6), (6, 6)):
        x = basis(k, d)
        for a in (weights(k), None):
            assert spectral_cosine(x, x, a, a, match) == pytest.approx(1, rel=1e-12)
            assert spectral_cosine(x, -x, a, a, match) == pytest.approx(1, rel=1e-12)
            other = None if a is None else a**2  # other weights, in the same order
            assert spectral_cosine(x, x, a, other, match) == pytest.approx(1, rel=1e-12)
        assert spectral_cosine(x.float(), x.float(), match=match) == pytest.approx(1, rel=1e-6)
    whole = rotation(9)
    for a, b in ((None, None), (weights(3), weights(6, 1))):
        assert spectral_cosine(whole[:3], whole[3:], a, b, match) == pytest.approx(0, abs=1e-15)


def test_the_heaviest_in_common_counts():
    """Of three components one is shared, with weights 3, 2, 1 and 5, 2, 1: `W` is of `‖(15, 4, 1)‖`."""
    whole, a, b = rotation(5), torch.tensor([3.0, 2.0, 1.0]), torch.tensor([5.0, 2.0, 1.0])
    x = whole[:3]
    first = torch.stack([x[0], whole[3], whole[4]])
    assert spectral_cosine(x, first, a, b) == pytest.approx(15 / math.sqrt(15**2 + 4**2 + 1), rel=1e-9)
    crossed = torch.stack([whole[3], x[0], whole[4]])
    assert spectral_cosine(x, crossed, a, b) == pytest.approx(3 * 2 / math.sqrt(15**2 + 4**2 + 1), rel=1e-9)
    assert spectral_cosine(x, crossed, a, b, "index") == pytest.approx(0, abs=1e-9)
    assert spectral_cosine(x, first) == pytest.approx(math.sqrt(1 / 3), rel=1e-9)
    assert spectral_cosine(x, first, match="index") == pytest.approx(math.sqrt(1 / 3), rel=1e-9)


def test_taking_the_largest_is_not_the_best_assignment():
    """Cosines 0.8 and 0.6, 0.6 and 0: the first takes all, though the two others weigh more together."""
    x = torch.eye(4).double()[:2]
    y = torch.tensor([[0.8, 0.6, 0, 0], [0.6, 0, 0.8, 0]], dtype=torch.float64)
    assert spectral_cosine(x, y) == pytest.approx(math.sqrt((0.8**2 + 0) / 2), rel=1e-12)


def test_a_component_is_taken_once():
    """The heaviest of each basis is near both of the other."""
    x = torch.eye(3).double()[:2]
    y = torch.tensor([[0.9, 0.1, math.sqrt(0.18)], [0.8, 0.2, math.sqrt(0.32)]], dtype=torch.float64)
    got = spectral_cosine(x, y, torch.tensor([10.0, 1.0]), torch.tensor([10.0, 9.0]))
    norm = math.sqrt(100**2 + 9**2)
    assert got == pytest.approx(math.hypot(90 / norm, 0.2 * 9 / norm), rel=1e-9)


def test_one_basis_within_another():
    whole = rotation(8)
    assert spectral_cosine(whole[:2], whole[:6]) == pytest.approx(1, rel=1e-12)
    assert spectral_cosine(whole[[5, 3]], whole[:6]) == pytest.approx(1, rel=1e-12)
    assert spectral_cosine(whole[[5, 3]], whole[:6], match="index") == pytest.approx(0, abs=1e-12)


@pytest.mark.usefixtures("unchecked")
def test_no_spectral_cosine():
    x, y = basis(3, 5), basis(2, 5, 1)
    with pytest.raises(ResidualError, match=r"one width, one or more; got \(3, 5\), \(2, 6\)"):
        spectral_cosine(x, basis(2, 6))
    for one, other in ((x[:0], y), (x, y[:0])):
        with pytest.raises(ResidualError, match="components of one width, one or more"):
            spectral_cosine(one, other)
    for a, b in ((weights(3), None), (None, weights(2))):
        with pytest.raises(ResidualError, match="of both bases or of neither; one of them is missing"):
            spectral_cosine(x, y, a, b)
    for a, b in ((2, 2), (3, 3), (1, 2)):
        with pytest.raises(ResidualError, match=f"3 and 2 components need as many weights; got {a} and {b}"):
            spectral_cosine(x, y, torch.ones(a), torch.ones(b))
    for match in ("best", "", "Greedy"):
        with pytest.raises(ResidualError, match=f"match is 'greedy' or 'index', got '{match}'"):
            spectral_cosine(x, y, match=match)
    for a, b in (([0.0, 0, 0], [1.0, 1]), ([1.0, 1, 1], [0.0, 0]), ([0.0, 0, 1], [1.0, 1])):
        with pytest.raises(ResidualError, match="first weights of the two bases are all zero"):
            spectral_cosine(x, y, torch.tensor(a), torch.tensor(b))


# Principal angles


def planted(angles: list[float], d: int, seed: int, more: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two spans with these angles between them, in bases that don't show them; the second `more` wider."""
    k, theta = len(angles), torch.tensor(angles, dtype=torch.float64)[:, None]
    whole = rotation(d, seed)
    first, beside, rest = whole[:k], whole[k : 2 * k], whole[2 * k : 2 * k + more]
    second = torch.cat([first * theta.cos() + beside * theta.sin(), rest])
    return rotation(k, seed + 1) @ first, rotation(k + more, seed + 2) @ second


RIGHT = math.pi / 2


ANGLES = [
    [0.3],
    [0.0, 0.1, 0.7, 1.2, RIGHT],
    [0.5, 0.5, 0.5],
    [1e-9],
    [1e-9, 0.3, 1.0],
    [1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3],
    [RIGHT, RIGHT],
    [RIGHT - 1e-9, RIGHT - 1e-7],
    [RIGHT / 2, RIGHT / 2 - 1e-6, RIGHT / 2 + 1e-6],
    [1e-9, 1e-6, RIGHT / 2, RIGHT - 1e-6, RIGHT],
]


@pytest.mark.parametrize("angles", ANGLES)
def test_planted_angles(angles):
    expected = torch.tensor(sorted(angles), dtype=torch.float64)
    for more in (0, 3):
        for seed in range(3):
            a, b = planted(angles, 20, seed, more)
            for one, other in ((a, b), (b, a)):
                got = principal_angles(one, other)
                assert got.dtype == torch.float64
                torch.testing.assert_close(got, expected, rtol=1e-9, atol=2e-14)


@settings(max_examples=40, deadline=None)
@given(
    k=st.integers(1, 6),
    m=st.integers(1, 6),
    more=st.integers(0, 6),
    seed=st.integers(0, 10_000),
    gap=st.sampled_from([1.0, 1e-2, 1e-6]),
)
def test_angles_are_arc_cosines(k, m, more, seed, gap):
    d = max(k, m) + more
    a = basis(k, d, seed)
    b = torch.linalg.qr((rotation(d, seed) + gap * _normal(d, d, seed=seed + 1)).T).Q.T[:m]
    got = principal_angles(a, b)
    assert got.shape == (min(k, m),)
    assert ((got >= 0) & (got <= RIGHT)).all()
    assert torch.equal(got, got.sort().values)
    cosines = np.linalg.svd(a.numpy() @ b.numpy().T, compute_uv=False)
    np.testing.assert_allclose(got.cos().numpy(), cosines.clip(max=1), rtol=0, atol=1e-13)
    # sines are the singular values of what the other span lacks of the smaller one
    few, many = (a, b) if k <= m else (b, a)
    lacking = few.numpy() - few.numpy() @ many.numpy().T @ many.numpy()
    sines = np.linalg.svd(lacking, compute_uv=False)[::-1]
    np.testing.assert_allclose(got.sin().numpy(), sines, rtol=0, atol=1e-14)
    torch.testing.assert_close(principal_angles(b, a), got, rtol=1e-9, atol=1e-14)
    turn = rotation(d, seed + 3)
    torch.testing.assert_close(principal_angles(a @ turn, b @ turn), got, rtol=1e-7, atol=1e-14)
    torch.testing.assert_close(
        principal_angles(rotation(k, seed) @ a, -b.flip(0)), got, rtol=1e-7, atol=1e-14
    )


def test_angles_of_a_span_with_itself():
    x = basis(4, 9)
    assert principal_angles(x, rotation(4, 1) @ x).max() < 1e-14
    assert principal_angles(x[:2], x).max() < 1e-14
    assert principal_angles(x.float(), x.float()).max() < 1e-6


@pytest.mark.usefixtures("unchecked")
def test_no_angles():
    with pytest.raises(ResidualError, match=r"one width, one or more; got \(3, 5\), \(3, 6\)"):
        principal_angles(basis(3, 5), basis(3, 6))
    for one, other in ((0, 2), (2, 0)):
        with pytest.raises(ResidualError, match="components of one width, one or more"):
            principal_angles(basis(one, 5), basis(other, 5))


# CKA


def cka_by_hand(x: torch.Tensor, y: torch.Tensor) -> float:
    """By centred Gram matrices: `⟨HKH, HLH⟩ / (‖HKH‖ ‖HLH‖)`."""
    n = len(x)
    centring = np.eye(n) - np.full((n, n), 1 / n)
    k, m = (centring @ each.double().numpy() @ each.double().numpy().T @ centring for each in (x, y))
    return (k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum())


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 40),
    d=st.integers(1, 12),
    e=st.integers(1, 12),
    shared=st.floats(0, 3),
    offset=st.sampled_from([0.0, 5.0, -100.0]),
    seed=st.integers(0, 10_000),
)
def test_cka_is_its_definition(n, d, e, shared, offset, seed):
    x = _normal(n, d, seed=seed)
    y = _normal(n, e, seed=seed + 1) + shared * x @ _normal(d, e, seed=seed + 2)
    got = linear_cka(x + offset, y)
    assert got == pytest.approx(cka_by_hand(x, y), rel=1e-8, abs=1e-10)
    assert -1e-12 <= got <= 1 + 1e-12
    assert linear_cka(y, x) == pytest.approx(got, rel=1e-8, abs=1e-10)
    turned = 3 * (x @ rotation(d, seed)) - 7
    assert linear_cka(turned, -0.01 * y @ rotation(e, seed + 1)) == pytest.approx(got, rel=1e-8, abs=1e-10)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert linear_cka(x[order], y[order]) == pytest.approx(got, rel=1e-8, abs=1e-10)


def test_cka_of_known_answers():
    x = _normal(30, 4)
    assert linear_cka(x, x) == pytest.approx(1, rel=1e-12)
    assert linear_cka(x, torch.nn.functional.pad(x, (0, 5))) == pytest.approx(1, rel=1e-12)
    assert linear_cka(x, x[torch.randperm(30, generator=torch.Generator().manual_seed(0))]) < 0.5
    assert linear_cka(x, x @ torch.diag(torch.tensor([9.0, 1, 1, 1]).double())) < 0.95  # no rotation
    columns = torch.linalg.qr(torch.cat([torch.ones(30, 1).double(), _normal(30, 6)], 1)).Q[:, 1:]
    assert linear_cka(columns[:, :3], columns[:, 3:]) == pytest.approx(0, abs=1e-15)
    # of the three columns of either, equally strong, two are shared
    assert linear_cka(columns[:, :3], columns[:, 1:4]) == pytest.approx(2 / 3, rel=1e-12)
    assert linear_cka(x.float(), x.float()) == pytest.approx(1, rel=1e-6)


def test_no_cka_of_what_is_the_same_for_all():
    """Also where the mean of equal numbers isn't, to the last bit, that number."""
    for n in (1, 3, 6, 7, 11, 30, 1000):
        for value in (0.0, 0.1, -1e6 / 3):
            constant = torch.full((n, 3), value, dtype=torch.float64) * torch.tensor([1, 0.7, 1.3])
            x = _normal(n, 2)
            for one, other in ((constant, x), (x, constant), (constant, constant)):
                with pytest.raises(ResidualError, match="where a representation is the same for all"):
                    linear_cka(one, other)


@pytest.mark.usefixtures("unchecked")
def test_cka_of_other_samples():
    with pytest.raises(ResidualError, match="representations of the same samples; got 5 and 6"):
        linear_cka(_normal(5, 2), _normal(6, 2))
    with pytest.raises(ResidualError, match="is the same for all samples"):
        linear_cka(_normal(0, 2), _normal(0, 2))


# Means


def cosine_of(x: list[float], y: list[float]) -> float:
    return math.fsum(p * q for p, q in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))


@settings(max_examples=40, deadline=None)
@given(
    d=st.integers(2, 20), seed=st.integers(0, 10_000), dtype=st.sampled_from([torch.float32, torch.float64])
)
def test_means_by_their_definitions(d, seed, dtype):
    a, b = _normal(d, seed=seed).to(dtype), (0.5 + _normal(d, seed=seed + 1)).to(dtype)
    x, y = a.tolist(), b.tolist()
    assert mean_cosine(a, b) == pytest.approx(cosine_of(x, y), rel=1e-9, abs=1e-12)
    assert mean_correlation(a, b) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9, abs=1e-12)
    assert mean_distance(a, b) == pytest.approx(math.dist(x, y), rel=1e-9)
    for measure in (mean_cosine, mean_correlation, mean_distance):
        assert measure(b, a) == pytest.approx(measure(a, b), rel=1e-12, abs=1e-15)
    assert mean_cosine(3 * a, 0.5 * b) == pytest.approx(mean_cosine(a, b), rel=1e-6, abs=1e-6)
    assert mean_correlation(a + 1, 2 * b - 3) == pytest.approx(mean_correlation(a, b), rel=1e-4, abs=1e-5)


def test_means_of_known_answers():
    a = torch.tensor([3.0, 4.0, 0.0])
    assert mean_cosine(a, a) == pytest.approx(1, rel=1e-12)
    assert mean_cosine(a, -2 * a) == pytest.approx(-1, rel=1e-12)
    assert mean_cosine(a, torch.tensor([4.0, -3.0, 9.0])) == pytest.approx(0, abs=1e-12)
    assert mean_correlation(a, 5 * a + 7) == pytest.approx(1, rel=1e-12)
    assert mean_correlation(a, 1 - a) == pytest.approx(-1, rel=1e-12)
    assert mean_distance(a, a) == 0
    assert mean_distance(a, torch.zeros(3)) == pytest.approx(5, rel=1e-12)


def test_means_without_a_direction():
    for d in range(1, 20):
        other = 1 + _normal(d)
        assert math.isnan(mean_cosine(torch.zeros(d), other.float()))
        assert math.isnan(mean_cosine(other, torch.zeros(d).double()))
        for value in (0.0, 0.1, -1e5 / 3):
            constant = torch.full((d,), value, dtype=torch.float64)
            assert math.isnan(mean_correlation(constant, other))
            assert math.isnan(mean_correlation(other, constant))


@pytest.mark.usefixtures("unchecked")
def test_means_of_other_widths():
    for measure in (mean_cosine, mean_correlation, mean_distance):
        with pytest.raises(ResidualError, match="one width, got 3 and 4: `relative` makes them comparable"):
            measure(torch.ones(3), torch.ones(4))


def test_gradients_are_left_alone():
    x = _normal(6, 4).requires_grad_()
    assert linear_cka(x, x) == pytest.approx(1)
    assert mean_cosine(x[0], x[1]) == mean_cosine(x[0].detach(), x[1].detach())
    assert not relative(x, x).requires_grad
    unit = x[:1] / x[:1].norm()
    assert not principal_angles(unit, unit).requires_grad


# Seen from anchors


def test_relative_is_cosines_with_anchors():
    anchors = _normal(3, 6, seed=1)
    for shape in ((), (5,), (2, 5), (0,)):
        x = _normal(*shape, 6)
        got = relative(x, anchors)
        assert got.dtype == torch.float64
        assert got.shape == (*shape, 3)
        for vector, seen in zip(x.reshape(-1, 6), got.reshape(-1, 3), strict=True):
            for anchor, cosine in zip(anchors, seen, strict=True):
                assert float(cosine) == pytest.approx(cosine_of(vector.tolist(), anchor.tolist()), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    d=st.integers(2, 10),
    more=st.integers(0, 5),
    m=st.integers(2, 12),
    scale=st.floats(0.01, 100),
    seed=st.integers(0, 10_000),
)
def test_encoders_that_differ_by_a_rotation_compare_as_equal(d, more, m, scale, seed):
    """And by a scale, and by width."""
    x, anchors = 1 + _normal(20, d, seed=seed), _normal(m, d, seed=seed + 1)
    turn = rotation(d + more, seed + 2)[:d]
    here = relative(x, anchors)
    there = relative(scale * x @ turn, anchors @ turn)
    torch.testing.assert_close(there, here, rtol=0, atol=1e-12)
    a, b = relative(x.mean(0), anchors), relative(scale * x.mean(0) @ turn, anchors @ turn)
    assert mean_cosine(a, b) == pytest.approx(1, rel=1e-9)
    assert mean_distance(a, b) == pytest.approx(0, abs=1e-9)
    if a.std() > 1e-3:
        assert mean_correlation(a, b) == pytest.approx(1, rel=1e-6)
    other = relative(x.mean(0), _normal(m, d, seed=seed + 3))
    assert mean_distance(a, other) > 1e-3


def test_relative_by_the_scale_of_single_vectors():
    x, anchors = _normal(4, 6), _normal(3, 6, seed=1)
    scales = torch.tensor([0.1, 1, 10, 1e6])[:, None]
    torch.testing.assert_close(relative(scales * x, anchors), relative(x, anchors))
    torch.testing.assert_close(relative(x, scales[:3] * anchors), relative(x, anchors))
    assert relative(torch.zeros(6), anchors.float()).isnan().all()


@pytest.mark.usefixtures("unchecked")
def test_not_relative_to_that():
    with pytest.raises(ResidualError, match=r"Anchors are \(m, 6\), one or more .*; got \(3, 5\)"):
        relative(_normal(4, 6), _normal(3, 5))
    with pytest.raises(ResidualError, match=r"Anchors are \(m, 6\), one or more .*; got \(0, 6\)"):
        relative(_normal(6), _normal(0, 6))


def test_what_is_not_finite_is_refused():
    good, bad = torch.eye(4)[:2], torch.eye(4)[:2].clone()
    for wrong in (torch.nan, torch.inf):
        bad[1, 2] = wrong
        for call in (
            lambda: spectral_cosine(good, bad),
            lambda: spectral_cosine(good, good, torch.ones(2), bad[1, 1:3]),
            lambda: principal_angles(bad, good),
            lambda: linear_cka(good, bad),
            lambda: relative(good, bad),
        ):
            with pytest.raises(ResidualError, match="Numbers to be compared hold NaN or infinity: 1 of"):
                call()
        with pytest.raises(ResidualError, match="Eigenvalues hold NaN or infinity: 1 of 4"):
            linear_dimension(bad[1])


def test_variances_that_rounding_made_negative():
    values = torch.tensor([4.0, 1.0, -3e-15], dtype=torch.float64)
    for other in (values, values.clamp(min=0)):
        assert spectral_cosine(torch.eye(3), torch.eye(3), values, other) == pytest.approx(1)


@pytest.mark.usefixtures("unchecked")
def test_settings_take_whole_numbers_of_numpy():
    for made, name in (
        (GeometrySettings, "samples"), (SimilaritySettings, "anchors"),
        (DescribeSettings, "images"), (FitSettings, "epochs"),
    ):  # fmt: skip
        value = getattr(made(**{name: np.int64(50)}), name)
        assert (value, type(value)) == (50, int)
        for wrong in (True, 50.0, "50"):
            with pytest.raises(ResidualError, match=f"{name} takes a whole number, at least "):
                made(**{name: wrong})


def test_what_is_no_basis_and_no_direction():
    with pytest.raises(ResidualError, match=r"unit vectors; the lengths of these are off by 1\.0e\+00"):
        spectral_cosine(2 * torch.eye(3), torch.eye(3))
    with pytest.raises(ResidualError, match="Weights are variances: some of these are negative"):
        spectral_cosine(torch.eye(2), torch.eye(2), torch.tensor([1.0, -1.0]), torch.ones(2))
    with pytest.raises(ResidualError, match="An anchor is zero: it has no direction"):
        relative(torch.ones(2, 3), torch.zeros(1, 3))
