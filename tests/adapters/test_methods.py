"""Methods by name: what each is made of with every choice, which it can't have, and how one is added."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from kit import tiny
from tiny import TinyImages, random_pixels, tiny_encoder

from residual import AdaptedEncoder, encode_dataset, fit
from residual.adapters import AdapterSettings, FitSettings, Reference, ResiDual, evaluate, make_adapter
from residual.adapters.methods import ADAPTERS, FINE_TUNING, METHODS, Edited, kept_method
from residual.errors import ResidualError
from residual.report.accuracies import _LOOKS
from residual.report.tables import METHOD_NAMES
from residual.spectral import fit_bases
from residual.spectral.fit import fit_output
from residual.text import ZeroShotClassifier

HEADS, MLPS = tuple(range(4, 16)), (1, 2, 3)
REWEIGHTED = ("spectral", "coarse", "residual_star", "residual")
RANKED = ("spectral", "residual_star", "residual")


@pytest.fixture(scope="module")
def store():
    encoder = tiny_encoder(dtype=torch.float32)
    return encode_dataset(encoder, TinyImages(60, broken=(7,)), on_error="skip")


@pytest.fixture(scope="module")
def reference(store) -> Reference:
    return Reference.of(store)


def test_every_method_is_told_of_everywhere(reference):
    assert {"linear", *REWEIGHTED, "fine_tuning"} <= set(METHODS)
    assert (*ADAPTERS, FINE_TUNING) == tuple(METHODS)
    assert tuple(METHOD_NAMES) == tuple(_LOOKS) == ("zero_shot", *METHODS)
    assert len(set(METHOD_NAMES.values())) == len(set(_LOOKS.values())) == len(METHODS) + 1
    for name, method in METHODS.items():
        assert method.method == name
        assert "1,234" in method.trained.format(1234)
    for name, kind in ADAPTERS.items():
        adapter = make_adapter(name, reference)
        assert type(adapter) is kind
        assert (adapter.origin, adapter.dim) == (reference.bases.origin, 12)
        assert adapter.of_units == bool(adapter.unit_weights())
        for init in kind.inits:
            make_adapter(name, reference, AdapterSettings(init=init))
    assert Edited.method not in METHOD_NAMES  # a folder may be of it, and nothing is fitted or compared
    assert [kept_method(name) for name in (*METHODS, "edited", "lora")] == [*METHODS.values(), Edited, None]


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
    assert torch.equal(make_adapter("linear", reference).weights, torch.eye(12))
    rates = [ADAPTERS[name].learning_rate for name in ("linear", *REWEIGHTED)]
    assert rates == [1e-3, 1e-3, 0.8, 0.8, 0.8]
    spectral, coarse, star, residual = (make_adapter(name, reference) for name in REWEIGHTED)
    assert spectral.ranks == (12,)
    assert (coarse.units, coarse.weights.numel(), coarse.l1, coarse.others) == (HEADS, 12, 0.0, "zero")
    assert (star.units, star.others) == (HEADS, "zero")
    assert star.ranks == ResiDual(bases.select(HEADS), 0.9).ranks
    assert sum(star.ranks) < sum(coarse.ranks)
    assert (residual.units, residual.others) == ((*MLPS, *HEADS), "keep")
    assert residual.ranks == bases.ranks
    for adapter in (spectral, coarse, star, residual):
        assert (adapter.tail, adapter.mean) == ("drop", "drop")


def test_first_weights(reference):
    for method in REWEIGHTED:
        first, again, other = (make_adapter(method, reference, seed=seed).weights for seed in (3, 3, 4))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        wanted = 1 + torch.randn(first.numel(), generator=torch.Generator().manual_seed(3))
        assert torch.equal(first.detach(), wanted)
        ones = make_adapter(method, reference, AdapterSettings(init="ones")).weights
        assert torch.equal(ones, torch.ones_like(ones))
    for method in RANKED:
        adapter = make_adapter(method, reference, AdapterSettings(init="eigenvalues"))
        values = [reference.output.eigenvalues] if method == "spectral" else adapter.bases.eigenvalues
        wanted = [(each / each.sum())[:rank] for each, rank in zip(values, adapter.ranks, strict=True)]
        torch.testing.assert_close(adapter.weights.detach(), torch.cat(wanted).float())


def test_every_choice_reaches_the_adapter(reference):
    most = {
        "spectral": (12,),
        "residual_star": reference.bases.select(HEADS).ranks,
        "residual": reference.bases.ranks,
    }
    for method in RANKED:
        full, two, half = (
            make_adapter(method, reference, AdapterSettings(rank=rank)).ranks for rank in ("all", 2, 0.5)
        )
        assert (full, two) == (most[method], (2,) * len(full))
        assert all(1 <= few < k for few, k in zip(half, full, strict=True))
        for tail in ("drop", "keep"):
            for mean in ("drop", "keep"):
                adapter = make_adapter(method, reference, AdapterSettings(rank=2, tail=tail, mean=mean))
                assert (adapter.tail, adapter.mean) == (tail, mean)
    for method in ("residual_star", "residual"):
        for others in ("keep", "mean", "zero"):
            assert make_adapter(method, reference, AdapterSettings(others=others)).others == others
    settings = AdapterSettings(l1=0.25, init="ones")
    coarse, residual = (make_adapter(name, reference, settings) for name in ("coarse", "residual"))
    assert coarse.penalty(coarse.weights[None]).tolist() == [0.25 * 12]
    assert residual.penalty(residual.weights[None]) == 0
    everything = AdapterSettings(rank=2, tail="keep", mean="keep", init="ones", others="zero", l1=1)
    assert torch.equal(make_adapter("linear", reference, everything, seed=5).weights, torch.eye(12))


def test_unknown_methods(reference):
    for method, message in (
        ("residul", r"Unknown method 'residul'\. Did you mean 'residual' or 'residual_star' or '"),
        ("lora", "Unknown method 'lora'.*coarse"),
        ("fine_tuning", "Unknown method 'fine_tuning'"),
        ("", r"Unknown method ''\. Known: coarse, coarse_released, linear, .*spectral_released\."),
    ):
        with pytest.raises(ResidualError, match=message):
            make_adapter(method, reference)


@pytest.mark.usefixtures("unchecked")
def test_choices_that_no_method_has():
    for name, value, message in (
        (
            "rank",
            "al",
            "takes 'all', a whole number, at least 1, a number above 0 and below 1, or None; got 'al'",
        ),
        ("rank", 0, "or None; got 0"),
        ("rank", 1.0, "or None; got 1.0"),
        ("rank", float("nan"), "or None; got nan"),
        ("rank", True, "or None; got True"),
        ("others", "drop", "others takes 'keep', 'mean' or 'zero', or None; got 'drop'"),
        ("tail", "zero", "tail takes 'drop' or 'keep'; got 'zero'"),
        ("mean", "zero", "mean takes 'drop' or 'keep'; got 'zero'"),
        ("init", "zeros", "init takes 'randn', 'ones' or 'eigenvalues'; got 'zeros'"),
        ("l1", -1, "l1 takes a number, at least 0; got -1"),
        ("l1", float("inf"), "l1 takes a number, at least 0; got inf"),
    ):
        with pytest.raises(ResidualError, match=message):
            AdapterSettings(**{name: value})


def test_choices_that_one_method_does_not_have(reference):
    with pytest.raises(ResidualError, match="init of Coarse is 'randn', 'ones' or a tensor, got 'eigenv"):
        make_adapter("coarse", reference, AdapterSettings(init="eigenvalues"))
    with pytest.raises(ResidualError, match="has 10 components: a rank of 12 isn't between 1 and that"):
        make_adapter("residual_star", reference, AdapterSettings(rank=12))
    from_file = Reference(reference.bases, None, reference.heads)
    for method in ("linear", "coarse", "residual_star", "residual"):
        own = make_adapter(method, from_file).weights.numel()
        assert own == make_adapter(method, reference).weights.numel()
    with pytest.raises(ResidualError, match="needs components of the output, which a file of bases doesn't"):
        make_adapter("spectral", from_file)


def test_the_guide_s_method_is_short_and_works(tmp_path, monkeypatch):
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = (each for each in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "OutputMap" in each)
    assert code.count("\n") < 80
    (tmp_path / "diagonal_method.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    from diagonal_method import DiagonalMap  # ty: ignore[unresolved-import]

    for listed in (METHODS, ADAPTERS):
        monkeypatch.setitem(listed, DiagonalMap.method, DiagonalMap)
    encoder, pixels = tiny(), random_pixels(5)
    train, val = (encode_dataset(encoder, TinyImages(60, seed=seed)) for seed in (1, 2))
    adapter = make_adapter("diagonal", Reference.of(train))
    torch.testing.assert_close(adapter(train.output()), train.output())
    classifier = ZeroShotClassifier.from_class_means(train.output(), train.labels, train.class_names)
    first = evaluate(adapter, train, classifier)
    fit(adapter, train, val, classifier, FitSettings(learning_rate=0.1))
    assert evaluate(adapter, train, classifier) >= first
    adapted = AdaptedEncoder(encoder, adapter, classifier)
    wanted = encoder.encode_image(pixels) * adapter.factors
    torch.testing.assert_close(adapted.encode_image(pixels), wanted)
    adapted.save_pretrained(tmp_path / "kept")
    loaded = AdaptedEncoder.from_pretrained(tmp_path / "kept", encoder)
    assert loaded.method == "diagonal"
    torch.testing.assert_close(loaded(pixels), adapted(pixels))
    assert f"Method: {DiagonalMap.about}." in (tmp_path / "kept/README.md").read_text(encoding="utf-8")
