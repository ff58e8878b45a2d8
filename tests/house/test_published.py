"""`docs/published.md`: each of its lines is held by a test, against a definition written out plainly."""

from __future__ import annotations

import itertools
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TinyImages, random_pixels, tiny_encoder
from torch import Tensor

from residual import ResiDual, encode_dataset, fit_bases, trace
from residual.adapters import ReleasedResiDual, make_adapter
from residual.adapters.adapter_settings import Reference
from residual.data.hub import hub_entries
from residual.errors import ResidualError
from residual.experiments.adapters import AdaptersSettings
from residual.experiments.heads import HeadsSettings
from residual.heads import (
    ablate,
    correct_by_selection,
    kept_layers,
    mean_contributions,
    random_share,
    top_share,
    unit_correlation,
)
from residual.heads.contributions import ranks
from residual.heads.selections import SHARES
from residual.spectral import (
    SimilaritySettings,
    fit_halves,
    pca,
    relative,
    spectral_cosine,
    two_nn,
)
from residual.spectral.published import published_similarity
from residual.spectral.similarity import mean_correlation, mean_cosine
from residual.text import ZeroShotClassifier, omp, somp, text_span
from residual.tracing.linearization import Linearization

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import tables  # noqa: E402 (a script, beside the library)

RELEASED = "tests/adapters/test_released.py::"
HERE = "tests/house/test_published.py::"
HELD_BY = {
    "Write-back": RELEASED + "test_the_transposed_write_back_in_every_way",
    "Spectral map": RELEASED + "test_the_spectral_map_weights_coordinates",
    "Coarse": RELEASED + "test_coarse_is_not_centred",
    "Linear map": RELEASED + "test_the_linear_map_is_pytorchs_own",
    "Components without variance": RELEASED + "test_components_without_variance_are_counted",
    "Pruned tails": HERE + "test_pruned_tails",
    "Class means": RELEASED + "test_class_means_are_as_long_as_they_are",
    "Means of units": HERE + "test_means_of_units",
    "Ranks": HERE + "test_ranks",
    "First weights": HERE + "test_first_weights",
    "Fits": HERE + "test_fits",
    "Split of the last norm": HERE + "test_split_of_the_last_norm",
    "TwoNN": HERE + "test_two_nn",
    "Spectral cosine": HERE + "test_spectral_cosine",
    "Anchors": HERE + "test_anchors",
    "Means": HERE + "test_means",
    "A basis with itself": HERE + "test_a_basis_with_itself",
    "Unit correlations": HERE + "test_unit_correlations",
    "Shares of heads": HERE + "test_shares_of_heads",
    "Random heads": HERE + "test_random_heads",
    "Ablations": HERE + "test_ablations",
    "SOMP": HERE + "test_somp",
    "OMP": HERE + "test_omp",
    "TextSpan": HERE + "test_text_span",
    "Test splits": HERE + "test_test_splits",
}


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.fixture(scope="module")
def store():
    return encode_dataset(tiny_encoder(), TinyImages(60))


@pytest.fixture(scope="module")
def reference(store) -> Reference:
    return Reference.of(store)


def test_every_line_is_held_by_a_test_that_is_there():
    page = (ROOT / "docs/published.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (.+)$", page, re.MULTILINE) == list(HELD_BY)
    for place in HELD_BY.values():
        file, name = place.split("::")
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), place


def test_the_numbers_are_those_of_the_results():
    found, mean = tables.result("published")["untrained"]["mean"], {}
    (accuracies,) = (of["accuracies"] for of in tables.result("experiment-4-released")["details"].values())
    for method in {row["method"] for row in accuracies}:
        own = [row["accuracy"] for row in accuracies if row["method"] == method]
        assert len(own) == 10
        mean[method] = sum(own) / 10
    assert mean["residual"] == pytest.approx(0.884, abs=0.003)
    assert mean["residual_released"] == pytest.approx(0.741, abs=0.01)
    assert found["ResiDual at λ = 1"] == pytest.approx(0.784, abs=0.002)
    assert found["the same, transposed"] == pytest.approx(0.081, abs=0.005)


# Adapters


def test_pruned_tails(store, reference):
    contributions = store.contributions()
    for method, weight in ((ReleasedResiDual(reference.bases, 2, init="ones"), 1.0), (None, 0.0)):
        made = method or make_adapter("residual_star", reference)
        bases, total = made.bases, 0
        square = max(bases.ranks) == bases.dim
        for place, unit in enumerate(bases.units):
            components, kept = bases.components[place], made.ranks[place]
            weights = torch.full((len(components),), weight, dtype=torch.float64)
            weights[:kept] = made.lambdas_of(unit).detach()
            padded = torch.zeros(bases.dim, bases.dim, dtype=torch.float64)
            padded[: len(components)] = components
            back = padded.T[: len(components)] if square else components
            total = total + (contributions[:, unit] - bases.means[place]) @ components.T * weights @ back
        if made.others == "keep":
            total = total + contributions[:, 0]
        torch.testing.assert_close(made(contributions), total)


def test_means_of_units(store, reference):
    lost = store.output() - reference.bases.means.sum(0)
    for mean, wanted in (("drop", lost), ("keep", store.output())):
        made = ResiDual(reference.bases, init="ones", mean=mean)
        torch.testing.assert_close(made(store.contributions()), wanted)


def test_ranks(reference):
    made = ResiDual(reference.bases, 0.9)
    for values, rank in zip(reference.bases.eigenvalues, made.ranks, strict=True):
        running, last = 0.0, 0
        for k, value in enumerate(values / values.sum()):
            running, last = running + float(value), k
            if running > 0.9:
                break
        assert rank == last + 1


def test_first_weights(reference):
    count = sum(reference.bases.ranks)
    first = rows(count)
    assert torch.equal(ResiDual(reference.bases, init=first).lambdas.detach(), first)


def test_fits(reference):
    first, again, other = (ResiDual(reference.bases, seed=seed).lambdas.detach() for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (AdaptersSettings().seeds, AdaptersSettings(seeds=1).seeds) == (5, 1)


# Contributions


def test_split_of_the_last_norm():
    encoder, pixels = tiny_encoder(), random_pixels(4)
    vision = encoder.module.vision_model
    coordinates, output = trace(encoder, pixels)
    layers, heads = 3, 4
    stream = [coordinates.emb, *coordinates.mlp.unbind(1)]
    for layer, block in enumerate(vision.encoder.layers):
        weight = block.self_attn.out_proj.weight.unflatten(1, (heads, -1))  # (D, H, h)
        for head in range(heads):
            own = coordinates.z[:, layer, head] @ weight[:, head].T
            stream.append(own + block.self_attn.out_proj.bias / heads)
    shares = [1 / (2 * layers + 1)] * (1 + layers) + [1 / ((2 * layers + 1) * heads)] * layers * heads
    norm, projection = vision.post_layernorm, encoder.module.visual_projection.weight
    whole = sum(stream)
    mean, std = whole.mean(1, keepdim=True), (whole.var(1, correction=0, keepdim=True) + norm.eps).sqrt()
    with torch.no_grad():
        shared = [
            ((x - share * mean) / std * norm.weight + share * norm.bias) @ projection.T
            for x, share in zip(stream, shares, strict=True)
        ]
        own = [
            ((x - x.mean(1, keepdim=True)) / std * norm.weight + share * norm.bias) @ projection.T
            for x, share in zip(stream, shares, strict=True)
        ]
    for centering, wanted in (("shared", shared), ("own", own)):
        linearization = Linearization.of(tiny_encoder(centering=centering))
        found = linearization.contributions(coordinates)
        torch.testing.assert_close(found, torch.stack(wanted, 1))
        torch.testing.assert_close(found.sum(1), output)


# Spectra


def two_nn_as_published(x: Tensor, fraction: float) -> float:
    distances = (x[:, None] - x).norm(dim=2).fill_diagonal_(math.inf)
    pairs = [sorted(row)[:2] for row in distances.tolist()]
    ratios = sorted(second / first for first, second in pairs if first > 0 and first < second)
    n = len(ratios)
    up = down = 0.0
    for i in range(min(math.floor(fraction * n), n - 1)):
        across, height = math.log(ratios[i]), -math.log(1 - (i + 1) / n)
        up, down = up + across * height, down + across * across
    return up / down


def test_two_nn():
    x = rows(80, 3)
    for fraction in (0.9, 1.0):
        assert two_nn(x, fraction) == pytest.approx(two_nn_as_published(x, fraction), rel=1e-9)
    twice = torch.cat([x, x[:20]])  # both copies are left out there, and the first counts here
    assert two_nn(twice) == pytest.approx(two_nn_as_published(x, 0.9), rel=1e-9)
    theirs = two_nn_as_published(twice, 0.9)
    assert theirs != pytest.approx(two_nn(twice), rel=1e-3)
    assert two_nn(twice, duplicates="none") == pytest.approx(theirs, rel=1e-9)
    with pytest.raises(ResidualError, match="duplicates is 'first' or 'none', got 'all'"):
        two_nn(twice, duplicates="all")


def cosine_as_published(x: Tensor, y: Tensor, weights: Tensor) -> float:
    table = (x @ y.T).abs() * weights / weights.diagonal().norm()
    taken = []
    for _ in range(min(table.shape)):
        best = int(table.argmax())
        row, column = best // table.shape[1], best % table.shape[1]
        taken.append(float(table[row, column]))
        table[row], table[:, column] = -1, -1
    return math.sqrt(sum(value**2 for value in taken))


def test_spectral_cosine():
    x, y = (torch.linalg.qr(rows(9, k, seed=k))[0].T for k in (4, 6))
    a, b = (rows(k, seed=k).abs().sort(descending=True).values for k in (4, 6))
    assert spectral_cosine(x, y, a, b) == pytest.approx(cosine_as_published(x, y, torch.outer(a, b)))
    theirs = cosine_as_published(x, y, torch.eye(4, 6, dtype=torch.float64))
    assert spectral_cosine(x, y, match="index") == pytest.approx(theirs)
    by_index = [float(x[i] @ y[i]) ** 2 for i in range(4)]
    assert theirs == pytest.approx(math.sqrt(sum(by_index) / 4))
    assert spectral_cosine(x, y) > theirs


def test_anchors(store):
    ours, theirs = SimilaritySettings(), SimilaritySettings(published_anchors=100)
    assert (ours.anchors, theirs.anchors, ours.published_anchors) == (256, 256, 0)
    x, anchors = rows(9), rows(5, 9, seed=1)
    wanted = [float(x @ anchor / x.norm() / anchor.norm()) for anchor in anchors]
    assert relative(x, anchors).tolist() == pytest.approx(wanted)

    other = encode_dataset(tiny_encoder(), TinyImages(50, seed=3))
    table = published_similarity(store, other, [1, 6], anchors=60, device="cpu")  # all of them
    for unit, cosine in zip(table["unit"], table["published_relative_cosine"], strict=True):
        a, b = (each.contributions()[:, unit] for each in (store, other))
        seen = unit_length(a - a.mean(0))
        means = [(unit_length(each - each.mean(0)) @ seen.T).mean(0) for each in (a, b)]
        assert cosine == pytest.approx(abs(float(torch.cosine_similarity(*means, dim=0))))


def test_means(store):
    a, b = rows(9), -rows(9) + 0.1 * rows(9, seed=1)
    theirs = float(torch.nn.functional.cosine_similarity(a, b, dim=0).abs())
    assert mean_cosine(a, b) == pytest.approx(-theirs)
    moved = [each - each.mean() for each in (a, b)]
    theirs = float(torch.nn.functional.cosine_similarity(*moved, dim=0).abs())
    assert mean_correlation(a, b) == pytest.approx(-theirs)


def test_a_basis_with_itself(store):
    bases = fit_bases(store)
    both = [(each.components[0], each.eigenvalues[0]) for each in fit_halves(store)]
    itself = spectral_cosine(*[bases.components[0]] * 2, *[bases.eigenvalues[0]] * 2)
    (a, x), (b, y) = both
    assert itself == pytest.approx(1)
    assert spectral_cosine(a, b, x, y) < 0.999


# Heads


def correlation_as_published(x: Tensor, directions: Tensor, method: str) -> Tensor:
    basis = torch.linalg.qr(directions.T).Q
    own, whole = x @ basis, x.sum(1) @ basis
    if method == "spearman":  # ranks from 0, and no mean is taken off them
        own, whole = (each.argsort(0).argsort(0).double() for each in (own, whole))
    else:
        own, whole = own - own.mean(0), whole - whole.mean(0)
    products = (own * whole[:, None]).mean(0)
    return (products / (own.std(0) * whole.std(0))).mean(1)


@pytest.mark.parametrize("n", [11, 3])  # samples that span the output, and such that don't
def test_unit_correlations(n):
    x = rows(n, 3, 4)
    moved = 3 * (n - 1) ** 2 / (n * (n + 1))
    for directions in (rows(2, 4, seed=1), torch.eye(4, dtype=torch.float64), x.sum(1)):
        for method, more in (("pearson", 0), ("spearman", moved)):
            if directions.shape == (n, 4) and method == "spearman":
                continue  # of equal zeros
            ours = unit_correlation(x, directions, method)
            theirs = correlation_as_published(x, directions, method)
            torch.testing.assert_close(ours * (n - 1) / n + more, theirs)
    torch.testing.assert_close(unit_correlation(x), unit_correlation(x, torch.eye(4)))
    for unit, ranked in enumerate(unit_correlation(x, method="spearman")):
        pairs = [(ranks(x[:, unit])[:, k], ranks(x.sum(1))[:, k]) for k in range(4)]
        assert ranked == pytest.approx(np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs]))
    if n > 4:
        assert not torch.allclose(unit_correlation(x), unit_correlation(x, x.sum(1)), rtol=1e-2)


def test_shares_of_heads():
    other = {}
    for heads, share in itertools.product((48, 144, 384), SHARES):
        theirs = max(math.floor(share * heads), 2 if share == 0.01 else 1)
        if (ours := len(top_share(rows(heads), share))) != theirs:
            other[heads, share] = theirs, ours
        assert len(top_share(rows(heads), share, counting="published")) == theirs
    assert other == {(48, 0.01): (2, 1), (48, 0.1): (4, 5), (144, 0.01): (2, 1), (384, 0.01): (3, 4)}
    assert top_share(rows(48), 1 / 48) == [int(rows(48).argmax())]


def test_random_heads():
    assert HeadsSettings().seeds == 10
    draws = [random_share(range(48), 0.1, seed) for seed in range(10)]
    assert draws[0] == random_share(range(48), 0.1, 0)
    assert len(set(map(tuple, draws))) == 10
    theirs = torch.randn(48, generator=torch.Generator().manual_seed(0))
    wanted = sorted(theirs.topk(4).indices.tolist())
    assert top_share(theirs, 0.1, counting="published") == wanted != draws[0]


def test_ablations(store):
    x, keep = store.contributions(), [0, 2, 5]
    others = [unit for unit in range(16) if unit not in keep]
    zero = x[:, keep].sum(1)
    torch.testing.assert_close(ablate(x, keep), zero)
    torch.testing.assert_close(ablate(x, keep, "mean"), zero + x[:, others].mean(0).sum(0))
    kept = kept_layers(store.units)  # of the embedding, three MLPs, and four heads a layer
    assert (kept["only heads"], kept["all but heads"]) == (list(range(4, 16)), list(range(4)))
    for layer in range(3):
        first, last = 4 + 4 * layer, 8 + 4 * layer
        assert kept[f"only heads of layer {layer}"] == list(range(first, last))
        assert kept[f"only heads up to layer {layer}"] == list(range(4, last))
        assert kept[f"only layers up to {layer}"] == [0, *range(1, 2 + layer), *range(4, last)]
    classifier = ZeroShotClassifier(torch.eye(12)[:4], store.class_names)
    other = encode_dataset(tiny_encoder(), TinyImages(30, seed=3))
    means, names = mean_contributions(store), {"some": keep}
    here = correct_by_selection(other, classifier, names, "mean", means)
    there = correct_by_selection(other, classifier, names, "mean")
    labels, y = torch.from_numpy(other.labels), other.contributions()
    torch.testing.assert_close(means, x.mean(0))
    for found, rest in ((here, x), (there, y)):
        logits = classifier.logits(y[:, keep].sum(1) + rest[:, others].mean(0).sum(0))
        assert torch.equal(found[:, 0], logits.argmax(1) == labels)


# Texts


def unit_length(atoms: Tensor) -> Tensor:
    return atoms / atoms.norm(dim=1, keepdim=True)


def somp_as_published(x: Tensor, atoms: Tensor, k: int, criterion: str) -> tuple[list[int], Tensor]:
    atoms, mean, x = unit_length(atoms), x.mean(0), x - x.mean(0)
    left, chosen, fit = x, [], torch.zeros_like(x)
    for _ in range(k):
        products = left @ atoms.T
        merit = products.abs().sum(0) if criterion == "l1" else products.std(0)
        merit[chosen] = -1
        chosen.append(int(merit.argmax()))
        own = atoms[chosen]
        fit = torch.linalg.lstsq(own.T, x.T).solution.T @ own
        left = x - fit
    return chosen, fit + mean


def removed_as_published(x: Tensor, atoms: Tensor, k: int, criterion: str) -> list[int]:
    """By what is left of samples and atoms, as long as it is, once the chosen ones are taken out."""
    left, atoms, chosen = x - x.mean(0), unit_length(atoms), []
    for _ in range(k):
        products = left @ atoms.T
        merit = products.abs().sum(0) if criterion == "l1" else products.std(0)
        merit[chosen] = 0
        chosen.append(int(merit.argmax()))
        direction = unit_length(atoms[chosen[-1:]])[0]
        left, atoms = (each - torch.outer(each @ direction, direction) for each in (left, atoms))
    return chosen


def test_somp():
    x, atoms = rows(30, 6) + 2, rows(20, 6, seed=1)
    for criterion in ("l1", "std"):
        fits = [somp_as_published(x, atoms, k, criterion) for k in (1, 2, 3, 4)]
        chosen, fit = fits[-1]
        found = somp(x, atoms, 4, criterion)
        assert found.atoms.tolist() == chosen == removed_as_published(x, atoms, 4, criterion)
        torch.testing.assert_close(found.reconstruction, fit)
        wanted = {
            "explained_variance": [each.var(0).sum() / x.var(0).sum() for _, each in fits],
            "l2": [(each - x).square().mean() for _, each in fits],
            "cosine": [torch.cosine_similarity(x, each).mean() for _, each in fits],
        }
        for name, values in found.quality(x).items():
            torch.testing.assert_close(values, torch.stack(wanted[name]))
    assert somp(x, atoms, 4, removal=True).atoms.tolist() != somp(x, atoms, 4).atoms.tolist()
    found = pca(x, 4)
    theirs, _ = somp_as_published(found.components * (29 * found.eigenvalues)[:, None], atoms, 4, "l1")
    assert somp(found.components * found.eigenvalues[:, None], atoms, 4).atoms.tolist() == theirs


def test_omp():
    x, atoms = rows(30, 6) + 2, rows(20, 6, seed=1)
    first = torch.linalg.svd(x - x.mean(0))[2][0]
    left, chosen, own = first, [], unit_length(atoms)
    for _ in range(4):
        merit = (own @ left).abs()
        merit[chosen] = -1
        chosen.append(int(merit.argmax()))
        part = torch.linalg.lstsq(own[chosen].T, first[:, None]).solution[:, 0]
        left = first - part @ own[chosen]
    found = omp(x, atoms, 4)
    assert found.atoms.tolist() == chosen
    assert float(found.explained_variance[-1]) == pytest.approx(1 - float(left.square().sum()))
    along = unit_length(first[None] - left)[0]  # there it is of the samples, along what atoms make of it
    theirs = float((x @ along).var() / x.var(0).sum())
    assert theirs != pytest.approx(float(found.explained_variance[-1]), rel=0.1)
    made = unit_length(found.reconstruction)[0]
    assert float((x @ made).var() / x.var(0).sum()) == pytest.approx(theirs)


def test_text_span():
    x, atoms, rank = rows(30, 6) + 2, unit_length(rows(20, 6, seed=1)), 5
    span = torch.linalg.svd(x)[2][:rank]
    left, texts, chosen = x - x.mean(0), atoms @ span.T @ span, []
    for _ in range(4):
        chosen.append(int((left @ texts.T).std(0).argmax()))
        direction = texts[chosen[-1]] / texts[chosen[-1]].norm()
        left = left - (left @ direction)[:, None] * direction
        texts = texts - (texts @ direction)[:, None] * direction
    assert text_span(x, atoms, 4, rank).atoms.tolist() == chosen


# Data


def test_test_splits():
    made = {name for name, entry in hub_entries().items() if entry.splits["test"] is None}
    assert {"eurosat", "sun397", "pacs", "imagenet-sketch"} <= made
