"""Bases of the same units compared; what chance leaves of 1; anchors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from families import CASES
from plain import plain_angle, plain_rank, plain_spectral_cosine, plain_spectrum
from tiny import TinyImages, tiny_encoder

from residual import decompose
from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError
from residual.spectral import (
    Origin,
    SimilaritySettings,
    SpectralBases,
    anchors_of,
    compare_bases,
    fit_bases,
    fit_halves,
)
from residual.spectral.similarity import SIMILARITIES
from residual.store.base import MemoryStore
from residual.store.encode import encode_dataset

KINDS = ("emb", "mlp", "head")
OWN = [name for name in SIMILARITIES if not name.startswith("relative_")]
COMPONENTS = [name for name in OWN if not name.startswith("mean_") or name == "mean_principal_angle"]
ONES = [name for name in SIMILARITIES if name not in ("mean_principal_angle",) and "distance" not in name]
ZEROS = [name for name in SIMILARITIES if name not in ONES]


def store_of(n: int = 60, seed: int = 0, **how) -> MemoryStore:
    return encode_dataset(tiny_encoder(**how), TinyImages(n, seed=seed))


@pytest.fixture(scope="module")
def stores() -> tuple[MemoryStore, MemoryStore]:
    encoder = tiny_encoder()
    return encode_dataset(encoder, TinyImages(70)), encode_dataset(encoder, TinyImages(50, seed=5))


@pytest.fixture(scope="module")
def two(stores) -> tuple[SpectralBases, SpectralBases]:
    return fit_bases(stores[0], KINDS), fit_bases(stores[1], KINDS)


def changed(bases: SpectralBases, **fields) -> SpectralBases:
    """The same but for some fields."""
    names = ("units", "means", "components", "eigenvalues", "all_means", "origin")
    return SpectralBases(**{name: fields.get(name, getattr(bases, name)) for name in names})


def rotation(d: int, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q


# Comparison


def test_every_unit_by_plain_definitions(stores, two):
    explained = 0.8
    table = compare_bases(*two, explained)
    assert table["unit"].tolist() == stores[0].units["unit"].tolist()
    assert list(table.columns) == ["unit", "rank_a", "rank_b", *OWN]
    for row in table.to_dict("records"):
        x, y = (store.contributions(units=[row["unit"]])[:, 0].numpy() for store in stores)
        (a, α), (b, β) = plain_spectrum(x), plain_spectrum(y)
        k, m = plain_rank(α, explained), plain_rank(β, explained)
        assert (row["rank_a"], row["rank_b"]) == (k, m)
        a, α, b, β = a[:k], α[:k], b[:m], β[:m]
        few, p, q = min(k, m), x.mean(0), y.mean(0)
        expected = {
            "spectral_cosine": plain_spectral_cosine(a, b, α, β),
            "spectral_cosine_unweighted": plain_spectral_cosine(a, b),
            "spectral_cosine_by_index": np.sqrt(((a[:few] * b[:few]).sum(1) ** 2).mean()),
            "mean_principal_angle": plain_angle(a, b),
            "mean_cosine": p @ q / np.linalg.norm(p) / np.linalg.norm(q),
            "mean_correlation": np.corrcoef(p, q)[0, 1],
            "mean_distance": np.linalg.norm(p - q),
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-6, abs=1e-5), (row["unit"], name)


def test_relative_measures_are_those_of_means_seen_from_anchors(stores, two):
    anchors = anchors_of(stores[0], 9)
    table = compare_bases(*two, anchors=anchors)
    assert list(table.columns) == ["unit", "rank_a", "rank_b", *SIMILARITIES]
    directions = (anchors / anchors.norm(dim=1, keepdim=True)).numpy()
    for place, row in enumerate(table.to_dict("records")):
        p, q = (directions @ (each.means[place] / each.means[place].norm()).numpy() for each in two)
        assert row["relative_mean_cosine"] == pytest.approx(p @ q / np.linalg.norm(p) / np.linalg.norm(q))
        assert row["relative_mean_correlation"] == pytest.approx(np.corrcoef(p, q)[0, 1])
        assert row["relative_mean_distance"] == pytest.approx(np.linalg.norm(p - q))
    pd.testing.assert_frame_equal(table[["unit", "rank_a", "rank_b", *OWN]], compare_bases(*two))


def test_bases_are_like_themselves(stores, two):
    for explained in (0.3, 0.9, 0.999):
        table = compare_bases(two[0], two[0], explained, anchors_of(stores[0], 20))
        np.testing.assert_allclose(table[ONES], 1, rtol=0, atol=1e-9)
        np.testing.assert_allclose(table[ZEROS], 0, rtol=0, atol=1e-5)
        assert table["rank_a"].equals(table["rank_b"])


def test_the_other_way_round(two):
    there, back = compare_bases(*two), compare_bases(*reversed(two))
    pd.testing.assert_frame_equal(there[OWN], back[OWN])
    assert there["rank_a"].equals(back["rank_b"])


def test_both_rotated_alike(stores, two):
    """Nothing changes but the correlation of means, which isn't of angles alone."""
    turn, anchors = rotation(12), anchors_of(stores[0], 20).double()
    turned = [
        changed(
            each,
            means=each.means @ turn,
            components=[rows @ turn for rows in each.components],
            all_means=None,
        )
        for each in two
    ]
    plain, other = compare_bases(*two, anchors=anchors), compare_bases(*turned, anchors=anchors @ turn)
    invariant = [name for name in plain.columns if name != "mean_correlation"]
    pd.testing.assert_frame_equal(plain[invariant], other[invariant], rtol=1e-7, atol=1e-9)
    assert (plain["mean_correlation"] - other["mean_correlation"]).abs().max() > 1e-3
    lone = compare_bases(two[0], turned[0])
    assert (lone["spectral_cosine"] < 0.999).all()


def test_signs_of_components_say_nothing(two):
    generator = torch.Generator().manual_seed(1)
    signs = [torch.randint(0, 2, (rank, 1), generator=generator) * 2.0 - 1 for rank in two[1].ranks]
    flipped = changed(
        two[1], components=[rows * sign for rows, sign in zip(two[1].components, signs, strict=True)]
    )
    pd.testing.assert_frame_equal(compare_bases(*two), compare_bases(two[0], flipped))


def test_scale_of_the_variances_says_nothing(two):
    larger = changed(two[1], eigenvalues=[1000 * values for values in two[1].eigenvalues])
    pd.testing.assert_frame_equal(compare_bases(*two), compare_bases(two[0], larger))


def test_planes_that_share_one_direction():
    eye = torch.eye(4, dtype=torch.float64)
    means = torch.ones(1, 4)

    def plane(rows):
        return SpectralBases([7], means, [eye[rows]], [torch.tensor([2.0, 1.0])])

    row = compare_bases(plane([0, 1]), plane([0, 2]), 0.9).iloc[0]
    assert (row["rank_a"], row["rank_b"]) == (2, 2)
    assert row["spectral_cosine"] == pytest.approx(4 / math.sqrt(17))
    assert row["spectral_cosine_unweighted"] == pytest.approx(math.sqrt(1 / 2))
    assert row["mean_principal_angle"] == pytest.approx(45)
    row = compare_bases(plane([0, 1]), plane([1, 0]), 0.9).iloc[0]
    assert row["spectral_cosine"] == pytest.approx(math.sqrt(8 / 17))
    assert row["spectral_cosine_by_index"] == 0
    assert row["mean_principal_angle"] == pytest.approx(0)


def test_a_constant_unit_is_nan_and_its_means_are_still_compared():
    encoder = tiny_encoder(centering="own")
    block = encoder.parts.blocks[1]
    block.attention_output.weight.data[:, 8:16] = 0
    block.attention_output.bias.data.zero_()
    a, b = (fit_bases(encode_dataset(encoder, TinyImages(n, seed=n))) for n in (40, 50))
    table = compare_bases(a, b).set_index("unit")
    silent = 4 + 4 + 1
    assert a.ranks[silent - 4] == 0
    assert table.loc[silent, COMPONENTS].isna().all()
    assert (table.loc[silent, ["rank_a", "rank_b"]] == 0).all()
    assert table.loc[silent, "mean_cosine"] == pytest.approx(1)  # its share of what is constant
    assert table.drop(index=silent).notna().all(axis=None)
    flat = replace_basis(a, 0)
    assert compare_bases(flat, b).loc[0, COMPONENTS].isna().all()
    assert compare_bases(b, flat).loc[0, COMPONENTS].isna().all()
    assert compare_bases(b, flat).loc[0, ["mean_cosine", "mean_distance"]].notna().all()


def replace_basis(bases: SpectralBases, place: int) -> SpectralBases:
    """The unit at that place without components."""
    components, eigenvalues = list(bases.components), list(bases.eigenvalues)
    components[place], eigenvalues[place] = components[place][:0], eigenvalues[place][:0]
    return changed(bases, components=components, eigenvalues=eigenvalues)


def test_only_units_of_both_in_the_order_of_the_first(two):
    heads, some = two[0].select([9, 4, 15, 6]), two[1].select([1, 6, 9, 15])
    table = compare_bases(heads, some)
    assert table["unit"].tolist() == [9, 15, 6]
    whole = compare_bases(*two).set_index("unit").loc[[9, 15, 6]].reset_index()
    pd.testing.assert_frame_equal(table, whole)
    with pytest.raises(ResidualError, match="The two bases have no unit in common"):
        compare_bases(two[0].select([4, 5]), two[1].select([0, 6]))


def test_bases_of_other_encoders_are_refused(two):
    ours = two[0]
    other = fit_bases(store_of(30), KINDS)
    assert len(compare_bases(ours, other)) == 16  # the same weights
    with pytest.raises(
        ResidualError, match=r"Bases of different encoders: tiny \(weights .{8}, centering 'shared'"
    ):
        compare_bases(ours, fit_bases(encode_dataset(tiny_encoder(seed=1), TinyImages(30)), KINDS))
    with pytest.raises(
        ResidualError, match=r"centering 'shared'\) and tiny \(weights .{8}, centering 'own'\)"
    ):
        compare_bases(ours, fit_bases(store_of(30, centering="own"), KINDS))
    with pytest.raises(ResidualError, match="Bases of widths 12 and 20 can't be compared"):
        compare_bases(ours, fit_bases(store_of(30, output=20), KINDS))


def test_bases_made_by_hand_and_of_other_tokens_are_compared(two):
    ours = two[0]
    assert len(compare_bases(changed(ours, origin=None), two[1])) == 16
    assert len(compare_bases(two[1], changed(ours, origin=None))) == 16
    patches = encode_dataset(tiny_encoder(), TinyImages(30), pooling="patches")
    table = compare_bases(fit_bases(store_of(30), ("head",)), fit_bases(patches, ("head",)))
    assert table["unit"].tolist() == list(range(4, 16))
    assert (table["spectral_cosine"] < 0.9999).all()
    elsewhere = Origin("other", "0" * 64, "shared", ("d/train",), 5)
    with pytest.raises(ResidualError, match=r"and other \(weights 00000000, centering 'shared'\)"):
        compare_bases(ours, changed(two[1], origin=elsewhere))


def test_means_that_are_zero_or_constant_are_nan():
    eye = [torch.eye(3)[:1]]
    bases = [SpectralBases([0], mean, eye, [torch.ones(1)]) for mean in (torch.zeros(1, 3), torch.ones(1, 3))]
    row = compare_bases(*bases).iloc[0]
    assert row[["mean_cosine", "mean_correlation"]].isna().all()
    assert row["mean_distance"] == pytest.approx(math.sqrt(3))
    assert row["spectral_cosine"] == 1


def test_settings_out_of_range_are_refused():
    assert SimilaritySettings() == SimilaritySettings(explained=0.9, anchors=256, seed=0)
    for wrong in ({"explained": 0.0}, {"explained": 1.0}, {"anchors": 1}, {"seed": -1}):
        with pytest.raises(
            ResidualError, match=r"explained takes a number above|anchors takes|seed takes a whole"
        ):
            SimilaritySettings(**wrong)


# Halves


def scatter_of(bases: SpectralBases, place: int) -> torch.Tensor:
    """Around the mean, of all samples."""
    rows, values = bases.components[place], bases.eigenvalues[place]
    return (rows.T * values) @ rows * (bases.origin.samples - 1)


@pytest.mark.parametrize("n", [61, 520])
def test_halves_are_of_different_samples_and_together_of_all(n):
    """Counts, means and scatter of two parts combine to those of the whole only if they are parts."""
    store = store_of(n, layers=1, heads=2, output=6)
    whole, (a, b) = fit_bases(store, KINDS), fit_halves(store, KINDS)
    p, q = a.origin.samples, b.origin.samples
    assert (p + q, abs(p - q)) == (n, n % 2)
    assert a.units == b.units == whole.units
    torch.testing.assert_close((p * a.means + q * b.means) / n, whole.means)
    for place in range(len(whole)):
        apart = a.means[place] - b.means[place]
        together = scatter_of(a, place) + scatter_of(b, place) + p * q / n * torch.outer(apart, apart)
        torch.testing.assert_close(together, scatter_of(whole, place), rtol=1e-6, atol=1e-8)
    assert (a.means - b.means).norm(dim=1).min() > 0


def test_halves_follow_the_seed(stores):
    store = stores[0]
    first, again, other = (fit_halves(store, seed=seed) for seed in (0, 0, 1))
    for one, two in zip(first, again, strict=True):
        torch.testing.assert_close(one.means, two.means, rtol=0, atol=0)
        for x, y in zip(one.components, two.components, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=0)
    assert (first[0].means - other[0].means).norm(dim=1).min() > 1e-3
    assert (first[1].means - other[0].means).norm(dim=1).min() > 1e-3
    assert first[0].units == tuple(range(4, 16))


def test_halves_are_chosen_at_random(stores):
    """Not the first and the last, nor every other one."""
    store = stores[0]
    n = len(store)
    halves = fit_halves(store, "mlp")
    for part in (range(n // 2), range(n // 2, n), range(0, n, 2), range(1, n, 2)):
        regular = fit_bases(store.subset(list(part)), "mlp")
        for half in halves:
            assert (half.means - regular.means).norm(dim=1).min() > 1e-6


def test_halves_of_a_store_on_disk_are_those_in_memory(tmp_path):
    encoder = tiny_encoder(dtype=torch.float32)
    memory = encode_dataset(encoder, TinyImages(50))
    disk = encode_dataset(encoder, TinyImages(50), tmp_path / "store", dtype="float32")
    for one, two in zip(fit_halves(memory, KINDS, seed=4), fit_halves(disk, KINDS, seed=4), strict=True):
        torch.testing.assert_close(one.means, two.means)
        assert one.origin.samples == two.origin.samples == 25


def test_tokens_of_an_image_stay_in_one_half():
    store = encode_dataset(tiny_encoder(), TinyImages(20), pooling="patches")
    a, b = fit_halves(store)
    assert (a.origin.samples, b.origin.samples) == (40, 40)


def test_halves_need_two_samples_each(stores):
    few = stores[0].subset(range(4))
    assert [half.origin.samples for half in fit_halves(few)] == [2, 2]
    with pytest.raises(ResidualError, match="at least 2 samples, got 1"):
        fit_halves(stores[0].subset(range(3)))
    with pytest.raises(ResidualError, match="Unknown kinds of unit: 'heads'"):
        fit_halves(few, "heads")
    assert compare_bases(*fit_halves(few, KINDS))["rank_a"].max() == 1


# Anchors


def test_anchors_are_outputs_of_the_encoder(stores):
    store, dataset, encoder = stores[0], TinyImages(70), tiny_encoder()
    pixels = torch.stack([encoder.preprocess(dataset.load(index)) for index in range(70)]).double()
    decomposition = decompose(encoder, pixels)
    outputs = decomposition.output[:, 0]
    torch.testing.assert_close(decomposition.contributions.sum(2)[:, 0], outputs)
    for count in (1, 7, 70):
        got = anchors_of(store, count, seed=2)
        assert got.shape == (count, 12)
        nearest = torch.cdist(got.double(), outputs).min(1)
        assert nearest.values.max() < 1e-4
        assert len(set(nearest.indices.tolist())) == count  # no sample twice


def test_anchors_follow_the_seed_and_are_all_where_there_are_fewer(stores):
    store = stores[0]
    torch.testing.assert_close(anchors_of(store, 5), anchors_of(store, 5), rtol=0, atol=0)
    assert (anchors_of(store, 5) - anchors_of(store, 5, seed=1)).norm() > 1e-2
    everything = store.output().float()
    for count in (70, 71, 256):
        torch.testing.assert_close(anchors_of(store, count), everything, rtol=1e-4, atol=1e-4)


def test_anchors_need_all_kinds():
    for kinds in (("head",), ("head", "mlp"), ("emb", "mlp")):
        store = encode_dataset(tiny_encoder(dtype=torch.float32), TinyImages(20), kinds=kinds)
        with pytest.raises(ResidualError, match=r"kept without (emb|mlp|z), so there are no units of kind"):
            anchors_of(store, 5)


def test_anchors_of_a_store_on_disk(tmp_path):
    encoder = wrap_encoder(CASES["siglip"].make(), name="siglip")
    store = encode_dataset(encoder, TinyImages(30), tmp_path / "store", dtype="float32")
    got = anchors_of(store, 6, seed=1)
    assert torch.cdist(got.double(), store.output().double()).min(1).values.max() < 1e-3
    patches = encode_dataset(tiny_encoder(), TinyImages(10), pooling="patches")
    assert anchors_of(patches, 3).shape == (12, 12)
    torch.testing.assert_close(
        anchors_of(patches, 10), patches.output().flatten(0, 1).float(), rtol=1e-4, atol=1e-4
    )


def test_anchors_that_are_not_finite_are_refused(stores, two):
    coordinates = stores[0].coordinates
    spoilt = replace(stores[0], coordinates=replace(coordinates, emb=coordinates.emb * math.nan))
    with pytest.raises(ResidualError, match="Numbers to be compared hold NaN or infinity"):
        compare_bases(*two, anchors=anchors_of(spoilt, 4))
