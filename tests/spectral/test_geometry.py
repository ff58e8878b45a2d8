"""Shapes of units are those of their contributions, though those are never made; and what stands for them."""

from __future__ import annotations

import math
import shutil
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from families import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyImages, random_pixels, tiny_encoder

from residual.data import PixelDataset
from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError
from residual.spectral import GeometrySettings, two_nn_estimate, unit_geometry
from residual.spectral.geometry import MEASURES
from residual.store.base import MemoryStore
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization

N = 210
QUICK = GeometrySettings(halvings=0)
NUMBERS = [*MEASURES, "two_nn_low", "two_nn_high"]


def pixels(n: int = N) -> PixelDataset:
    return PixelDataset(random_pixels(n, dtype=torch.float32), np.arange(n) % 3, ["a", "b", "c"])


def in_double(store: MemoryStore | ResidualStore) -> MemoryStore:
    """The same numbers, so that contributions are made of them in float64."""
    whole = store.load() if isinstance(store, ResidualStore) else store
    return replace(whole, coordinates=whole.coordinates.to(dtype=torch.float64))


def contributions_of(store: MemoryStore, unit: int, samples: np.ndarray | None = None) -> np.ndarray:
    """`(n, d)`, tokens as samples."""
    return store.contributions(samples, units=[unit]).flatten(0, -3)[:, 0].numpy()


def two_nn_by_hand(x: np.ndarray, fraction: float = 0.9) -> float:
    nearest = []
    for place, row in enumerate(x):
        squares = ((x - row) ** 2).sum(1)
        squares[place] = np.inf
        nearest.append(np.sort(squares)[:2])
    first, second = np.sqrt(np.array(nearest)).T
    kept = (first > 0) & (first < second)
    logs = np.sort(np.log(second[kept] / first[kept]))
    count = len(logs)
    used = min(math.floor(fraction * count), count - 1)
    heights = -np.log(1 - np.arange(1, used + 1) / count)
    return (heights * logs[:used]).sum() / (logs[:used] ** 2).sum()


def measured_plainly(x: np.ndarray, how: GeometrySettings) -> dict[str, float]:
    """All columns but those of a unit's name, of contributions `(n, d)`."""
    n = len(x)
    variances = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2 / (n - 1)
    shares = variances / variances.sum()
    linear = int(np.argmax(shares.cumsum() > how.threshold)) + 1
    dimension = two_nn_by_hand(x, how.fraction)
    estimate = two_nn_estimate(torch.from_numpy(x), how.fraction, how.level)
    row = {
        "linear_dimension": linear,
        "two_nn": dimension,
        "two_nn_low": estimate.low,
        "two_nn_high": estimate.high,
        "linear_over_two_nn": linear / dimension,
        "first_explained_variance_ratio": shares[0],
        "participation_ratio": variances.sum() ** 2 / (variances**2).sum(),
    }
    order = torch.randperm(n, generator=torch.Generator().manual_seed(how.seed)).numpy()
    for times in range(1, how.halvings + 1):
        parts = [x[order[start :: 2**times]] for start in range(2**times)]
        enough = n // 2**times >= 100
        mean = np.mean([two_nn_by_hand(part, how.fraction) for part in parts]) if enough else math.nan
        row[f"two_nn_{2**times}"] = mean
    return {**row, "samples": n, "dropped": 0}


def is_measured_plainly(got: pd.DataFrame, store: MemoryStore, how: GeometrySettings, samples=None) -> None:
    for _, row in got.iterrows():
        expected = measured_plainly(contributions_of(store, row["unit"], samples), how)
        assert list(row.index[4:]) == list(expected)
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-6, nan_ok=True), (row["unit"], name)


# Measures


@pytest.fixture(scope="module")
def memory() -> MemoryStore:
    return in_double(encode_dataset(tiny_encoder(dtype=torch.float32), TinyImages(N)))


def test_measures_in_memory(memory):
    for how in (
        GeometrySettings(threshold=0.5, fraction=0.5, level=0.8, halvings=1, seed=3),
        GeometrySettings(fraction=1.0, samples=N),
    ):
        got = unit_geometry(memory, settings=how, device="cpu")
        assert got.iloc[:, :4].equals(memory.units)
        assert got["linear_dimension"].between(1, 12).all()
        is_measured_plainly(got, memory, how)


def test_paper_defaults(memory):
    assert GeometrySettings() == GeometrySettings(
        threshold=0.99, fraction=0.9, level=0.95, samples=50_000, halvings=3, seed=0
    )
    pd.testing.assert_frame_equal(unit_geometry(memory), unit_geometry(memory, None, GeometrySettings()))


FAMILIES = [
    ("clip", "own", "shared"),
    ("siglip", "own", "own"),
    ("timm attention pool past a class token", "own", "shared"),
    ("open_clip norm after average", "own", "own"),
    ("dinov2 registers", "avg:all", "shared"),
    ("clip", "token:2", "own"),
]


@pytest.mark.parametrize(("name", "pooling", "centering"), FAMILIES)
def test_measures_on_disk(tmp_path, name, pooling, centering):
    encoder = wrap_encoder(CASES[name].make(), centering, name=name)
    store = encode_dataset(encoder, pixels(), tmp_path / "store", dtype="float32", pooling=pooling)
    how = GeometrySettings(halvings=1)
    got = unit_geometry(store, settings=how)
    assert got["unit"].tolist() == store.units["unit"].tolist()
    is_measured_plainly(got, in_double(store), how)
    pd.testing.assert_frame_equal(unit_geometry(in_double(store), settings=how), got, rtol=1e-9)


def test_measures_of_a_float16_store_are_those_of_what_it_holds(tmp_path):
    store = encode_dataset(tiny_encoder(dtype=torch.bfloat16), TinyImages(N), tmp_path / "store")
    how = QUICK
    is_measured_plainly(unit_geometry(store, settings=how), in_double(store), how)


@pytest.mark.parametrize(
    ("name", "pooling", "on_disk"),
    [("clip", "patches", False), ("clip", "all", True), ("siglip", "patches", True)],
)
def test_tokens_are_samples(tmp_path, name, pooling, on_disk):
    encoder = wrap_encoder(CASES[name].make(), name=name)
    path = tmp_path / "store" if on_disk else None
    how = {"dtype": "float32"} if on_disk else {}
    store = encode_dataset(encoder, pixels(52), path, pooling=pooling, **how)
    tokens = 4 if pooling == "patches" else 5
    chosen = GeometrySettings(halvings=1)
    got = unit_geometry(store, settings=chosen)
    assert (got["samples"] == 52 * tokens).all()
    is_measured_plainly(got, in_double(store), chosen)


# What is measured


def test_some_kinds(memory):
    whole = unit_geometry(memory, settings=QUICK)
    for kinds in ("head", "emb", ("head", "mlp"), ["emb", "head"]):
        seen = []
        got = unit_geometry(memory, kinds, QUICK, progress=lambda _, *done, seen=seen: seen.append(done))
        expected = whole[whole["kind"].isin((kinds,) if isinstance(kinds, str) else kinds)]
        pd.testing.assert_frame_equal(got, expected.reset_index(drop=True))
        assert seen == [(done, len(got)) for done in range(1, len(got) + 1)]


def test_kinds_that_are_not_kept(tmp_path):
    encoder = wrap_encoder(CASES["siglip"].make(), name="siglip")
    store = encode_dataset(encoder, pixels(30), tmp_path / "store", kinds=("head", "mlp"), dtype="float32")
    got = unit_geometry(store)
    assert set(got["kind"]) == {"mlp", "head"}
    assert got["unit"].tolist() == [unit for unit in store.units["unit"] if unit != 0]
    is_measured_plainly(
        unit_geometry(store, "mlp", QUICK),
        in_double(store),
        QUICK,
    )
    with pytest.raises(ResidualError, match=r"holds no units of kind emb, only (head, mlp|mlp, head)"):
        unit_geometry(store, ("emb", "head"))
    with pytest.raises(ResidualError, match="Unknown kinds of unit: 'heads'"):
        unit_geometry(store, "heads")
    with pytest.raises(ResidualError, match="No kind of unit was given"):
        unit_geometry(store, [])


def test_the_device(memory):
    expected = unit_geometry(memory, "mlp")
    pd.testing.assert_frame_equal(unit_geometry(memory, "mlp", device=torch.device("cpu")), expected)
    with pytest.raises(ResidualError, match="The device 'abacus' isn't there"):
        unit_geometry(memory, "mlp", device="abacus")


def test_too_few_samples(memory):
    for n in (1, 2):
        with pytest.raises(ResidualError, match=f"at least 3 samples; the store has {n}"):
            unit_geometry(memory.subset(range(n)))


def test_three_samples_are_enough(memory):
    got = unit_geometry(memory.subset([4, 9, 2]), settings=GeometrySettings(halvings=1))
    assert got["linear_dimension"].between(1, 2).all()
    assert (got["samples"] + got["dropped"] == 3).all()
    assert got["two_nn"].notna().all()
    assert got["two_nn_2"].isna().all()


# A part of the samples


@dataclass(kw_only=True, eq=False)
class Watched(MemoryStore):
    """Notes which samples are read."""

    read: list

    def coordinates_of(self, units, samples=None) -> Coordinates:
        self.read.append(samples)
        return super().coordinates_of(units, samples)


def watched(store: MemoryStore) -> Watched:
    return Watched(**{each.name: getattr(store, each.name) for each in fields(MemoryStore)}, read=[])


def rows_read(store: Watched) -> np.ndarray:
    """Those that all units were measured by."""
    wanted = [np.asarray(each) for each in store.read if not isinstance(each, slice)]
    assert wanted
    for each in wanted:
        assert np.array_equal(each, wanted[0])
    assert len(set(wanted[0].tolist())) == len(wanted[0])
    return wanted[0]


def test_no_more_samples_than_asked_for(memory):
    for most in (3, 120, N + 1):
        store, how = watched(memory), GeometrySettings(samples=most, halvings=0, seed=4)
        got = unit_geometry(store, settings=how)
        rows = rows_read(store)
        assert len(rows) == min(most, N)
        assert (got["samples"] + got["dropped"] == min(most, N)).all()
        assert set(rows.tolist()) <= set(range(N))
        if most > 3:
            is_measured_plainly(got, memory, how, rows)


def test_the_seed_chooses(memory):
    chosen, tables = [], []
    for seed in (0, 0, 1, 2):
        store = watched(memory)
        tables.append(unit_geometry(store, "head", GeometrySettings(samples=120, halvings=0, seed=seed)))
        chosen.append(rows_read(store).tolist())
    assert chosen[0] == chosen[1]
    assert len({tuple(each) for each in chosen}) == 3
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert (tables[0]["two_nn"] != tables[2]["two_nn"]).all()
    together = np.bincount(np.concatenate(chosen[1:]), minlength=N)
    assert (together > 0).sum() > 150  # not always the first ones


def test_on_disk_as_in_memory_whatever_the_kinds(tmp_path, memory):
    """A unit is measured by the same samples, whichever others are."""
    how = GeometrySettings(samples=50, seed=1)
    encoder = tiny_encoder(dtype=torch.float32)
    store = encode_dataset(encoder, TinyImages(N), tmp_path / "store", dtype="float32")
    whole = unit_geometry(memory, settings=how)
    heads = unit_geometry(store, "head", how)
    pd.testing.assert_frame_equal(heads, whole[whole["kind"] == "head"].reset_index(drop=True), rtol=1e-9)


def test_a_part_of_the_tokens():
    encoder = wrap_encoder(CASES["clip"].make(), name="clip")
    memory = in_double(encode_dataset(encoder, pixels(90), pooling="patches"))
    store, how = watched(memory), GeometrySettings(samples=40, halvings=0)
    got = unit_geometry(store, settings=how)
    assert (got["samples"] + got["dropped"] == 40).all()
    rows = rows_read(store)
    assert 40 < len(rows) < 90  # most come from different images
    pd.testing.assert_frame_equal(unit_geometry(memory, settings=how), got)
    other = unit_geometry(memory, settings=replace(how, seed=1))
    assert (other["two_nn"] != got["two_nn"]).all()
    few = memory.subset(range(6))
    got = unit_geometry(few, settings=GeometrySettings(samples=15, halvings=0))
    assert (got["samples"] + got["dropped"] == 15).all()


# Odd samples


@pytest.mark.parametrize(
    ("field", "kind", "unit", "value"),
    [("z", "head", 15, math.nan), ("mlp", "mlp", 3, math.inf), ("emb", "emb", 0, -math.inf)],
)
def test_not_a_number(memory, field, kind, unit, value):
    spoilt = getattr(memory.coordinates, field).clone()
    spoilt.view(N, -1)[33, -1] = value  # of the last unit of its kind
    store = replace(memory, coordinates=replace(memory.coordinates, **{field: spoilt}))
    with pytest.raises(ResidualError, match=f"holds NaN or infinity in unit {unit}: encode it again"):
        unit_geometry(store, settings=QUICK)
    others = [each for each in ("head", "mlp", "emb") if each != kind]
    expected = unit_geometry(memory, others, QUICK)
    pd.testing.assert_frame_equal(unit_geometry(store, others, QUICK), expected)
    for norm in ("mean", "std"):
        spoilt = getattr(memory.coordinates, norm).clone()
        spoilt[0] = math.nan
        store = replace(memory, coordinates=replace(memory.coordinates, **{norm: spoilt}))
        with pytest.raises(ResidualError, match="holds NaN or infinity in unit 4"):
            unit_geometry(store, "head")


def with_one_norm(store: MemoryStore) -> Coordinates:
    """As if the last norm were the same for all samples, else every unit varies with it."""
    coordinates = store.coordinates
    return replace(
        coordinates,
        mean=coordinates.mean[:1].expand_as(coordinates.mean),
        std=coordinates.std[:1].expand_as(coordinates.std),
    )


@pytest.mark.parametrize(("seed", "centering"), [(0, "shared"), (3, "own")])
def test_a_unit_that_is_constant(seed, centering):
    encoder = tiny_encoder(seed, torch.float32, centering)
    memory = in_double(encode_dataset(encoder, TinyImages(50, seed=seed)))
    coordinates = with_one_norm(memory)
    z, mlp = coordinates.z.clone(), coordinates.mlp.clone()
    z[:, 1, 2], mlp[:, 0] = z[seed, 1, 2].clone(), mlp[seed, 0].clone()
    store = replace(memory, coordinates=replace(coordinates, z=z, mlp=mlp))
    got = unit_geometry(store)
    constant = got["unit"].isin([0, 1, 10])  # the class token, too
    assert (got.loc[constant, "linear_dimension"] == 0).all()
    assert (got.loc[constant, "samples"] == 0).all()
    assert (got.loc[constant, "dropped"] == 50).all()
    rest = [name for name in NUMBERS if name != "linear_dimension"]
    assert got.loc[constant, rest].isna().all(axis=None)
    assert got.loc[constant, ["two_nn_2", "two_nn_4", "two_nn_8"]].isna().all(axis=None)
    assert got.loc[~constant, NUMBERS].notna().all(axis=None)
    assert (got.loc[~constant, "linear_dimension"] > 0).all()
    before = unit_geometry(replace(memory, coordinates=coordinates))
    pd.testing.assert_frame_equal(got[~constant], before[~constant], check_dtype=False)


def test_all_samples_equal(memory):
    for place in range(3):
        got = unit_geometry(memory.subset([place] * 30))
        assert (got["linear_dimension"] == 0).all()
        assert got[[name for name in NUMBERS if name != "linear_dimension"]].isna().all(axis=None)


def test_all_but_one_equal(memory):
    got = unit_geometry(memory.subset([0] * 40 + [1]))
    assert (got["linear_dimension"] == 1).all()
    assert got["first_explained_variance_ratio"].tolist() == pytest.approx([1.0] * len(got))
    assert got["participation_ratio"].tolist() == pytest.approx([1.0] * len(got))
    assert got[["two_nn", "two_nn_low", "two_nn_high", "linear_over_two_nn"]].isna().all(axis=None)
    assert (got["samples"] == 0).all()
    assert (got["dropped"] == 41).all()


def test_duplicates_are_dropped(memory):
    """And change no dimension, though products round them differently from row to row."""
    alone = unit_geometry(memory.subset(range(150)), settings=QUICK)
    got = unit_geometry(memory.subset([*range(150), *range(149, 22, -1)]), settings=QUICK)
    assert (got["samples"] == 150).all()
    assert (got["dropped"] == 127).all()
    np.testing.assert_allclose(got["two_nn"], alone["two_nn"], rtol=1e-9)


def test_a_dimension_of_few_samples_is_kept_where_parts_have_none(memory):
    rows = [*range(14), *[100] * 786]
    got = unit_geometry(memory.subset(rows), "head")
    alone = unit_geometry(memory.subset(rows), "head", QUICK)
    assert (alone["samples"] > 0).all()
    pd.testing.assert_frame_equal(got[alone.columns], alone)
    assert got["two_nn_8"].isna().any()


# Settings


def test_settings_out_of_range():
    for name, values in {
        "threshold": (0.0, 1.0, math.nan),
        "fraction": (0.0, 1.1),
        "level": (0.0, 1.0),
    }.items():
        for value in values:
            with pytest.raises(ResidualError, match=r"(threshold|level|fraction) takes a number above 0 and"):
                GeometrySettings(**{name: value})
    for wrong in ({"samples": 2}, {"halvings": -1}, {"halvings": 10**9}, {"seed": -1}):
        with pytest.raises(ResidualError, match=r"(samples|halvings|seed) takes a whole number"):
            GeometrySettings(**wrong)
    how = GeometrySettings(fraction=1.0, samples=3, halvings=0)
    with pytest.raises(FrozenInstanceError, match="samples"):
        how.samples = 5


# What stands for contributions


@pytest.mark.parametrize(
    ("name", "pooling", "centering"),
    [*FAMILIES, ("clip", "patches", "own"), ("siglip", "patches", "shared"), ("vit", "own", "own")],
)
def test_distances_through_the_root_are_those_of_contributions(name, pooling, centering):
    encoder = wrap_encoder(CASES[name].make(), centering, name=name)
    store = in_double(encode_dataset(encoder, pixels(12), pooling=pooling))
    linearization = store.linearization
    for unit in range(len(store.units)):
        matrix, root = linearization.matrix(unit), linearization.root(unit)
        f, d = matrix.shape
        assert root.dtype == torch.float64
        assert root.shape == (f, min(f, d))
        small = (linearization.features(store.coordinates, unit).flatten(0, -2) @ root).numpy()
        whole = contributions_of(store, unit)
        for one, other in zip(small, whole, strict=True):
            expected = np.sqrt(((whole - other) ** 2).sum(1))
            got = np.sqrt(((small - one) ** 2).sum(1))
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12 * expected.max())
        np.testing.assert_allclose(
            np.linalg.svd(small - small.mean(0), compute_uv=False)[: min(f, d)],
            np.linalg.svd(whole - whole.mean(0), compute_uv=False)[: min(f, d)],
            rtol=0,
            atol=1e-10 * np.abs(whole).max(),
        )


def test_the_root_is_as_narrow_as_it_can_be():
    for heads, head_width, output in ((2, 2, 12), (2, 16, 18), (2, 16, 5), (1, 8, 10)):
        encoder = tiny_encoder(dtype=torch.float32, heads=heads, head_width=head_width, output=output)
        linearization = Linearization.of(encoder)
        for unit in range(len(linearization.units)):
            matrix, root = linearization.matrix(unit), linearization.root(unit)
            features = (head_width if linearization.units.kind(unit) == "head" else heads * head_width) + 2
            assert root.shape == (features, min(features, output))
            size = (matrix @ matrix.T).abs().max()
            torch.testing.assert_close(root @ root.T, matrix @ matrix.T, rtol=0, atol=1e-12 * size)


# Coordinates of some units


@pytest.fixture(scope="module", params=[("clip", "own"), ("clip", "patches"), ("siglip", "own")])
def stores(request, tmp_path_factory):
    """The same in memory, and on disk in both precisions."""
    name, pooling = request.param
    encoder, path = wrap_encoder(CASES[name].make(), name=name), tmp_path_factory.mktemp("stores")
    return [
        encode_dataset(encoder, pixels(9), pooling=pooling),
        encode_dataset(encoder, pixels(9), path / "exact", dtype="float32", pooling=pooling),
        encode_dataset(encoder, pixels(9), path / "narrow", dtype="float16", pooling=pooling),
    ]


@settings(max_examples=15, deadline=None)
@given(
    units=st.lists(st.integers(0, 8), max_size=5),
    as_array=st.booleans(),
    samples=st.one_of(
        st.none(),
        st.lists(st.integers(0, 8), max_size=6),
        st.builds(slice, st.integers(0, 4), st.integers(3, 9), st.sampled_from([None, 1, 2])),
    ),
)
def test_features_of_some_units(stores, units, as_array, samples):
    for store in stores:
        whole = store.coordinates if isinstance(store, MemoryStore) else store.read()
        whole = whole if samples is None else whole[samples]
        given = np.array(units, dtype=np.int64) if as_array else units
        got = store.coordinates_of(given, samples)
        assert len(got) == len(whole)
        assert torch.equal(got.mean, whole.mean)
        assert torch.equal(got.std, whole.std)
        for unit in units:
            features = store.linearization.features(got, unit)
            assert torch.equal(features, store.linearization.features(whole, unit)), unit


def test_every_unit_alone_and_all_together(stores):
    for store in stores:
        every = list(range(len(store.units)))
        whole = store.coordinates if isinstance(store, MemoryStore) else store.read()
        for units in [*([unit] for unit in every), every, every[::-1]]:
            got = store.coordinates_of(units)
            for unit in units:
                expected = store.linearization.features(whole, unit)
                assert torch.equal(store.linearization.features(got, unit), expected)
            torch.testing.assert_close(
                store.linearization.contributions(got, units), store.contributions(units=units)
            )


def test_nothing_else_is_read(tmp_path):
    encoder = wrap_encoder(CASES["siglip"].make(), name="siglip")
    encode_dataset(encoder, pixels(9), tmp_path / "store", dtype="float32")
    whole = ResidualStore.open(tmp_path / "store").load().coordinates
    for kept, units in (({"z"}, [4, 9]), ({"mlp", "pool_mlp"}, [1, 3]), ({"emb"}, [0])):
        path = Path(shutil.copytree(tmp_path / "store", tmp_path / f"unit {units[0]}"))
        for other in {"z", "mlp", "emb", "pool_mlp"} - kept:
            shutil.rmtree(path / other / "c")
        store = ResidualStore.open(path)
        got = store.coordinates_of(units)
        for unit in units:
            expected = store.linearization.features(whole, unit)
            assert torch.equal(store.linearization.features(got, unit), expected)
        kind = store.units["kind"][units[0]]
        assert len(unit_geometry(store, kind)) == (store.units["kind"] == kind).sum()


def test_layers_that_no_unit_is_of_hold_zeros(stores):
    _, store, _ = stores
    first_head = int((store.units["kind"] != "head").sum())
    got = store.coordinates_of([first_head + 4, 1])
    whole = store.read()
    assert got.emb is None
    assert got.pool_mlp is None or store.linearization.units.pool_mlp
    assert torch.equal(got.z[..., 1, :, :], whole.z[..., 1, :, :])
    assert (got.z[..., 0, :, :] == 0).all()
    assert torch.equal(got.mlp[..., 0, :], whole.mlp[..., 0, :])
    assert (got.mlp[..., 1, :] == 0).all()


def test_units_that_are_not_there(stores):
    for store in stores:
        last = len(store.units) - 1
        for wrong in (-1, last + 1):
            with pytest.raises(ResidualError, match=rf"Units are 0 to {last}, got \[{wrong}\]"):
                store.coordinates_of([0, wrong])


@pytest.mark.parametrize("on_disk", [True, False])
def test_units_of_a_kind_that_is_not_kept(tmp_path, on_disk):
    path = tmp_path / "store" if on_disk else None
    store = encode_dataset(tiny_encoder(dtype=torch.float32), TinyImages(4), path, kinds=("mlp",))
    got = store.coordinates_of([5, 1])
    assert store.linearization.features(got, 1).shape == (4, 34)
    with pytest.raises(ResidualError, match="kept without z, so there are no units of kind 'head'"):
        store.linearization.features(got, 5)
