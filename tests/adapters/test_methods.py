"""Methods by name: what each is made of with every choice, and which choices it can't have."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyImages, tiny_encoder

from residual.adapters import Coarse, LinearMap, ResiDual, ResiDualStar, SpectralMap
from residual.adapters.methods import (
    ADAPTERS,
    FINE_TUNING,
    METHODS,
    AdapterSettings,
    Reference,
    make_adapter,
)
from residual.errors import ResidualError
from residual.report.accuracies import _LOOKS
from residual.report.tables import METHOD_NAMES
from residual.spectral import fit_bases
from residual.spectral.fit import fit_output
from residual.store.base import MemoryStore
from residual.store.encode import encode_dataset

HEADS, MLPS = tuple(range(4, 16)), (1, 2, 3)
DRAWN = ("coarse", "residual_star", "residual")
REWEIGHTED = ("spectral", "coarse", "residual_star", "residual")


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return encode_dataset(tiny_encoder(dtype=torch.float32), TinyImages(60, broken=(7,)), on_error="skip")


@pytest.fixture(scope="module")
def reference(store) -> Reference:
    return Reference.of(store)


def test_every_method_has_its_class(reference):
    made = {method: make_adapter(method, reference) for method in ADAPTERS}
    kinds = {"linear": LinearMap, "spectral": SpectralMap, "coarse": Coarse, "residual_star": ResiDualStar}
    for method, adapter in made.items():
        assert type(adapter) is kinds.get(method, ResiDual)
        assert adapter.origin == reference.bases.origin
        assert adapter.dim == 12
    assert {method for method, adapter in made.items() if adapter.of_units} == set(DRAWN)


def test_every_method_has_a_name_and_a_look():
    assert (*ADAPTERS, FINE_TUNING) == tuple(METHODS)
    assert tuple(METHOD_NAMES) == tuple(_LOOKS) == ("zero_shot", *METHODS)


def test_a_reference_is_of_all_heads_and_mlps(reference, store):
    assert reference.heads == HEADS
    assert reference.bases.units == (*MLPS, *HEADS)
    assert reference.skipped == ("tiny/7",)
    bases, output = fit_bases(store, ("mlp", "head")), fit_output(store)
    for ours, wanted in zip(reference.bases.components, bases.components, strict=True):
        assert torch.equal(ours, wanted)
    assert reference.output is not None
    assert torch.equal(reference.output.components, output.components)
    assert reference.bases.origin.datasets == ("tiny/train",)


def test_by_default_they_are_the_papers(reference):
    bases = reference.bases
    linear = make_adapter("linear", reference)
    assert torch.equal(linear.weights, torch.eye(12))
    spectral = make_adapter("spectral", reference)
    assert spectral.ranks == (12,)
    coarse = make_adapter("coarse", reference)
    assert (coarse.units, coarse.weights.numel(), coarse.l1, coarse.others) == (HEADS, 12, 0.0, "zero")
    star = make_adapter("residual_star", reference)
    assert (star.units, star.others) == (HEADS, "zero")
    assert star.ranks == ResiDual(bases.select(HEADS), 0.9).ranks
    assert sum(star.ranks) < sum(coarse.ranks)
    residual = make_adapter("residual", reference)
    assert (residual.units, residual.others) == ((*MLPS, *HEADS), "keep")
    assert residual.ranks == bases.ranks
    for adapter in (spectral, coarse, star, residual):
        assert (adapter.tail, adapter.mean) == ("drop", "drop")


@pytest.mark.parametrize("method", REWEIGHTED)
def test_the_first_weights_follow_the_seed(reference, method):
    first, again, other = (make_adapter(method, reference, seed=seed).weights for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    wanted = 1 + torch.randn(first.numel(), generator=torch.Generator().manual_seed(3))
    assert torch.equal(first.detach(), wanted)


@pytest.mark.parametrize("method", REWEIGHTED)
def test_first_weights_of_ones(reference, method):
    weights = make_adapter(method, reference, AdapterSettings(init="ones")).weights
    assert torch.equal(weights, torch.ones_like(weights))


@pytest.mark.parametrize("method", ["spectral", "residual_star", "residual"])
def test_first_weights_of_eigenvalues(reference, method):
    adapter = make_adapter(method, reference, AdapterSettings(init="eigenvalues"))
    values = [reference.output.eigenvalues] if method == "spectral" else adapter.bases.eigenvalues
    wanted = [(each / each.sum())[:rank] for each, rank in zip(values, adapter.ranks, strict=True)]
    torch.testing.assert_close(adapter.weights.detach(), torch.cat(wanted).float())


@pytest.mark.parametrize("method", ["spectral", "residual_star", "residual"])
@pytest.mark.parametrize("rank", ["all", 2, 0.5])
def test_ranks(reference, method, rank):
    adapter = make_adapter(method, reference, AdapterSettings(rank=rank))
    of = {"spectral": None, "residual_star": HEADS, "residual": (*MLPS, *HEADS)}[method]
    most = (12,) if of is None else reference.bases.select(of).ranks
    if rank == "all":
        assert adapter.ranks == most
    elif rank == 2:
        assert adapter.ranks == (2,) * len(most)
    else:
        assert all(1 <= few < k for few, k in zip(adapter.ranks, most, strict=True))


@pytest.mark.parametrize("method", ["spectral", "residual_star", "residual"])
@pytest.mark.parametrize("tail", ["drop", "keep"])
@pytest.mark.parametrize("mean", ["drop", "keep"])
def test_tails_and_means(reference, method, tail, mean):
    adapter = make_adapter(method, reference, AdapterSettings(rank=2, tail=tail, mean=mean))
    assert (adapter.tail, adapter.mean) == (tail, mean)


@pytest.mark.parametrize("method", ["residual_star", "residual"])
@pytest.mark.parametrize("others", ["keep", "mean", "zero"])
def test_others(reference, method, others):
    assert make_adapter(method, reference, AdapterSettings(others=others)).others == others


def test_the_penalty_is_of_coarse_alone(reference):
    settings = AdapterSettings(l1=0.25, init="ones")
    coarse = make_adapter("coarse", reference, settings)
    assert coarse.penalty(coarse.weights[None]).tolist() == [0.25 * 12]
    residual = make_adapter("residual", reference, settings)
    assert residual.penalty(residual.weights[None]) == 0


def test_a_linear_map_has_no_choices(reference):
    settings = AdapterSettings(rank=2, tail="keep", mean="keep", init="ones", others="zero", l1=1)
    assert torch.equal(make_adapter("linear", reference, settings, seed=5).weights, torch.eye(12))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("residul", r"Unknown method 'residul'\. Did you mean 'residual' or 'residual_star'\?"),
        ("lora", "Unknown method 'lora'.*coarse"),
        ("fine_tuning", "Unknown method 'fine_tuning'"),
        ("", r"Unknown method ''\. Known: coarse, linear, residual, residual_star, spectral\."),
    ],
)
def test_unknown_methods(reference, method, message):
    with pytest.raises(ResidualError, match=message):
        make_adapter(method, reference)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"rank": "al"}, r"rank is \"all\", an int from 1 on or a float in \(0, 1\), got 'al'"),
        ({"rank": 0}, r"rank is \"all\", an int from 1 on or .* got 0"),
        ({"rank": 1.0}, r"a float in \(0, 1\), got 1.0"),
        ({"rank": float("nan")}, r"a float in \(0, 1\), got nan"),
        ({"rank": True}, r"rank is \"all\", an int from 1 on or .* got True"),
        ({"others": "drop"}, "others is 'keep' or 'mean' or 'zero', got 'drop'"),
        ({"tail": "zero"}, "tail is 'drop' or 'keep', got 'zero'"),
        ({"mean": "zero"}, "mean is 'drop' or 'keep', got 'zero'"),
        ({"init": "zeros"}, "init is 'randn' or 'ones' or 'eigenvalues', got 'zeros'"),
        ({"l1": -1}, "l1 must be 0 or more, got -1"),
        ({"l1": float("inf")}, "l1 must be 0 or more, got inf"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_choices_that_no_method_has(how, message):
    with pytest.raises(ResidualError, match=message):
        AdapterSettings(**how)


def test_choices_that_one_method_does_not_have(reference):
    with pytest.raises(
        ResidualError, match="init of Coarse is 'randn', 'ones' or a tensor, got 'eigenvalues"
    ):
        make_adapter("coarse", reference, AdapterSettings(init="eigenvalues"))
    with pytest.raises(ResidualError, match="has 10 components: a rank of 12 isn't between 1 and that"):
        make_adapter("residual_star", reference, AdapterSettings(rank=12))


def test_a_file_of_bases_has_no_components_of_the_output(reference):
    from_file = Reference(reference.bases, None, reference.heads)
    for method in ("linear", "coarse", "residual_star", "residual"):
        assert (
            make_adapter(method, from_file).weights.numel() == make_adapter(method, reference).weights.numel()
        )
    with pytest.raises(ResidualError, match="needs components of the output, which a file of bases doesn't"):
        make_adapter("spectral", from_file)
