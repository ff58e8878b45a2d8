"""ResiDual, ResiDual* and Coarse against their definitions, on full contributions and in score space."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyImages, tiny_encoder

from residual.adapters import Coarse, FitSettings, ResiDual, ResiDualStar, compute_scores, evaluate, fit
from residual.errors import ResidualError
from residual.spectral import SpectralBases, fit_bases
from residual.store.encode import encode_dataset
from residual.text import ZeroShotClassifier


@pytest.fixture(scope="module")
def stores():
    return [encode_dataset(tiny_encoder(), TinyImages(120, seed=seed)) for seed in (1, 2)]


@pytest.fixture(scope="module")
def store():
    return encode_dataset(tiny_encoder(), TinyImages(n=60))


@pytest.fixture(scope="module")
def bases(store):
    return fit_bases(store, kinds=("mlp", "head"))


def definition(adapter, contributions):
    """o' = Σ_i ((c_i − m_i) Φ_iᵀ ⊙ λ_i) Φ_i, component by component, then tails and other units."""
    bases, total, start = adapter.bases, 0, 0
    for place, unit in enumerate(bases.units):
        centred = contributions[:, unit] - bases.means[place]
        for index, component in enumerate(bases.components[place]):
            score = centred @ component
            if index < adapter.ranks[place]:
                total = total + adapter.lambdas[start + index].double() * score[:, None] * component
        kept = bases.components[place][: adapter.ranks[place]]
        if adapter.tail == "keep":
            total = total + centred - centred @ kept.T @ kept
        start += adapter.ranks[place]
    for unit in range(contributions.shape[1]):
        if unit not in bases.units and adapter.others == "keep":
            total = total + contributions[:, unit]
        if unit not in bases.units and adapter.others == "mean":
            total = total + bases.all_means[unit]
    return total


def test_forward_and_scores_follow_the_definition(store):
    contributions = store.contributions()
    generator = torch.Generator().manual_seed(0)
    pull = torch.randn(len(store), 12, generator=generator, dtype=torch.float64)
    for kinds in (("head",), ("mlp", "head"), ("emb", "mlp", "head")):
        bases = fit_bases(store, kinds)
        for rank in (None, 1, 0.9, [1 + unit % 3 for unit in bases.units]):
            for others in ("keep", "mean", "zero"):
                for tail in ("drop", "keep"):
                    adapter = ResiDual(bases, rank=rank, others=others, tail=tail, seed=3)
                    scores = compute_scores(adapter, store, batch_size=25)
                    expected = definition(adapter, contributions)
                    ways = (adapter(contributions), scores.output(adapter.lambdas.double()))
                    (full,) = torch.autograd.grad((expected * pull).sum(), adapter.lambdas)
                    for output in ways:
                        torch.testing.assert_close(output, expected)
                        (own,) = torch.autograd.grad((output * pull).sum(), adapter.lambdas)
                        torch.testing.assert_close(own, full)


def test_ones_on_a_full_basis_is_the_identity_up_to_the_means(store, bases):
    for kinds in (("head",), ("emb", "mlp", "head")):
        whole = fit_bases(store, kinds)
        adapter = ResiDual(whole, init="ones")
        torch.testing.assert_close(adapter(store.contributions()), store.output() - whole.means.sum(0))
    cut = ResiDual(bases, rank=2, tail="keep", init="ones")
    torch.testing.assert_close(cut(store.contributions()), store.output() - bases.means.sum(0))


def test_kept_means_make_ones_the_encoder_itself(store, bases):
    for basis, others in ((bases, "keep"), (fit_bases(store, ("emb", "mlp", "head")), "zero")):
        adapter = ResiDual(basis, init="ones", mean="keep", others=others)
        torch.testing.assert_close(adapter(store.contributions()), store.output())
    drawn = ResiDual(bases, rank=1, mean="keep", others="mean", tail="keep")
    expected = drawn(store.contributions())
    torch.testing.assert_close(compute_scores(drawn, store).output(drawn.lambdas.double()), expected)
    dropped = ResiDual(bases, rank=1, mean="drop", others="mean", tail="keep")
    torch.testing.assert_close(
        expected - dropped(store.contributions()), bases.means.sum(0).expand_as(expected)
    )


def test_scores_in_float32(store):
    single = encode_dataset(tiny_encoder(dtype=torch.float32), TinyImages(n=60))
    adapter = ResiDual(fit_bases(single, ("mlp", "head")))
    scores = compute_scores(adapter, single)
    assert scores.scores.dtype == scores.directions.dtype == scores.rest.dtype == torch.float32
    torch.testing.assert_close(
        scores.output(adapter.lambdas), adapter(single.contributions()), rtol=1e-4, atol=1e-4
    )


def test_the_two_named_methods(store, bases):
    heads = fit_bases(store)
    star, full = ResiDualStar(heads), ResiDual(bases)
    assert (star.others, star.tail, full.others) == ("zero", "drop", "keep")
    for ranks, values in zip(star.ranks, heads.eigenvalues, strict=True):
        running = (values / values.sum()).cumsum(0)
        assert running[ranks - 1] > 0.9
        assert ranks == 1 or running[ranks - 2] <= 0.9
    assert len(full.lambdas) == sum(bases.ranks)
    assert "zero" in repr(star)


@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.floats(0.01, 10), min_size=1, max_size=8), ratio=st.floats(0.01, 0.99))
def test_rank_of_explained_variance(values, ratio):
    values = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    k = len(values)
    bases = SpectralBases([0], torch.zeros(1, k), [torch.eye(k)], [values])
    (rank,) = ResiDual(bases, rank=ratio).ranks
    running = values.cumsum(0) / values.sum()
    expected = next((index + 1 for index in range(k) if running[index] > ratio), k)
    assert rank == expected


def test_exactly_at_the_ratio_the_next_component_is_kept_too():
    bases = SpectralBases([0], torch.zeros(1, 4), [torch.eye(4)], [torch.tensor([4.0, 2.0, 1.0, 1.0])])
    assert ResiDual(bases, rank=0.5).ranks == (2,)
    assert ResiDual(bases, rank=0.75).ranks == (3,)
    assert ResiDual(bases, rank=0.49).ranks == (1,)


def test_initial_weights(bases):
    count = sum(bases.ranks)
    drawn = ResiDual(bases, seed=1).lambdas
    assert torch.equal(drawn, ResiDual(bases, seed=1).lambdas)
    assert not torch.equal(drawn, ResiDual(bases, seed=2).lambdas)
    assert drawn.mean().item() == pytest.approx(1, abs=0.3)
    assert drawn.std().item() == pytest.approx(1, abs=0.3)
    given_weights = torch.arange(count).float()
    assert torch.equal(ResiDual(bases, init=given_weights).lambdas, given_weights)
    ratios = ResiDual(bases, init="eigenvalues")
    assert ratios.lambdas_of(5).sum().item() == pytest.approx(1)
    assert (ResiDual(bases, init="ones").lambdas == 1).all()
    assert [name for name, _ in ratios.named_parameters()] == ["lambdas"]


def test_state_survives_saving(bases, store, tmp_path):
    from safetensors.torch import load_file, save_file

    adapter = ResiDual(bases, seed=4)
    save_file(adapter.state_dict(), tmp_path / "adapter.safetensors")
    other = ResiDual(bases, init="ones")
    other.load_state_dict(load_file(tmp_path / "adapter.safetensors"))
    contributions = store.contributions()
    torch.testing.assert_close(other(contributions), adapter(contributions), rtol=0, atol=0)


def test_bad_settings_are_refused(bases):
    for change, message in (
        ({"rank": 0}, "Unit 1 has 12 components: a rank of 0"),
        ({"rank": 13}, "Unit 1 has 12 components: a rank of 13"),
        ({"rank": -1}, "a rank of -1"),
        ({"rank": [1] * 14 + [0]}, "Unit 15 has 10 components: a rank of 0"),
        ({"rank": [1, 2]}, "or 15 ints; got"),
        ({"rank": True}, "or 15 ints; got True"),
        ({"rank": 1.0}, r"lies in \(0, 1\), got 1.0"),
        ({"rank": 0.0}, r"lies in \(0, 1\), got 0.0"),
        ({"others": "drop"}, "others is 'keep' or 'mean' or 'zero', got 'drop'"),
        ({"tail": "zero"}, "tail is 'drop' or 'keep', got 'zero'"),
        ({"init": "zeros"}, "init is 'randn' or 'ones' or 'eigenvalues' or a tensor, got 'zeros'"),
        ({"init": torch.ones(3)}, r"needs \d+ finite numbers, got shape \(3,\)"),
    ):
        with pytest.raises(ResidualError, match=message):
            ResiDual(bases, **change)


def test_what_does_not_belong_together_is_refused(store, bases):
    adapter = ResiDual(bases)
    with pytest.raises(ResidualError, match="bases are of width 12, the contributions of width 5"):
        adapter(torch.zeros(2, 16, 5))
    with pytest.raises(ResidualError, match="an encoder with 16 units, got 20"):
        adapter(torch.zeros(2, 20, 12))
    by_hand = SpectralBases([7], torch.zeros(1, 12), [torch.eye(12)], [torch.ones(12)])
    with pytest.raises(ResidualError, match="an encoder with at least 8 units, got 7"):
        ResiDual(by_hand)(torch.zeros(2, 7, 12))
    with pytest.raises(ResidualError, match="needs the means of the units without a basis"):
        ResiDual(by_hand, others="mean")
    other = encode_dataset(tiny_encoder(seed=1), TinyImages(n=4))
    with pytest.raises(ResidualError, match=r"The bases are of tiny \(weights .*the store of tiny"):
        compute_scores(adapter, other)
    own = encode_dataset(tiny_encoder(centering="own"), TinyImages(n=4))
    with pytest.raises(ResidualError, match=r"centering 'shared'\), the store .*centering 'own'"):
        compute_scores(adapter, own)


def test_coarse_is_the_weighted_sum_of_centred_units(stores):
    store, other = stores
    bases = fit_bases(store)
    coarse = Coarse(bases, seed=3)
    assert coarse.lambdas.shape == (len(bases.units),)
    for some in (store, other):
        contributions = some.contributions()
        centred = contributions[:, list(bases.units)] - bases.means.to(contributions)
        wanted = (centred * coarse.lambdas.detach().to(centred)[:, None]).sum(1)
        torch.testing.assert_close(coarse(contributions), wanted, atol=1e-6, rtol=1e-5)
        scores = compute_scores(coarse, some)
        torch.testing.assert_close(scores.output(coarse.expand(coarse.lambdas).to(scores.scores)), wanted)
    unit = bases.units[4]
    assert set(coarse.lambdas_of(unit).tolist()) == {coarse.lambdas[4].item()}


def test_the_unit_that_the_classes_are_of_gets_the_weight(stores):
    store = stores[0]
    bases = fit_bases(store)
    planted = 7
    own = store.contributions(units=[bases.units[planted]])[:, 0] - bases.means[planted]
    classifier = ZeroShotClassifier.from_class_means(own, store.labels, store.class_names, scale=10.0)
    coarse = Coarse(bases, init="ones")
    before = evaluate(coarse, store, classifier)
    fit(coarse, *stores, classifier, FitSettings(epochs=40, patience=40))
    assert evaluate(coarse, store, classifier) > before


def test_where_coarse_starts(stores):
    bases = fit_bases(stores[0])
    count = len(bases.units)
    assert Coarse(bases, "ones").lambdas.tolist() == [1.0] * count
    assert not torch.equal(Coarse(bases, seed=1).lambdas, Coarse(bases, seed=2).lambdas)
    own = torch.arange(count).double()
    torch.testing.assert_close(Coarse(bases, own).lambdas.detach(), own.float())
    with pytest.raises(ResidualError, match=f"needs {count} finite numbers"):
        Coarse(bases, torch.ones(count + 1))
    with pytest.raises(ResidualError, match="init of Coarse is 'randn', 'ones' or a tensor, got 'zeros'"):
        Coarse(bases, "zeros")
