"""Bases from one pass over a store are the PCA of its contributions, however samples come and are merged."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from families import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyImages, random_pixels, tiny_encoder

from residual.data import PixelDataset
from residual.encoders.load import wrap_encoder
from residual.errors import OtherResultError, ResidualError
from residual.spectral import fit_bases, stream_moments
from residual.spectral.pca import Moments
from residual.spectral.unit_moments import UnitMoments
from residual.store.encode import encode_dataset
from residual.store.forward import Encoding
from residual.store.manifest import check_identity, identity_of
from residual.tracing.coordinates import Coordinates

ALL = ("emb", "mlp", "head")
FAMILIES = [
    ("clip", "own", "shared"),
    ("clip", "patches", "own"),
    ("open_clip average", "own", "own"),
    ("open_clip norm after average", "own", "shared"),
    ("siglip", "own", "own"),
    ("aimv2", "own", "shared"),
    ("siglip", "all", "shared"),
    ("timm attention pool past a class token", "own", "shared"),
    ("timm attention pool past a class token", "patches", "own"),
    ("timm norm after average", "own", "own"),
    ("dinov2 registers", "avg:all", "shared"),
]


def pixel_dataset(n: int, seed: int = 1) -> PixelDataset:
    pixels = random_pixels(n, seed=seed, dtype=torch.float32)
    return PixelDataset(pixels, np.arange(n) % 3, ["a", "b", "c"])


def contributions_of(linearization, coordinates: Coordinates) -> np.ndarray:
    """`(n, u, d)` in float64, tokens as samples."""
    whole = linearization.contributions(coordinates.to(dtype=torch.float64))
    return (whole.flatten(0, 1) if whole.ndim == 4 else whole).numpy()


def are_the_pca_of(bases, contributions: np.ndarray) -> None:
    """Eigenvalues to 1e-6 of each, subspaces to 1e-5, by the float64 SVD of the centred contributions."""
    n = len(contributions)
    assert bases.origin.samples == n
    for place, unit in enumerate(bases.units):
        x = contributions[:, unit]
        mean = x.mean(0)
        _, singular, rows = np.linalg.svd(x - mean, full_matrices=False)
        values = singular**2 / (n - 1)
        got, components = bases.eigenvalues[place].numpy(), bases.components[place].numpy()
        kept = len(got)
        # none is missing; those that are zero but for rounding are left out
        assert (values[kept:] <= 2e-10 * values[0]).all(), unit
        assert (values[:kept] >= 5e-11 * values[0]).all(), unit
        large = values[:kept] > 1e-9 * values[0]
        np.testing.assert_allclose(got[large], values[:kept][large], rtol=1e-6, err_msg=f"unit {unit}")
        np.testing.assert_allclose(bases.means[place].numpy(), mean, rtol=0, atol=1e-9 * np.abs(x).max())
        compared = 0
        for k in range(1, kept):
            if values[k - 1] > 1.2 * values[k] and values[k - 1] > 1e-7 * values[0]:
                # of two subspaces of k dimensions: the sine of the largest angle between them
                miss = components[:k] - components[:k] @ rows[:k].T @ rows[:k]
                assert np.linalg.norm(miss, 2) < 1e-5, (unit, k)
                compared += 1
        assert compared or kept < 3, unit


@pytest.mark.parametrize(("name", "pooling", "centering"), FAMILIES)
def test_bases_are_the_pca_of_the_contributions(tmp_path, name, pooling, centering):
    encoder = wrap_encoder(CASES[name].make(), centering, name=name)
    store = encode_dataset(encoder, pixel_dataset(90), tmp_path / "store", dtype="float32", pooling=pooling)
    bases = fit_bases(store, ALL)
    assert bases.units == tuple(range(len(store.units)))
    whole = contributions_of(store.linearization, store.read())
    are_the_pca_of(bases, whole)
    np.testing.assert_allclose(
        bases.all_means.numpy(), whole.mean(0), rtol=0, atol=1e-9 * np.abs(whole).max()
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_bases_of_a_float16_store_are_those_of_what_it_holds(tmp_path, dtype):
    store = encode_dataset(tiny_encoder(dtype=dtype), TinyImages(80), tmp_path / "store")
    are_the_pca_of(fit_bases(store, ALL), contributions_of(store.linearization, store.read()))


@pytest.mark.parametrize("kinds", ["head", ("mlp", "emb")])
def test_some_kinds(tmp_path, kinds):
    dataset, encoder = pixel_dataset(70), wrap_encoder(CASES["siglip"].make(), name="siglip")
    chosen = (kinds,) if isinstance(kinds, str) else kinds
    store = encode_dataset(encoder, dataset, tmp_path / "store", kinds=chosen, dtype="float32")
    bases = fit_bases(store, kinds)
    whole = encode_dataset(encoder, dataset)
    assert bases.units == tuple(whole.units["unit"][whole.units["kind"].isin(chosen)])
    assert bases.all_means is None
    are_the_pca_of(bases, contributions_of(whole.linearization, whole.coordinates))
    same = fit_bases(whole, kinds)
    assert same.all_means is not None
    for got, expected in zip(bases.eigenvalues, same.eigenvalues, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)


def test_kinds_that_arent_there(tmp_path):
    encoder = tiny_encoder(dtype=torch.float32)
    store = encode_dataset(encoder, TinyImages(9), tmp_path / "store", kinds=("mlp", "head"))
    with pytest.raises(ResidualError, match="hold no units of kind emb, only mlp, head"):
        fit_bases(store, ALL)
    with pytest.raises(ResidualError, match="Unknown kinds of unit: 'heads'"):
        fit_bases(store, "heads")
    with pytest.raises(ResidualError, match="No kind of unit was given"):
        fit_bases(store, ())


def test_stores_that_keep_other_kinds_are_told_apart(tmp_path):
    encoder = tiny_encoder(dtype=torch.float32)
    whole = encode_dataset(encoder, TinyImages(9), tmp_path / "whole")
    heads = encode_dataset(encoder, TinyImages(9, seed=1), tmp_path / "heads", kinds=("head",))
    with pytest.raises(ResidualError, match=r"hold units of other kinds: emb, mlp, head; head\."):
        fit_bases([whole, heads])
    with pytest.raises(ResidualError, match="Bases of head can't be made of moments for mlp"):
        UnitMoments.of_store(whole, "head").merge(UnitMoments.of_store(whole, "mlp"))


def test_several_stores_count_as_one(tmp_path):
    encoder = wrap_encoder(CASES["open_clip average"].make(), name="average")
    stores = [
        encode_dataset(encoder, pixel_dataset(n, seed=n), tmp_path / str(n), dtype="float32")
        for n in (1, 40, 23)
    ]
    seen = []
    bases = fit_bases(stores, ALL, progress=lambda _, done, total: seen.append((done, total)))
    whole = np.concatenate([contributions_of(store.linearization, store.read()) for store in stores])
    are_the_pca_of(bases, whole)
    assert seen == [(1, 64), (41, 64), (64, 64)]
    assert bases.origin.datasets == ("pixels/train",) * 3
    other = wrap_encoder(CASES["open_clip average"].make(seed=1), name="average")
    stores.append(encode_dataset(other, pixel_dataset(5), tmp_path / "other"))
    with pytest.raises(ResidualError, match="Stores of different encoders can't share bases"):
        fit_bases(stores)
    stores[-1] = encode_dataset(encoder, pixel_dataset(5), tmp_path / "cls", pooling="cls")
    with pytest.raises(ResidualError, match=r"pooling 'own'.*pooling 'cls'"):
        fit_bases(stores)
    stores[-1] = encode_dataset(encoder, pixel_dataset(5), tmp_path / "avg", pooling="avg")
    assert fit_bases(stores).origin.pooling == "own"  # which it is for this encoder
    stored, asked = (identity_of(encoder, pixel_dataset(5), name, ALL, "float16") for name in ("avg", "own"))
    check_identity(stored, asked, "here", "avg")  # a store of version 0.1
    with pytest.raises(OtherResultError, match="pooling 'avg', not 'own'"):
        check_identity(stored, asked, "here", "own")


def test_too_few_samples(tmp_path):
    encoder = tiny_encoder(dtype=torch.float32)
    with pytest.raises(ResidualError, match="need at least 2 samples, got 1"):
        fit_bases(encode_dataset(encoder, TinyImages(1), tmp_path / "one"))
    two = encode_dataset(encoder, TinyImages(2), tmp_path / "two", dtype="float32")
    bases = fit_bases(two, ALL)
    assert set(bases.ranks) == {1}
    are_the_pca_of(bases, contributions_of(two.linearization, two.read()))


def test_a_checkpoint_is_taken_up_by_its_own_part_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("residual.spectral.fit.SECONDS_BETWEEN", -1)
    encoder, images, settings = tiny_encoder(dtype=torch.float32), TinyImages(12), Encoding(batch_size=3)

    def moments(part: int) -> UnitMoments:
        return stream_moments(encoder, images, settings, part=(part, 2), checkpoint=tmp_path / "kept")

    moments(1)
    with pytest.raises(ResidualError, match=r"is of another run .* or of another part"):
        moments(2)
    assert moments(1).origin.samples == 6  # none is counted twice


# Any order and grouping


@pytest.fixture(scope="module", params=["clip", "siglip"])
def memory(request):
    encoder = wrap_encoder(CASES[request.param].make(), name=request.param)
    return encode_dataset(encoder, pixel_dataset(60))


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_merged_in_any_order_and_grouping(memory, tmp_path_factory, data):
    order = data.draw(st.permutations(range(60)), "order")
    ends = sorted(data.draw(st.lists(st.integers(0, 60), max_size=6), "ends"))
    pieces = [order[a:b] for a, b in zip([0, *ends], [*ends, 60], strict=True)]
    parts = []
    for piece in pieces:
        part = UnitMoments.of_store(memory, ALL)
        size = data.draw(st.integers(1, 30), "batch")
        for start in range(0, len(piece), size):
            part.update(memory.coordinates[piece[start : start + size]])
        if data.draw(st.booleans(), "saved"):
            path = tmp_path_factory.mktemp("moments") / "part.safetensors"
            part.save(path)
            part = UnitMoments.load(path)
        parts.append(part)
    while len(parts) > 1:
        one = parts.pop(data.draw(st.integers(0, len(parts) - 1), "one"))
        parts[data.draw(st.integers(0, len(parts) - 1), "into")].merge(one)
    merged, once = parts[0].compute(), fit_bases(memory, ALL)
    assert merged.origin.samples == 60
    for place in range(len(merged.units)):
        largest = once.eigenvalues[place][0]
        torch.testing.assert_close(
            merged.eigenvalues[place][:20], once.eigenvalues[place][:20], rtol=1e-9, atol=1e-12 * largest
        )
    torch.testing.assert_close(merged.means, once.means, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(merged.all_means, once.all_means, rtol=1e-9, atol=1e-10)
    are_the_pca_of(merged, contributions_of(memory.linearization, memory.coordinates))


def test_saved_moments_go_on(memory, tmp_path):
    """As a run that was cut off between two batches."""
    part = UnitMoments.of_store(memory, ("mlp", "head"))
    part.update(memory.coordinates[:17])
    part.save(tmp_path / "part.safetensors")
    again = UnitMoments.load(tmp_path / "part.safetensors")
    assert (again.kinds, again.origin) == (part.kinds, part.origin)
    again.update(memory.coordinates[17:])
    part.update(memory.coordinates[17:])
    got, expected = again.compute(), part.compute()
    assert got.origin == expected.origin
    assert got.origin.samples == 60
    for one, other in zip(got.eigenvalues, expected.eigenvalues, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-14 * other[0])
    are_the_pca_of(got, contributions_of(memory.linearization, memory.coordinates))


@pytest.mark.parametrize("first", ["far", "constant", "one sample"])
def test_sorted_data(memory, first):
    """Everything is summed around the mean of the first batch, which may be no mean of the rest at all."""
    generator = torch.Generator().manual_seed(5)
    coordinates = memory.coordinates
    if first == "far":
        step = 1e3 * coordinates.z.std()
        change = {name: getattr(coordinates, name).clone() for name in ("z", "mlp", "emb")}
        for value in change.values():
            value[:10] += step * (1 + torch.rand(value.shape[1:], generator=generator))
        coordinates = replace(coordinates, **change)
    elif first == "constant":
        coordinates = coordinates[[0] * 10 + list(range(10, 60))]
    sizes = [1, 9, 50] if first == "one sample" else [10, 50]
    moments = UnitMoments.of_store(memory, ALL)
    for part in torch.arange(60).split(sizes):
        moments.update(coordinates[part])
    bases, whole = moments.compute(), contributions_of(memory.linearization, coordinates)
    for place in range(len(bases.units)):
        x = whole[:, place] - whole[:, place].mean(0)
        values = np.linalg.svd(x, compute_uv=False) ** 2 / 59
        got = bases.eigenvalues[place].numpy()
        # relative to the largest, which is the step between the batches
        np.testing.assert_allclose(got, values[: len(got)], rtol=1e-6, atol=1e-12 * values[0])


def test_nan_is_refused(memory):
    for field in ("z", "mlp", "emb", "mean", "std", "pool_mlp"):
        for value in (float("nan"), float("inf"), -float("inf")):
            values = getattr(memory.coordinates, field)
            if values is None or (field == "std" and not np.isnan(value)):
                continue  # there is none in this encoder, or an infinite one only makes zeros
            spoilt = values.clone()
            spoilt.view(60, -1)[31, -1] = value
            moments = UnitMoments.of_store(memory, "head")
            coordinates = replace(memory.coordinates, **{field: spoilt})
            moments.update(coordinates[:20])
            with pytest.raises(ResidualError, match="The rows hold NaN or infinity"):
                moments.update(coordinates[20:])
            assert moments.origin.samples == 20


def test_moments_leave_the_coordinates_as_they_were(memory):
    before = memory.coordinates.to(dtype=torch.float64)
    double = memory.coordinates.to(dtype=torch.float64)
    UnitMoments.of_store(memory, ALL).update(double)
    for name in ("z", "mlp", "emb", "mean", "std"):
        assert torch.equal(getattr(before, name), getattr(memory.coordinates, name).double())
        assert torch.equal(getattr(double, name), getattr(before, name))


# Moments of wide rows


def rows(many: int, n: int, width: int, offset: float, seed: int = 3) -> torch.Tensor:
    """Correlated columns of very different size, `offset` standard deviations from zero."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(many, n, width, generator=generator, dtype=torch.float64)
    x[..., 1:] += 0.7 * x[..., :-1]
    scale = torch.exp(2 * torch.randn(many, 1, width, generator=generator, dtype=torch.float64))
    return (x + offset * (1 + torch.rand(many, 1, width, generator=generator, dtype=torch.float64))) * scale


@pytest.mark.parametrize("width", [1, 7, 255, 256, 511, 512, 513, 700])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_moments_are_those_of_numpy(width, offset):
    x = rows(2, 90, width, offset)
    whole, first, second = (Moments(2, width) for _ in range(3))
    for start, stop in ((0, 1), (1, 30), (30, 90)):
        whole.update(x[:, start:stop])
    for start in range(0, 90, 30):
        (first if start < 60 else second).update(x[:, start : start + 30])
    second.merge(first)
    for moments in (whole, second):
        assert moments.count == 90
        scatter = moments.scatter
        assert torch.equal(scatter, scatter.mT)
        for place in range(2):
            expected = np.cov(x[place].numpy(), rowvar=False).reshape(width, width)
            size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
            miss = np.abs(scatter[place].numpy() / 89 - expected) / size
            assert miss.max() < 1e-11
            off = moments.mean[place].numpy() - x[place].numpy().mean(0)
            assert (np.abs(off) <= 1e-13 * (np.abs(x[place].numpy()).max(0))).all()


@pytest.mark.parametrize("width", [20, 600])
def test_moments_refuse_nan_in_any_column(width):
    for column in (0, min(300, width - 1), -1):
        for value in (float("nan"), float("inf")):
            x = rows(2, 10, width, 0)
            x[1, 4, column] = value
            for scatter in (True, False):
                with pytest.raises(ResidualError, match="The rows hold NaN or infinity"):
                    Moments(2, width, scatter=scatter).update(x)


def test_moments_of_other_widths_or_without_a_scatter_dont_merge():
    with pytest.raises(ResidualError, match="Expected rows of width 3, got 4"):
        Moments(1, 3).merge(Moments(1, 4))
    whole, empty = Moments(1, 3), Moments(1, 3)
    x = rows(1, 5, 3, 2.0)
    whole.update(x)
    empty.merge(whole)
    whole.merge(Moments(1, 3))
    whole.update(x[:, :0])
    torch.testing.assert_close(empty.scatter, whole.scatter)
    torch.testing.assert_close(whole.mean, x.mean(1))


# Memory


FIT = """
import sys
sys.path.insert(0, sys.argv[1])
from residual.spectral import fit_bases
from residual.store.disk import ResidualStore

def peak():
    [line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024

store = ResidualStore.open(sys.argv[2])
for times in (2, 12):
    fit_bases([store] * times, ("emb", "mlp", "head"), device="cpu")
    print(peak())
held = [store.load() for _ in range(12)]
held[0].contributions(units=[0])
print(peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak of memory this way")
def test_memory_doesnt_grow_with_the_samples(tmp_path):
    encoder = tiny_encoder(dtype=torch.float32, heads=8, head_width=32)
    path = tmp_path / "store"
    store = encode_dataset(encoder, pixel_dataset(1000), path, dtype="float32", batch_size=250)
    whole = store.read()
    held = 12 * sum(value.numel() * 4 for value in (whole.z, whole.mlp, whole.emb)) / 2**20
    assert held > 70  # MB
    done = subprocess.run(
        [sys.executable, "-c", FIT, str(Path(__file__).parents[1]), path],
        capture_output=True,
        text=True,
        check=True,
        env={"OMP_NUM_THREADS": "1", "PATH": ""},
    )
    small, large, loaded = map(float, done.stdout.split())
    assert large - small < held / 4
    assert loaded - large > held / 2  # else this could not see it
