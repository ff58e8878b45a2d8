"""Units turned in the explorer: sums against plain definitions, what is saved against what was seen."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TinyImages, tiny_encoder

from residual import AdaptedEncoder, ResiDual, encode_dataset, fit_bases
from residual.adapters import LinearMap
from residual.errors import ResidualError
from residual.heads import ablate
from residual.intervals import wilson
from residual.text import ZeroShotClassifier
from residual.workflows.evaluate import evaluate_encoder
from residual.workflows.exploration import Exploration, Sources, turning
from residual.workflows.exploration import parts as exploring
from residual.workflows.exploration.turned import confusion

PLAIN = {"off": ["mlp.1", "2.3"], "weights": {"0.1": 0.25, "emb": -1}}
EDITED = {**PLAIN, "lambdas": {"1.2": {"0": 3, "2": -1.5}, "0.1": {"1": 0}, "mlp.0": {"0": 0.5}}}


@pytest.fixture(scope="module")
def tiny():
    """A tiny encoder, its store with groups, and two adapters of it in folders: components, and a map."""
    encoder = tiny_encoder(3)
    store = encode_dataset(encoder, TinyImages(60, classes=5))
    groups = np.arange(60) % 3
    return encoder, replace(store, groups=groups, group_names=("sun", "rain", "snow"))


@pytest.fixture(scope="module")
def places(tiny, tmp_path_factory):
    encoder, store = tiny
    folder, random = tmp_path_factory.mktemp("adapters"), torch.Generator().manual_seed(5)
    classes = ZeroShotClassifier(
        torch.randn(5, 12, generator=random), store.class_names, fingerprint=store.fingerprint
    )
    bases = fit_bases(store, ("head", "mlp"))
    linear = LinearMap(12)
    linear.load_state_dict(
        {
            name: value + torch.randn(value.shape, generator=random)
            for name, value in linear.state_dict().items()
        }
    )
    found = []
    for name, adapter, classifier in (
        ("parts", ResiDual(bases, rank=3, seed=1), None),
        ("map", linear, classes),
    ):
        AdaptedEncoder(encoder, adapter, classifier).save_pretrained(folder / name)
        found.append(str(folder / name))
    return found


@pytest.fixture(scope="module")
def turned(tiny, places):
    encoder, store = tiny
    return Exploration(Sources((), places), [store], encoder)


def by_definition(exploration: Exploration, state: dict) -> torch.Tensor:
    """The output, from contributions one by one, in float64."""
    store, bases = exploration.parts.store, exploration.parts.bases
    key, units = state.get("adapter"), store.linearization.units
    linearization = store.linearization
    if key:
        linearization = exploration.parts.adapter(key).adapter.adapted(linearization)
    c = linearization.contributions(store.coordinates.to(dtype=torch.float64))
    means = c.mean(0)
    weights = {**state.get("weights", {}), **dict.fromkeys(state.get("off", ()), 0)}
    total = torch.zeros(len(store), c.shape[2], dtype=torch.float64)
    for unit in range(len(units)):
        name, own = units.name(unit), c[:, unit].clone()
        for k, value in state.get("lambdas", {}).get(name, {}).items():
            phi = bases[name].components[0][int(k)]
            own += (value - 1) * ((c[:, unit] - means[unit]) @ phi)[:, None] * phi
        w = weights.get(name, 1)
        total += w * own + ((1 - w) * means[unit] if state.get("mode") == "mean" else 0)
    return total


@pytest.mark.parametrize("adapter", [None, "parts", "map"])
def test_sums_are_those_of_contributions_whatever_was_turned_before(turned, adapter):
    classifier = turned.turning.base(adapter).classifier
    random, names = np.random.default_rng(2), [turned.parts.units.name(unit) for unit in range(16)]
    states = [PLAIN, EDITED, {**EDITED, "mode": "mean"}, {"off": names, "mode": "mean"}, {}]
    for step in range(80):  # a drag: more steps than differences are taken of
        drag = {"lambdas": {"1.2": {"0": 0.05 * step, "1": 2.0}}, "off": [names[step // 20]]}
        states.append(drag)
    states += [{"weights": {name: random.normal() for name in random.choice(names, 6)}} for _ in range(3)]
    for number, state in enumerate(states):
        state = {**state, "adapter": adapter}
        sums = turned.turning.sums(turned.state(state)).clone()
        if number % 20 < 6 or number > 80:
            expected = by_definition(turned, state)
            assert torch.allclose(
                sums, expected @ classifier.weights.double().T, atol=2e-4 * sums.abs().max()
            )
            some = turned.turning.outputs(turned.state(state), [7, 2, 7])
            assert torch.allclose(some, expected[[7, 2, 7]], atol=1e-5 * expected.abs().max())


def test_it_is_what_ablate_and_residual_give(turned):
    store, units = turned.parts.store, turned.parts.units
    c, names = store.contributions().double(), ["mlp.1", "0.3", "2.0"]
    kept = [unit for unit in range(len(units)) if units.name(unit) not in names]
    for mode in ("zero", "mean"):
        state = turned.state({"off": names, "mode": mode})
        assert torch.allclose(
            turned.turning.outputs(state, list(range(60))), ablate(c, kept, mode), atol=1e-4
        )
    bases = fit_bases(store).select(["1.2"])
    lambdas = torch.ones(bases.ranks[0])
    lambdas[:3] = torch.tensor([3.0, 0.0, -2.0])
    adapter = ResiDual(bases, tail="keep", mean="keep", init=lambdas)
    state = turned.state({"lambdas": {"1.2": {"0": 3, "1": 0.0, "2": -2}}})
    assert torch.allclose(turned.turning.outputs(state, list(range(60))), adapter(c).double(), atol=1e-4)


def test_a_large_store_is_read_in_blocks_or_not_turned(tiny, monkeypatch):
    encoder, store = tiny
    small, large = (Exploration(Sources(()), [store], encoder) for _ in range(2))
    large.parts._features.most = 0
    monkeypatch.setattr(exploring, "_ROWS", 7)
    for found in (small, large):
        found.turn(PLAIN)
    plain, told = (found.turn({**EDITED, "pictures": [3, 59]}) for found in (small, large))
    assert {**told, "milliseconds": 0} == {**plain, "milliseconds": 0}
    how = {"order": "near", "unit": "mlp.1", "position": 59}
    assert large.pictures(**how) == small.pictures(**how)
    assert large.unit("1.2") == small.unit("1.2")
    monkeypatch.setattr(turning, "_LARGEST", 299)
    about = Exploration(Sources(()), [store], encoder).about()
    assert "60 samples, 5 classes and 0 adapters are more than the 299" in about["can"]["turn"]
    assert about["scores"][0]["key"] == "accuracy"


def test_an_answer_counts_what_it_says(turned):
    store = turned.parts.store
    told = turned.turn({**EDITED, "pictures": [5, 9]})
    output, classifier = by_definition(turned, EDITED), turned.parts.classifier
    found, labels = classifier.answers(output).numpy(), store.labels
    plain = classifier.answers(store.output()).numpy()
    right = found == labels
    assert told["accuracy"] == right.mean()
    assert told["before"] == (plain == labels).mean()
    assert told["interval"] == [*wilson(int(right.sum()), 60)[1:]]
    shares = [right[store.groups == group].mean() for group in range(3)]
    worst = {"name": store.group_names[int(np.argmin(shares))], "accuracy": min(shares)}
    assert told["worst_group"] == worst
    assert told["per_class"] == [right[labels == k].mean() if (labels == k).any() else None for k in range(5)]
    assert told["confusion"]["classes"] == list(range(5))
    assert np.array(told["confusion"]["counts"])[2, 1] == ((labels == 2) & (found == 1)).sum()
    assert np.sum(told["confusion"]["counts"]) == 60
    assert told["changed_pictures"] == np.flatnonzero(found != plain)[:48].tolist()
    assert told["changed"] == (found != plain).sum() > 0
    likely = classifier.logits(output).softmax(1)
    for place, picture in zip((5, 9), told["predictions"], strict=True):
        assert picture["position"] == place
        assert picture["was"] == plain[place]
        values, classes = likely[place].topk(3)
        assert [guess["class"] for guess in picture["now"]] == classes.tolist()
        assert [guess["probability"] for guess in picture["now"]] == pytest.approx(values.tolist(), abs=1e-4)
    labels, found = np.arange(100) % 50, np.arange(100) % 50
    found[labels == 49] = 3
    shown = confusion(labels, found, 50)
    assert len(shown["classes"]) == 40
    assert shown["counts"][39][3] == 2
    assert shown["classes"][39] == 49


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({"off": ["9.9"]}, "no head 9.9"),
        ({"off": "0.1"}, "list of units"),
        ({"weights": {"0.1": "much"}}, "weight of 0.1 is a number"),
        ({"weights": {"0.1": float("nan")}}, "weight of 0.1 is a number"),
        ({"lambdas": {"0.1": {"99": 2}}}, "Components of 0.1 are 0 to"),
        ({"lambdas": {"0.1": {"-1": 2}}}, "whole numbers from 0"),
        ({"adapter": "mine"}, "Unknown adapter 'mine'"),
        ({"mode": "median"}, "mode"),
        ({"pictures": [60]}, "positions from 0 to 59"),
    ],
)
def test_what_cannot_be_turned_is_named(turned, state, match):
    half = {
        **state,
        "weights": {"0.0": 0.5, **state.get("weights", {})},
    }  # nothing of it stays
    with pytest.raises(ResidualError, match=match):
        turned.turn(half)
    assert turned.turn({})["changed"] == 0


def test_a_folder_that_is_saved_gives_the_same_answers(turned, tiny, places, tmp_path):
    encoder, store = tiny
    pixels = encoder.pixels(TinyImages(60, classes=5).load(place) for place in range(60))
    for number, state in enumerate(({**EDITED, "mode": "mean"}, {**EDITED, "adapter": "map"})):
        kind, content, name = turned.save({**state, "as": "adapter"})
        assert (kind, name) == ("application/zip", "adapter.zip")
        zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path / str(number))
        adapted = AdaptedEncoder.from_pretrained(tmp_path / str(number) / "adapter", encoder)
        assert torch.allclose(adapted.encode_image(pixels), by_definition(turned, state), atol=1e-4)
        evaluated = evaluate_encoder(adapted, TinyImages(60, classes=5))
        assert torch.equal(evaluated.logits.argmax(1), turned.answers(state))
        assert evaluated.summary["accuracy"]["edited"] == turned.turn(state)["accuracy"]
        again = Exploration(Sources((), [str(tmp_path / str(number) / "adapter")]), [store], encoder)
        assert again.turn({"adapter": "adapter"})["accuracy"] == turned.turn(state)["accuracy"]
    assert "edited by hand" in (tmp_path / "0/adapter/README.md").read_text()
    held = json.loads(turned.save(EDITED)[1])
    assert held["mask"]["lambdas"]["0.1"] == {"1": 0}
    assert held["mask"]["off"] == ["mlp.1", "2.3"]
