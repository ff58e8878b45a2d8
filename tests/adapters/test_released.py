"""The released forms of methods against what the published code does, written out plainly, in float64."""

from __future__ import annotations

import json

import pytest
import torch
from kit import tiny
from tiny import TinyImages, random_pixels, tiny_vision
from torch.nn.functional import linear, normalize
from torch.nn.utils.rnn import pad_sequence

from residual import AdaptedEncoder, encode_dataset, wrap_encoder
from residual.adapters import (
    AdapterSettings,
    Coarse,
    FitSettings,
    LinearMap,
    Reference,
    ReleasedCoarse,
    ReleasedLinearMap,
    ReleasedResiDual,
    ReleasedSpectralMap,
    ResiDual,
    SpectralMap,
    adapted_output,
    compute_scores,
    fit,
    fit_many,
    make_adapter,
    unit_gains,
)
from residual.errors import ResidualError
from residual.spectral import SpectralBases, fit_bases, fit_output
from residual.text import ZeroShotClassifier
from residual.tracing.linearization import Linearization
from residual.tracing.trace import trace
from residual.workflows.task import make_task
from residual.workflows.train import train_adapter

WIDTH, HEAD_WIDTH, MLPS, HEADS = 12, 8, (1, 2, 3), tuple(range(4, 16))  # of the tiny encoder


@pytest.fixture(scope="module")
def store():
    return encode_dataset(tiny(), TinyImages(60))


@pytest.fixture(scope="module")
def reference(store) -> Reference:
    return Reference.of(store)


def written(bases: SpectralBases, contributions: torch.Tensor, lambdas: list[torch.Tensor], tail: float):
    """Bases padded with zero rows to the longest unit, weights to all components; then back by an inverse."""
    longest, width = max(bases.ranks), bases.dim
    padded = torch.zeros(len(bases), longest, width, dtype=torch.float64)
    weights = torch.full((len(bases), longest), tail, dtype=torch.float64)
    for place, (rows, own) in enumerate(zip(bases.components, lambdas, strict=True)):
        padded[place, : len(rows)], weights[place, : len(own)] = rows, own
    inverse = padded.mT if longest == width else torch.linalg.pinv(padded).mT
    total = torch.zeros(len(contributions), width, dtype=torch.float64)
    for place, unit in enumerate(bases.units):
        scores = (contributions[:, unit] - bases.means[place]) @ padded[place].T
        for k in range(longest):
            total += (weights[place, k] * scores[:, k])[:, None] * inverse[place, k]
    return total


def split(adapter: ResiDual) -> list[torch.Tensor]:
    return [each.double() for each in adapter.lambdas.split(list(adapter.ranks))]


def test_the_transposed_write_back_in_every_way(store):
    """Forward, in score space with the gradient, folded. Heads alone are no square: they are the paper's."""
    contributions, pull = store.contributions(), torch.randn(60, WIDTH, dtype=torch.float64)
    coordinates, output = trace(tiny(), random_pixels(5))
    linearization = Linearization.of(tiny())
    fresh = linearization.contributions(coordinates)
    for kinds in (("mlp", "head"), ("head",)):
        bases = fit_bases(store, kinds)
        assert (max(bases.ranks) == WIDTH) == ("mlp" in kinds)
        left = [unit for unit in range(16) if unit not in bases.units]
        for rank in (None, 0.7, [1 + unit % 3 for unit in bases.units]):
            for tail, weight in (("drop", 0.0), ("keep", 1.0)):
                made = ResiDual(bases, rank, tail=tail, seed=3, write_back="transposed")
                wanted = written(bases, contributions, split(made), weight) + contributions[:, left].sum(1)
                (full,) = torch.autograd.grad((wanted * pull).sum(), made.lambdas, retain_graph=True)
                scores = compute_scores(made, store, batch_size=25)
                for got in (made(contributions), scores.output(made.lambdas.double())):
                    torch.testing.assert_close(got, wanted)
                    torch.testing.assert_close(torch.autograd.grad((got * pull).sum(), made.lambdas)[0], full)
                if "mlp" not in kinds:
                    plain = ResiDual(bases, rank, tail=tail, init=made.lambdas)
                    torch.testing.assert_close(plain(contributions), wanted)
                folded = made.fold(linearization)(coordinates)
                torch.testing.assert_close(folded, made(fresh))
    kept = ResiDual(fit_bases(store, ("mlp", "head")), mean="keep", init="ones", write_back="transposed")
    assert not torch.allclose(kept(fresh), output)  # unlike the equation's


def test_ranks_at_once_are_what_each_would_be_alone(store, reference):
    val = encode_dataset(tiny(), TinyImages(30, seed=2))
    classifier = ZeroShotClassifier.from_class_means(store.output(), store.labels, store.class_names)
    bases, ranks = reference.with_zeros().bases, [2, 0.6, None]
    together, alone = ([ReleasedResiDual(bases, rank, seed=k) for k, rank in enumerate(ranks)] for _ in "ab")
    settings = [FitSettings(seed=k, epochs=3, batch_size=16, learning_rate=0.5) for k in range(3)]
    wide = [compute_scores(together, each) for each in (store, val)]
    assert wide[0].scores.shape[1] == 3 * WIDTH + 12 * HEAD_WIDTH
    fit_many(together, *wide, classifier, settings)
    for adapter, single, setting in zip(together, alone, settings, strict=True):
        fit(single, store, val, classifier, setting)
        torch.testing.assert_close(adapter.lambdas, single.lambdas, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(
            adapted_output(adapter, wide[1]), single(val.contributions()), atol=1e-4, rtol=1e-3
        )


def test_components_without_variance_are_counted(store, reference):
    assert max(reference.bases.select(HEADS).ranks) == HEAD_WIDTH + 2
    few = Reference.of(encode_dataset(tiny(), TinyImages(9)))
    for of, most in ((reference, WIDTH), (few, 9)):
        bases, output = of.with_zeros().bases, of.with_zeros().output
        assert bases.select(MLPS).ranks == (most,) * 3
        assert bases.select(HEADS).ranks == (HEAD_WIDTH,) * 12
        assert output.components.shape == (most, WIDTH)
        for rows, values, own, eigenvalues in zip(
            bases.components, bases.eigenvalues, of.bases.components, of.bases.eigenvalues, strict=True
        ):
            count = min(len(rows), len(own))
            assert torch.equal(rows[:count], own[:count])
            assert torch.equal(values[:count], eigenvalues[:count])
            assert not values[count:].any()
            torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows), dtype=torch.float64))
        method = make_adapter("residual_released", of)
        assert method.weights.numel() == 3 * most + 12 * HEAD_WIDTH
        assert method.transposed == (most == WIDTH)
        padded = pad_sequence(list(bases.components), batch_first=True)
        if most < WIDTH:
            with pytest.raises(RuntimeError, match="singular"):
                torch.linalg.inv(padded @ padded.mT)
        assert (method.tail, method.others, method.mean) == ("keep", "keep", "drop")
    with pytest.raises(ResidualError, match="at most 12 components of width 12, got 13"):
        reference.bases.resized([13] * 15)
    with pytest.raises(ResidualError, match="15 units need as many counts of components, got 2"):
        reference.bases.resized([1, 2])


def test_the_spectral_map_weights_coordinates(store, reference):
    made, output = make_adapter("spectral_released", reference, seed=4), store.output()
    wanted = (output - output.mean(0)) * made.lambdas.double()
    assert made.weights.numel() == WIDTH
    torch.testing.assert_close(made(output), wanted)
    torch.testing.assert_close(adapted_output(made, compute_scores(made, store)), wanted)
    pruned = ReleasedSpectralMap(reference.with_zeros().output, 5, tail="keep", init="ones", mean="keep")
    torch.testing.assert_close(pruned(output), output)
    rows = reference.with_zeros().output.components  # there the weights go with the rows that samples meet
    theirs = (output - output.mean(0)) @ (made.lambdas.double()[:, None] * rows) @ rows.T
    torch.testing.assert_close(made(output), theirs)
    few = fit_output(encode_dataset(tiny(), TinyImages(9)))  # no square
    plain, other = (SpectralMap(few, seed=1, write_back=way) for way in ("equation", "transposed"))
    assert torch.equal(plain(output), other(output))


def test_coarse_is_not_centred(store, reference):
    contributions = store.contributions()
    made = make_adapter("coarse_released", reference, seed=2)
    weights = made.lambdas.double()
    assert len(weights) == len(HEADS)
    wanted = sum(weights[place] * contributions[:, unit] for place, unit in enumerate(HEADS))
    torch.testing.assert_close(made(contributions), wanted)
    torch.testing.assert_close(adapted_output(made, compute_scores(made, store)), wanted)
    few, heads = Reference.of(encode_dataset(tiny(), TinyImages(5))), list(HEADS)  # fewer than features
    for name, means in (("coarse", few.bases.select(HEADS).means), ("coarse_released", 0)):
        made = make_adapter(name, few, seed=2)
        wanted = torch.einsum("nrd,r->nd", contributions[:, heads] - means, made.lambdas.double())
        torch.testing.assert_close(made(contributions), wanted)
    one = SpectralBases([0], torch.tensor([[1.0, 2.0, 3.0]]), [torch.eye(3)[:1]], [torch.ones(1)])
    flat = torch.tensor([[[5.0, 2.0, 3.0]]])  # what moves along the component only
    torch.testing.assert_close(ReleasedCoarse(one, torch.tensor([2.0]))(flat), 2 * flat[:, 0])


def test_what_differs_in_means_is_not_fitted_at_once(store, reference):
    """Scores are of samples less their means: those of one would be wrong for the other, and nobody told."""
    heads, shifted = reference.of_heads(), reference.of_heads()
    shifted.means = shifted.means + 1
    kinds = [
        (Coarse(heads), Coarse(heads, centred=False), "adapters of one kind"),
        (Coarse(heads), Coarse(heads.resized([3] * len(HEADS))), "adapters of one kind"),
        (ResiDual(heads), ResiDual(shifted), "adapters with the same components and means"),
    ]
    for *adapters, message in kinds:
        with pytest.raises(ResidualError, match=message):
            compute_scores(adapters, store)


def test_the_linear_map_is_pytorchs_own(store):
    output = store.output()
    torch.manual_seed(7)
    theirs = torch.nn.Linear(WIDTH, WIDTH)
    made = ReleasedLinearMap(WIDTH, seed=7)
    assert made.weights.numel() == WIDTH * WIDTH + WIDTH
    wanted = linear(output, theirs.weight.double(), theirs.bias.double())
    torch.testing.assert_close(made(output), wanted)
    torch.testing.assert_close(adapted_output(made, compute_scores(made, store)), wanted)
    with torch.no_grad():
        folded = made.fold(Linearization.of(tiny())).of_output(output)
    torch.testing.assert_close(folded, wanted)
    assert not torch.equal(ReleasedLinearMap(WIDTH, seed=8).weights, made.weights)
    assert torch.equal(LinearMap(WIDTH, "random", seed=7).weights, made.weights[:WIDTH])
    with pytest.raises(ResidualError, match="needs 13 x 12 finite numbers, got shape"):
        ReleasedLinearMap(WIDTH, torch.eye(WIDTH))


def test_settings_choose_the_write_back_and_files_name_it(tmp_path, reference):
    how = AdapterSettings(write_back="transposed", rank=2)
    for method in ("residual", "spectral"):
        for settings in (how, AdapterSettings()):
            adapter = make_adapter(method, reference, settings)
            assert adapter.write_back == settings.write_back
            AdaptedEncoder(tiny(), adapter).save_pretrained(tmp_path, overwrite=True)
            config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
            told = config["adapter"]
            assert config["format"] == (2 if settings is how else 1)  # what 0.1 would pass over, it refuses
            assert told.get("write_back", "equation") == settings.write_back
            assert ("write_back" in told) == (settings is how)
    AdaptedEncoder(tiny(), make_adapter("residual_released", reference)).save_pretrained(tmp_path, True)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "each re-weighted by one number, as in the code published with the paper" in card
    with pytest.raises(ResidualError, match="write_back takes 'equation' or 'transposed'; got 'rows'"):
        AdapterSettings(write_back="rows")


def test_gains_are_of_what_is_written(store, reference):
    adapter = make_adapter("residual_released", reference, seed=5)
    gains = unit_gains(adapter, store.units).set_index("unit")["gain"]
    for place, unit in enumerate(adapter.units):
        own, lambdas = adapter.bases.select([unit]), split(adapter)[place]
        rows, square = own.components[0], torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
        square[: len(rows)] = rows
        centred = store.contributions()[:, unit] - own.means[0]
        spread = (centred @ rows.T * lambdas @ square.T[: len(rows)]).var(0).sum()
        assert gains[unit] == pytest.approx((spread / own.eigenvalues[0].sum()).sqrt().item(), rel=1e-6)


def test_class_means_are_as_long_as_they_are(tmp_path):
    encoder = wrap_encoder(tiny_vision(), name="tiny vision")
    stores = {
        part: encode_dataset(encoder, TinyImages(40, seed=k)) for k, part in enumerate(("train", "val"))
    }
    stores["test"] = encode_dataset(encoder, TinyImages(40, seed=2))
    images = dict.fromkeys(stores, TinyImages(40))
    task = make_task(encoder, "tiny", images, stores, 0.0)
    output, labels = stores["train"].output(), torch.from_numpy(stores["train"].labels)
    means = torch.stack([output[labels == label].mean(0) for label in range(4)])
    assert task.classifier_for("residual") is task.classifier
    torch.testing.assert_close(task.classifier.weights, normalize(means))
    raw = task.classifier_for("residual_released")
    torch.testing.assert_close(raw.weights, means)
    torch.testing.assert_close(raw.logits(output), normalize(output) @ means.T)
    assert raw.to("cpu").normalized is False

    fits = [FitSettings(epochs=1)]
    trained = train_adapter(encoder, task, Reference.of(stores["train"]), "coarse_released", fits).adapted
    trained.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert told["classifier"]["normalized"] is False
    loaded = AdaptedEncoder.from_pretrained(tmp_path, encoder)
    torch.testing.assert_close(loaded.classifier.weights, means)
    pixels = random_pixels(3)
    torch.testing.assert_close(loaded(pixels), trained(pixels), atol=1e-5, rtol=1e-5)
