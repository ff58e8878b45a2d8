"""Matching pursuit against its definitions written out; planted atoms are found; bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residual.errors import ResidualError
from residual.spectral import SpectralBases, pca
from residual.text import TextDictionary, omp, pursuit, somp, text_span, weighted_components


def random_rows(rows: int, width: int, seed: int) -> np.ndarray:
    """Rows far from their mean, with a spectrum that falls."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, width)) @ np.diag(0.8 ** np.arange(width)) @ rotation(width, rng) + 3.0


def rotation(width: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((width, width)))[0]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def plain_somp(
    x: np.ndarray, dictionary: np.ndarray, k: int, criterion: str, centre: bool = True, removal: bool = False
) -> dict:
    """The definition: choose, refit everything by least squares, go on with what is left."""
    atoms, whole = unit(dictionary), x
    mean = x.mean(0) if centre else np.zeros(x.shape[1])
    x = x - mean
    left, chosen, explained, l2, cosine = x.copy(), [], [], [], []
    for _ in range(k):
        rest = atoms
        if removal and chosen:
            free = np.setdiff1d(np.arange(len(atoms)), chosen)
            rest = np.zeros_like(atoms)  # each atom less its projection on those chosen, at length 1
            fit = np.linalg.lstsq(atoms[chosen].T, atoms[free].T, rcond=None)[0].T @ atoms[chosen]
            rest[free] = unit(atoms[free] - fit)
        products = left @ rest.T
        values = {
            "l1": np.abs(products).sum(0),
            "std": products.std(0) if centre else np.sqrt((products**2).mean(0)),
            "l2": np.linalg.norm(products, axis=0),
            "cosine": (np.abs(products) / np.linalg.norm(left, axis=1, keepdims=True)).sum(0),
        }[criterion]
        values[chosen] = -1
        chosen.append(int(values.argmax()))
        weights = np.linalg.lstsq(atoms[chosen].T, x.T, rcond=None)[0].T
        left = x - weights @ atoms[chosen]
        explained.append(1 - (left**2).sum() / (x**2).sum())
        fit = weights @ atoms[chosen] + mean
        l2.append(((whole - fit) ** 2).mean())
        cosine.append((unit(whole) * unit(fit)).sum(1).mean())
    return {
        **{"atoms": chosen, "weights": weights, "fit": fit, "explained": explained},
        **{"l2": l2, "cosine": cosine},
    }


def plain_text_span(x: np.ndarray, dictionary: np.ndarray, k: int, rank: int | None) -> dict:
    """The definition: project the atoms, then one after the other take their directions out of everything."""
    atoms = unit(dictionary)
    if rank is not None:
        rows = np.linalg.svd(x, full_matrices=False)[2][:rank]
        atoms = atoms @ rows.T @ rows
    mean = x.mean(0)
    x = x - mean
    left, chosen, fit = x.copy(), [], np.tile(mean, (len(x), 1))
    for _ in range(k):
        best = int((left @ atoms.T).std(0).argmax())
        direction = atoms[best] / np.linalg.norm(atoms[best])
        chosen.append(best)
        fit += np.outer(left @ direction, direction)
        left = left - np.outer(left @ direction, direction)
        atoms = atoms - np.outer(atoms @ direction, direction)
    return {"atoms": chosen, "fit": fit, "explained": 1 - (left**2).sum() / (x**2).sum()}


SIZES = {
    "rows": st.integers(3, 40),
    "width": st.integers(3, 12),
    "entries": st.integers(2, 30),
    "seed": st.integers(0, 10_000),
}


@pytest.mark.parametrize("criterion", pursuit.CRITERIA)
@settings(deadline=None, max_examples=50)
@given(**SIZES, share=st.floats(0, 1), centre=st.booleans(), removal=st.booleans())
def test_somp_is_its_definition(criterion, rows, width, entries, seed, share, centre, removal):
    x, dictionary = random_rows(rows, width, seed), random_rows(entries, width, seed + 1) - 3
    most = min(entries, width - removal, rows - 1)  # what is left of atoms in a last direction is one
    k = 1 + math.floor(share * (most - 1))  # until nothing is left
    wanted = plain_somp(x, dictionary, k, criterion, centre, removal)
    whole = torch.from_numpy(x)
    got = somp(whole, torch.from_numpy(dictionary), k, criterion, centre=centre, removal=removal)
    assert got.atoms.tolist() == wanted["atoms"]
    np.testing.assert_allclose(got.reconstruction, wanted["fit"], atol=1e-7 * np.abs(x).max())
    np.testing.assert_allclose(got.weights, wanted["weights"], rtol=1e-5, atol=1e-6 * np.abs(x).max())
    np.testing.assert_allclose(got.explained_variance, wanted["explained"], atol=1e-9)
    quality = got.quality(whole)
    np.testing.assert_allclose(quality["l2"], wanted["l2"], atol=1e-9 * np.square(x).max())
    np.testing.assert_allclose(quality["cosine"], wanted["cosine"], atol=1e-7)


@settings(deadline=None)
@given(**SIZES, rank=st.none() | st.integers(2, 14))
def test_text_span_is_its_definition(rows, width, entries, seed, rank):
    x, dictionary = random_rows(rows, width, seed), random_rows(entries, width, seed + 1) - 3
    k = min(entries, width - 1, rows - 2, 99 if rank is None else rank - 1, 3)
    if k < 1:
        return
    wanted = plain_text_span(x, dictionary, k, rank)
    got = text_span(torch.from_numpy(x), torch.from_numpy(dictionary), k, rank)
    assert got.atoms.tolist() == wanted["atoms"]
    np.testing.assert_allclose(got.reconstruction, wanted["fit"], atol=1e-7 * np.abs(x).max())
    assert got.explained_variance[-1].item() == pytest.approx(wanted["explained"], abs=1e-9)
    np.testing.assert_allclose(got.directions @ got.directions.T, np.eye(k), atol=1e-9)


@settings(deadline=None)
@given(width=SIZES["width"], entries=SIZES["entries"], seed=SIZES["seed"])
def test_omp_is_its_definition(width, entries, seed):
    x, dictionary = random_rows(30, width, seed), random_rows(entries, width, seed + 1) - 3
    k = min(entries, width, 4)
    first = np.linalg.svd(x - x.mean(0))[2][:1]
    wanted = plain_somp(first, dictionary, k, "l1", centre=False)
    got = omp(torch.from_numpy(x), torch.from_numpy(dictionary), k)
    assert got.atoms.tolist() == wanted["atoms"]
    assert got.explained_variance[-1].item() == pytest.approx(wanted["explained"][-1], abs=1e-9)
    alone = omp(torch.from_numpy(first), torch.from_numpy(dictionary), k)
    assert alone.atoms.tolist() == wanted["atoms"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", [somp, text_span])
def test_planted_atoms_are_found_in_their_order(method, dtype):
    rng = np.random.default_rng(5)
    texts = [f"text {place}" for place in range(400)]
    dictionary = TextDictionary(texts, torch.from_numpy(rng.standard_normal((400, 64))).to(dtype))
    planted = [311, 7, 150, 42, 88]
    strengths = np.array([16.0, 8.0, 4.0, 2.0, 1.0])
    weights = rng.standard_normal((2000, 5)) * strengths
    x = weights @ dictionary.embeddings[planted].double().numpy()
    x = torch.from_numpy(x + 0.02 * rng.standard_normal(x.shape) - 7).to(dtype)
    found = method(x, dictionary, 5)
    assert found.atoms.tolist() == planted
    assert found.texts == tuple(texts[place] for place in planted)
    assert found.explained_variance.diff().min() > 0
    assert found.explained_variance[-1] > 0.99
    if method is somp:
        scale = torch.from_numpy(weights - weights.mean(0)).to(dtype)
        assert ((found.weights - scale).norm() / scale.norm()).item() < 0.02


@settings(deadline=None)
@given(seed=SIZES["seed"])
def test_nothing_but_the_samples_variation_counts(seed):
    x, dictionary = (torch.from_numpy(random_rows(n, 8, seed + n)) for n in (25, 20))
    scales = torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 9, (20, 1)))
    turn = torch.from_numpy(rotation(8, np.random.default_rng(seed)))
    first = somp(x, dictionary, 3)
    for other in (
        somp(x + 100, dictionary, 3),
        somp(-2 * x, dictionary * scales, 3),
        somp(x @ turn, dictionary @ turn, 3),
    ):
        assert other.atoms.tolist() == first.atoms.tolist()
        torch.testing.assert_close(other.explained_variance, first.explained_variance)


@settings(deadline=None)
@given(seed=SIZES["seed"], rows=st.integers(3, 30))
def test_weighted_components_stand_for_the_samples(seed, rows):
    x, dictionary = (torch.from_numpy(random_rows(n, 9, seed + n)) for n in (rows, 40))
    own = pca(x)
    bases = SpectralBases([4], own.mean[None], [own.components], [own.eigenvalues])
    k = min(3, rows - 1)
    whole = somp(x, dictionary, k, "std")
    few = somp(weighted_components(bases, 4), dictionary, k, "std", centre=False)
    assert few.atoms.tolist() == whole.atoms.tolist()
    torch.testing.assert_close(few.explained_variance, whole.explained_variance)


def test_atoms_that_add_nothing_come_last_and_change_nothing():
    dictionary = torch.tensor([[1.0, 0, 0, 0], [2, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]])
    x = torch.tensor([[3.0, 1, 0, 0], [-3, 1, 0, 0], [1, -2, 0, 0]]).double()
    found = somp(x, dictionary, 4)
    assert sorted(found.atoms.tolist()) == [0, 1, 2, 3]
    assert found.explained_variance[1:].tolist() == pytest.approx([1.0] * 3)
    torch.testing.assert_close(found.reconstruction, x)


@pytest.mark.parametrize("method", [somp, text_span, omp])
def test_samples_that_are_all_the_same_but_for_rounding(method):
    """Their texts, and what these explained, were chosen by rounding."""
    generator = torch.Generator().manual_seed(0)
    for same in (torch.full((20, 4), 0.1), torch.randn(1, 4, generator=generator).repeat(30_001, 1)):
        assert (same - same.mean(0)).any()
        with pytest.raises(ResidualError, match="The samples are all the same: there is nothing for texts"):
            method(same, torch.eye(4), 2)
    with pytest.raises(ResidualError, match=r"The samples are all (zero|the same): there is nothing"):
        method(torch.zeros(1, 4), torch.eye(4), 2)


def test_small_samples_are_explained_as_any():
    x = torch.from_numpy(random_rows(9, 4, 1)).float()
    expected = somp(x, torch.eye(4), 2).explained_variance
    torch.testing.assert_close(somp(1e-25 * x, torch.eye(4), 2).explained_variance, expected)


def test_many_samples_go_through_in_parts(monkeypatch):
    x, dictionary = (torch.from_numpy(random_rows(n, 6, n)) for n in (97, 13))
    whole = somp(x, dictionary, 4)
    monkeypatch.setitem(pursuit._PRODUCTS, "cpu", 30)
    parts = somp(x, dictionary, 4)
    assert parts.atoms.tolist() == whole.atoms.tolist()


GOOD = torch.eye(4, dtype=torch.float64)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("x", "dictionary", "k", "how", "message"),
    [
        (GOOD, torch.zeros(0, 4), 1, {}, "dictionary is empty"),
        (GOOD, torch.eye(5), 1, {}, "dictionary has width 5, the samples 4"),
        (GOOD, GOOD, 5, {}, "Of 4 entries 1 to 4 can be chosen, not 5"),
        (GOOD, GOOD, 0, {}, "not 0"),
        (GOOD, torch.cat([GOOD, torch.zeros(1, 4)]), 1, {}, "Entry 4 of the dictionary is zero"),
        (GOOD * math.nan, GOOD, 1, {}, "NaN or infinity"),
        (GOOD, GOOD / 0, 1, {}, "NaN or infinity"),
        (GOOD[0], GOOD, 1, {}, r"rows \(n, d\)"),
        (GOOD[:0], GOOD, 1, {}, "one or more"),
        (GOOD, GOOD, 1, {"criterion": "l3"}, "Unknown criterion 'l3'. Known: l1, std, l2, cosine"),
    ],
)
def test_bad_input_of_somp(x, dictionary, k, how, message):
    with pytest.raises(ResidualError, match=message):
        somp(x, dictionary, k, **how)


def test_bad_input_of_the_others():
    with pytest.raises(ResidualError, match="rank must be at least 1"):
        text_span(GOOD, GOOD, 1, 0)
    with pytest.raises(ResidualError, match="all the same"):
        omp(torch.ones(3, 4), GOOD, 1)
    with pytest.raises(ResidualError, match="No basis for units"):
        weighted_components(SpectralBases([1], torch.zeros(1, 2), [torch.eye(2)], [torch.ones(2)]), 3)
