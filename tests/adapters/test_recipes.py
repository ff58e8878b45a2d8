"""What a recipe sets, and that the gentle one starts at the encoder itself, by every method that has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kit import residual_of, tiny
from tiny import TinyImages, tiny_encoder

from residual import encode_dataset
from residual.adapters import (
    AdapterSettings,
    FitSettings,
    Reference,
    adapted_output,
    compute_scores,
    fit,
    fitting,
    make_adapter,
)
from residual.adapters.methods import ADAPTERS
from residual.errors import ResidualError
from residual.text import ZeroShotClassifier


@pytest.mark.parametrize("method", [name for name, each in ADAPTERS.items() if not each.released])
def test_the_gentle_one_starts_at_the_encoder(method):
    store, few = (encode_dataset(tiny_encoder(), TinyImages(n, seed=n)) for n in (60, 20))
    how = fitting(method, fit={"epochs": 2, "learning_rate": 1e-12})
    adapter = make_adapter(method, Reference.of(few), how.adapter, 0)  # pictures reach beyond its components
    scores = compute_scores(adapter, store)
    output = adapted_output(adapter, scores)
    assert output.dtype == torch.float64
    torch.testing.assert_close(output, store.output(), rtol=1e-12, atol=1e-12)
    classifier = ZeroShotClassifier.from_class_means(store.output(), store.labels, store.class_names)
    first = adapter.weights.detach().clone()
    result = fit(adapter, scores, scores, classifier, how.fits[0])
    assert result.start.val_accuracy == classifier.accuracy(store.output(), store.labels)
    torch.testing.assert_close(adapter.weights.detach(), first, rtol=0, atol=1e-6)


def test_decays_are_those_that_were_chosen():
    file = Path(__file__).parents[2] / "benchmarks/results/harm.json"
    chosen = json.loads(file.read_text(encoding="utf-8"))["report"]["chosen"]
    assert {method: ADAPTERS[method].decay for method in chosen} == chosen


def test_what_is_given_wins_and_published_methods_have_one_recipe():
    how = fitting("residual", "gentle", (3, 4), {"mean": "drop", "rank": 5}, {"or_start": False})
    assert how.recipe == "gentle"
    assert how.adapter == AdapterSettings(rank=5, init="ones", others="keep", tail="keep")
    assert how.but == {"AdapterSettings.mean": "drop", "FitSettings.or_start": False}
    assert how.fits == tuple(FitSettings(seed=seed, decay_towards="start") for seed in (3, 4))
    assert fitting("residual", "paper", (2,)).fits == (FitSettings(seed=2),)
    released = fitting("coarse_released", "gentle", fit={"epochs": 2})
    assert (released.recipe, released.adapter) == ("paper", AdapterSettings())
    assert released.fits == (FitSettings(epochs=2),)
    searched = fitting("residual", fit={"optimizer": "lbfgs"}).fits[0]  # which decays nowhere
    plain, gentle = FitSettings(), fitting("residual").fits[0]
    residual = residual_of(tiny())
    assert fitting("residual", fit={"optimizer": "lbfgs"}).but == {"FitSettings.optimizer": "lbfgs"}
    assert not fitting("residual", "paper", adapter={"mean": "keep"}).but
    assert [each.decay_of(residual) for each in (searched, plain, gentle)] == [0, 0, residual.decay]
    assert FitSettings(weight_decay=0.5).decay_of(residual) == 0.5
    # of n samples 1000 / n of it, at most back to the start in one step; towards zero each step has it all
    anchored = FitSettings(weight_decay=0.5, decay_towards="start", learning_rate=0.8)
    assert [anchored.pull_of(residual, n) for n in (4000, 1000, 10)] == [0.125, 0.5, 1.25]
    assert FitSettings(weight_decay=0.5).pull_of(residual, 4000) == 0.5
    for words, message in (
        (("lora",), "Unknown method 'lora'"),
        (("residual", "kind"), "Unknown recipe 'kind'. Did you mean|Unknown recipe 'kind'"),
    ):
        with pytest.raises(ResidualError, match=message):
            fitting(*words)
