"""Descriptions of heads against plain definitions; what was planted is told; bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from families import CASES
from plain import plain_rank, plain_spectrum
from tiny import TinyImages, tiny_encoder

from residual import encode_dataset, fit_bases, load_dataset, load_encoder, wrap_encoder
from residual.errors import ResidualError
from residual.heads import DescribeSettings, describe_heads, score_units
from residual.heads.by_name import parse_heads
from residual.heads.descriptions import TASKS
from residual.spectral import SpectralBases
from residual.text import TextDictionary, ZeroShotClassifier, somp

N = 40


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_classifier(store) -> ZeroShotClassifier:
    rows = torch.randn(len(store.class_names), store.linearization.output_dim, generator=seeded(3))
    return ZeroShotClassifier(rows, store.class_names)


def random_texts(width: int, entries: int = 30) -> TextDictionary:
    return TextDictionary(
        [f"text {k}" for k in range(entries)], torch.randn(entries, width, generator=seeded(1))
    )


@pytest.fixture(scope="module", params=["tiny", "siglip"])
def store(request):
    """Of an encoder with a class token, and of one that attends to tokens at the end."""
    if request.param == "tiny":
        return encode_dataset(tiny_encoder(), TinyImages(N, seed=2))
    name = next(case for case in CASES if case.startswith(request.param))
    encoder = wrap_encoder(CASES[name].make())
    return encode_dataset(encoder, TinyImages(N, seed=2, size=encoder.image_size[0]))


@pytest.fixture(scope="module")
def bases(store):
    return fit_bases(store)


@pytest.fixture(scope="module")
def texts(bases):
    return random_texts(bases.dim)


def heads_of(store) -> list[int]:
    return store.units["unit"][store.units["kind"] == "head"].tolist()


def plain(store, unit: int) -> dict:
    """Components with their largest entry positive, variances, and scores of centred contributions."""
    x = store.contributions(units=[unit])[:, 0].double().numpy()
    rows, variances = plain_spectrum(x)
    rows = rows * np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(1)])[:, None]
    return {"x": x, "rows": rows, "variances": variances, "scores": (x - x.mean(0)) @ rows.T}


def test_numbers_are_their_definitions(store, bases, texts):
    units = heads_of(store)[::3]
    settings = DescribeSettings(components=2, images=5, texts=4, atoms=6)
    found = describe_heads(store, None, texts, bases, units, settings)
    assert [head.unit for head in found] == units
    for head in found:
        row = store.units.iloc[head.unit]
        assert (head.layer, head.head) == (row["layer"], row["head"])
        known = plain(store, head.unit)
        variances = known["variances"]
        np.testing.assert_allclose(head.eigenvalues[:5], variances[:5], rtol=1e-3)
        np.testing.assert_allclose(
            head.explained_variance_ratio[:5], variances[:5] / variances.sum(), rtol=1e-3
        )
        assert head.linear_dimension == plain_rank(variances, 0.99)
        assert head.participation_ratio == pytest.approx(
            variances.sum() ** 2 / (variances**2).sum(), rel=1e-3
        )
        assert len(head.components) == 2
        for component in head.components:
            k = component.index
            assert component.eigenvalue == pytest.approx(variances[k], rel=1e-3)
            assert component.explained_variance_ratio == pytest.approx(
                variances[k] / variances.sum(), rel=1e-3
            )
            scores, order = known["scores"][:, k], known["scores"][:, k].argsort()
            assert [end.sample for end in component.smallest] == order[:5].tolist()
            assert [end.sample for end in component.largest] == order[-5:][::-1].tolist()
            for end in (*component.smallest, *component.largest):
                assert end.score == pytest.approx(scores[end.sample], rel=1e-3, abs=1e-4)
                assert end.sample_id == store.sample_ids[end.sample]
                assert end.class_name == store.class_names[store.labels[end.sample]]
            cosines = texts.embeddings.numpy() @ known["rows"][k]
            for sign, near in ((1, component.positive_texts), (-1, component.negative_texts)):
                order = (-sign * cosines).argsort()[:4]
                assert [each.text for each in near] == [texts.texts[place] for place in order]
                np.testing.assert_allclose([each.cosine for each in near], (sign * cosines)[order], atol=1e-3)


@pytest.mark.parametrize("criterion", ["std", "l1"])
def test_texts_are_those_that_pursuit_chooses_of_the_samples(store, bases, texts, criterion):
    settings = DescribeSettings(atoms=4, criterion=criterion)
    for head in describe_heads(store, None, texts, bases, heads_of(store), settings):
        rows = store.contributions(units=[head.unit])[:, 0].double()
        wanted = somp(rows, texts, 4, criterion)
        assert tuple(chosen.text for chosen in head.texts) == wanted.texts
        np.testing.assert_allclose(
            [chosen.explained_variance for chosen in head.texts], wanted.explained_variance, atol=2e-3
        )


def test_some_samples_are_enough_for_l1(store, bases, texts):
    settings = DescribeSettings(atoms=2, criterion="l1", samples=7)
    (head,) = describe_heads(store, None, texts, bases, heads_of(store)[:1], settings)
    samples = np.linspace(0, N - 1, 7).round().astype(int)
    wanted = somp(store.contributions(samples, [head.unit])[:, 0].double(), texts, 2, "l1")
    assert tuple(chosen.text for chosen in head.texts) == wanted.texts


@pytest.mark.parametrize("task", TASKS)
def test_the_best_by_a_task_and_their_ranks(store, bases, texts, task):
    classifier = random_classifier(store)
    scores = score_units(store, classifier, (task,)).set_index("unit")[task]
    settings = DescribeSettings(task=task, top=4, atoms=1, components=1, images=1)
    found = describe_heads(store, None, texts, bases, None, settings, classifier=classifier)
    assert [head.score for head in found] == pytest.approx(sorted(scores, reverse=True)[:4])
    for head in found:
        assert head.score == pytest.approx(scores[head.unit])
        assert head.rank == 1 + sum(scores > scores[head.unit] + 1e-12)
    whole = describe_heads(store, None, texts, bases, None, replace(settings, top=99), classifier=classifier)
    assert sorted(head.unit for head in whole) == heads_of(store)


def test_named_heads_are_told_in_their_order_and_without_a_score(store, bases, texts):
    units = heads_of(store)[5:1:-2]
    found = describe_heads(store, None, texts, bases, units, DescribeSettings(atoms=1))
    assert [head.unit for head in found] == units
    assert {(head.score, head.rank) for head in found} == {(None, None)}


def test_an_encoder_with_text_makes_the_classifier():
    encoder = load_encoder("picto", device="cpu")
    store = encode_dataset(encoder, load_dataset("digits", "val").sample(30))
    classifier = ZeroShotClassifier.from_text(encoder, store.class_names, ["a photo of a {}."])
    scores = score_units(store, classifier, ("accuracy",))["accuracy"]
    texts = TextDictionary.encode(encoder, ["a digit", "a letter", "a dark picture"])
    found = describe_heads(store, encoder, texts, fit_bases(store), settings=DescribeSettings(atoms=3, top=2))
    assert [head.score for head in found] == pytest.approx(sorted(scores, reverse=True)[:2])


def test_progress_is_told_of_every_pass(store, bases, texts):
    told = []
    describe_heads(
        store, None, texts, bases, classifier=random_classifier(store), settings=DescribeSettings(top=2),
        progress=lambda *done: told.append(done),
    )  # fmt: skip
    last = {stage: done for stage, *done in told}
    assert last == {"score heads": [N, N], "find ends": [N, N], "describe heads": [2, 2]}


# Planted


def test_a_planted_text_and_order_are_told():
    """One head writes a text, times a number that is known of every sample; others are left as they are."""
    store = encode_dataset(tiny_encoder(), TinyImages(N, seed=2))
    unit = heads_of(store)[6]
    layer, head = store.units.iloc[unit][["layer", "head"]]
    amounts = torch.linspace(-50, 50, N)[torch.randperm(N, generator=seeded(4))].double()
    inside = torch.randn(store.linearization.head_width, generator=seeded(5)).double()
    held = store.coordinates
    z = held.z.clone()
    z[:, layer, head] = ((amounts * held.std)[:, None] * inside).to(z)
    planted = replace(store, coordinates=replace(held, z=z))
    direction = inside @ store.linearization.matrix(unit)[: len(inside)]
    random = random_texts(store.linearization.output_dim)
    texts = TextDictionary(
        [*random.texts, "the planted text"], torch.cat([random.embeddings, direction[None].float()])
    )
    (found,) = describe_heads(planted, None, texts, fit_bases(planted), [unit])
    assert found.texts[0].text == "the planted text"
    assert found.texts[0].explained_variance > 0.999
    assert found.linear_dimension == 1
    assert found.participation_ratio == pytest.approx(1, abs=1e-3)
    component = found.components[0]
    rising = component.positive_texts[0].text == "the planted text"
    near = component.positive_texts[0] if rising else component.negative_texts[0]
    assert (near.text, near.cosine) == ("the planted text", pytest.approx(1, abs=1e-3))
    most, least = component.largest, component.smallest
    order = amounts.argsort().tolist()
    assert [end.sample for end in (most if rising else least)] == order[::-1][:8]
    assert [end.sample for end in (least if rising else most)] == order[:8]
    length = direction.norm().item()
    for end in (*most, *least):
        assert abs(end.score) == pytest.approx(abs(amounts[end.sample].item()) * length, rel=0.01)


def test_a_head_that_is_constant_has_nothing_to_tell():
    store = encode_dataset(tiny_encoder(), TinyImages(N, seed=2))
    unit, width = heads_of(store)[2], store.linearization.output_dim
    empty = torch.zeros(0, width), torch.zeros(0)
    bases = SpectralBases([unit], torch.zeros(1, width), [empty[0]], [empty[1]])
    (found,) = describe_heads(store, None, random_texts(width), bases, [unit])
    assert (found.texts, found.components, found.eigenvalues) == ((), (), ())
    assert (found.linear_dimension, found.participation_ratio) == (0, None)
    assert found.explained_variance_ratio == ()


def test_ends_are_at_most_half_of_the_samples():
    store = encode_dataset(tiny_encoder(), TinyImages(5))
    (found,) = describe_heads(
        store, None, random_texts(store.linearization.output_dim), fit_bases(store), heads_of(store)[:1]
    )
    for component in found.components:
        ends = [end.sample for end in (*component.largest, *component.smallest)]
        assert len(ends) == len(set(ends)) == 4


# Names


def test_heads_by_name():
    store = encode_dataset(tiny_encoder(), TinyImages(4))
    heads = heads_of(store)
    assert parse_heads(["0.0", " 2.3 ", "1.0", "0.0"], store) == [heads[0], heads[-1], heads[4]]
    for name in ("3.0", "0.4"):
        with pytest.raises(ResidualError, match=rf"no head {name}: layers are 0 to 2 and heads 0 to 3\."):
            parse_heads(["0.0", name], store)
    with pytest.raises(ResidualError, match=r"No head: mlp\.1\. Heads are 0\.0 to 2\.3, or units 4 to 15"):
        parse_heads(["0.0", "mlp.1"], store)
    for name in ("", "1", "1.", ".1", "-1.0", "a.b", "1.2.3", "mlp3"):
        with pytest.raises(ResidualError, match=rf"Unknown unit '{name}'.*heads as layer and head, '0.0' to"):
            parse_heads([name], store)


# What doesn't fit


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "pursuit"}, "task takes 'accuracy', 'span' or 'correlation'; got 'pursuit'"),
        ({"criterion": "l3"}, "criterion takes 'l1', 'std', 'l2' or 'cosine'; got 'l3'"),
        ({"top": 0}, "top takes a whole number, at least 1; got 0"),
        ({"atoms": 2.5}, "atoms takes a whole number, at least 1; got 2.5"),
        ({"images": True}, "images takes a whole number, at least 1; got True"),
        ({"components": "3"}, "components takes a whole number, at least 1; got '3'"),
        ({"threshold": 1.0}, "threshold takes a number above 0 and below 1; got 1.0"),
        ({"threshold": float("nan")}, "threshold takes a number above 0 and below 1; got nan"),
    ],
)
def test_bad_settings(values, message):
    with pytest.raises(ResidualError, match=message):
        DescribeSettings(**values)


def test_what_does_not_belong_together(store, bases, texts):
    head = heads_of(store)[0]
    with pytest.raises(ResidualError, match="has 30 entries, so 31 texts can't be chosen of it"):
        describe_heads(store, None, texts, bases, [head], DescribeSettings(atoms=31))
    with pytest.raises(ResidualError, match=r"No head: emb\. Heads are 0\.0 to"):
        describe_heads(store, None, texts, bases, [0, head])
    with pytest.raises(ResidualError, match="No head was named"):
        describe_heads(store, None, texts, bases, [])
    with pytest.raises(ResidualError, match=r"No basis for units"):
        describe_heads(store, None, texts, bases.select([head]), [head + 1])
    with pytest.raises(ResidualError, match="by accuracy can't be told without a classifier or an encoder"):
        describe_heads(store, None, texts, bases)
    with pytest.raises(ResidualError, match="dictionary's embeddings have width 5, the encoder's output has"):
        describe_heads(store, None, random_texts(5), bases, [head])
    with pytest.raises(ResidualError, match=r"The store is of .* not of tiny"):
        describe_heads(store, tiny_encoder(seed=7), texts, bases, [head])
    other = fit_bases(encode_dataset(tiny_encoder(seed=7), TinyImages(4)))
    with pytest.raises(ResidualError, match="The bases are of tiny"):
        describe_heads(store, None, texts, other, [head])
    made = SpectralBases([head], torch.zeros(1, 3), [torch.zeros(0, 3)], [torch.zeros(0)])
    with pytest.raises(ResidualError, match="The bases have width 3, the encoder's output has"):
        describe_heads(store, None, texts, made, [head])


def test_stores_that_cannot_be_told():
    encoder, images = tiny_encoder(), TinyImages(6)
    whole = encode_dataset(encoder, images)
    bases, texts, head = fit_bases(whole), random_texts(encoder.output_dim), heads_of(whole)[0]
    mlps = encode_dataset(encoder, images, kinds=("mlp",))
    for call in (lambda: describe_heads(mlps, None, texts, bases), lambda: parse_heads(["0.0"], mlps)):
        with pytest.raises(
            ResidualError, match=r"encoded without heads, only with units of kind mlp: encode"
        ):
            call()
    heads = encode_dataset(encoder, images, kinds=("head",))
    with pytest.raises(ResidualError, match="without units of kind emb, mlp"):
        describe_heads(heads, None, texts, bases, settings=DescribeSettings(task="correlation"))
    patches = encode_dataset(encoder, images, pooling="patches")
    with pytest.raises(ResidualError, match="the store tiny/train is of pooling 'patches'"):
        describe_heads(patches, None, texts, bases, [head])
    z = whole.coordinates.z.clone()
    z[3, 0, 0, 0] = float("nan")
    broken = replace(whole, coordinates=replace(whole.coordinates, z=z))
    with pytest.raises(ResidualError, match=f"NaN or infinity in unit {head}: encode it again"):
        describe_heads(broken, None, texts, bases, [head])
