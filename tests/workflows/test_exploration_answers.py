"""What the explorer answers on units, texts, pictures and dropped files, against plain definitions."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from residual import AdaptedEncoder, ResiDual, fit_bases
from residual.errors import ResidualError, UnreadableImageError
from residual.heads import DescribeSettings, describe_heads
from residual.heads.suits import Suited
from residual.maps import class_maps, text_maps
from residual.workflows.exploration import drops


def contributions(store, unit: str) -> np.ndarray:
    """Centred, in float64."""
    own = store.contributions(units=[unit])[:, 0].double().numpy()
    return own - own.mean(0)


def unit_vectors(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def places(answer: dict) -> list[int]:
    return [picture["position"] for picture in answer["pictures"]]


def test_a_text_is_spoken_by_the_share_of_variance_along_it(exploration, picto_store):
    told = exploration.text(" something   red ")
    assert told["text"] == "something red"
    direction = exploration.texts.direction("something red").double().numpy()
    assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-5)
    by_name = {each["unit"]: each for each in told["units"]}
    assert len(by_name) == len(picto_store.units)
    for name in ("emb", "mlp.2", "0.4", "6.3"):
        x = contributions(picto_store, name)
        assert by_name[name]["value"] == pytest.approx(((x @ direction) ** 2).sum() / (x**2).sum(), rel=1e-3)
    assert 1 / 192 < told["chance"] < 1
    best = told["components"]
    assert len(best) == 30
    assert [each["value"] for each in best] == sorted((each["value"] for each in best), reverse=True)
    for each in best:
        assert each["value"] == pytest.approx(each["ratio"] * each["cosine"] ** 2, rel=1e-4)
    assert any("red" in text for text in told["like"])
    json.dumps(told, allow_nan=False)


def test_the_head_that_was_built_to_write_a_text_is_found_first(explored, exploration, picto_store):
    linearization, head = picto_store.linearization, picto_store.linearization.units.named("5.1")
    direction = exploration.texts.direction("yellow").double()
    every = range(len(linearization.units))
    maps = {unit: linearization.matrix(unit) for unit in every}
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(maps[head].shape, generator=generator, dtype=torch.float64)
    maps[head] = torch.outer(noise[:, 0], direction) + 0.02 * noise
    offsets = torch.stack([linearization.offset(unit) for unit in every])
    planted = explored(replace(picto_store, linearization=linearization.rewritten(maps, offsets)))
    units = {each["unit"]: each for each in planted.text("yellow")["units"]}
    for key in ("value", "above"):
        assert max(units, key=lambda name: units[name][key]) == "5.1"
    assert units["5.1"]["value"] > 0.9
    assert planted.text("yellow")["components"][0]["unit"] == "5.1"
    answer = planted.words()
    assert "yellow" in answer["examples"][0]  # to try: what a head speaks most
    words = {each["unit"]: each for each in answer["units"]}
    assert len(words) == len(units)
    assert "yellow" in words["5.1"]["text"]
    x = contributions(planted.parts.store, "5.1")
    w = planted.texts._others[planted.parts.dictionary.texts.index(words["5.1"]["text"])].double().numpy()
    assert words["5.1"]["value"] == pytest.approx(((x @ w) ** 2).sum() / (x**2).sum(), rel=1e-3)
    found = planted.pictures(order="text", text="yellow", unit="5.1", limit=48)
    along = planted.parts.store.contributions(units=["5.1"])[:, 0].double() @ direction
    assert places(found) == along.argsort(descending=True).tolist()


def test_a_dictionary_that_cannot_describe_the_pictures_names_nothing(explored, monkeypatch):
    monkeypatch.setattr("residual.workflows.exploration.scores.suited", lambda *_: Suited(10, 0.1, 0.9, 0.5))
    told = explored()
    answer = told.words()
    assert answer["note"].startswith("The dictionary can't describe these pictures: ")
    assert {each["text"] for each in answer["units"]} == {None}
    unit = told.unit("7.2")
    assert not unit["named"]
    assert unit["verdict"].endswith("no name.")
    assert not any(each["positive"] or each["negative"] for each in unit["components"])


def test_a_unit_is_described_as_reports_describe_it(exploration, picto_store):
    told = exploration.unit("1.3")
    parts = exploration.parts
    settings = DescribeSettings(components=8, images=6, atoms=10)
    wanted = describe_heads(picto_store, None, parts.dictionary, parts.bases, ["1.3"], settings)[0]
    assert [each["text"] for each in told["texts"]] == [each.text for each in wanted.texts]
    shares = np.cumsum([each["share"] for each in told["texts"]])
    np.testing.assert_allclose(shares, [each.explained_variance for each in wanted.texts])
    assert told["told"] == pytest.approx(shares[-1])
    assert (told["verdict"], told["named"]) == (wanted.verdict, wanted.named)
    assert (told["layer"], told["head"], told["linear_dimension"]) == (1, 3, wanted.linear_dimension)
    assert told["chance"] == pytest.approx(wanted.chance.bound)
    assert told["spectrum"] == pytest.approx(wanted.explained_variance_ratio)
    assert sum(told["spectrum"]) == pytest.approx(1)
    for own, other in zip(told["components"], wanted.components, strict=True):
        for end in ("largest", "smallest"):
            ends = getattr(other, end)
            assert [each["position"] for each in own[end]] == [each.sample for each in ends]
            assert [each["value"] for each in own[end]] == pytest.approx(
                [each.score for each in ends], abs=1e-4
            )
        near = [each.text for each in other.positive_texts if each.cosine > wanted.chance.cosine]
        assert own["positive"] == near
    assert "told" not in told["scores"]
    exploration.heads("told")
    again = exploration.unit("1.3")
    assert again["scores"]["told"] == pytest.approx(told["told"])
    better = [each["value"] for each in exploration.heads("accuracy")["units"]]
    assert again["ranks"]["accuracy"] == 1 + sum(value > told["scores"]["accuracy"] for value in better)
    for name in ("mlp.4", "emb"):
        other = exploration.unit(name)
        assert (other["unit"], other["head"], len(other["components"]) > 0) == (name, None, True)
        json.dumps(other, allow_nan=False)


def test_neighbours_are_those_by_the_cosine_of_centred_contributions(exploration, picto_store):
    outputs = picto_store.output().double().numpy()
    for unit, x in (
        ("2.2", contributions(picto_store, "2.2")),
        ("mlp.3", contributions(picto_store, "mlp.3")),
        ("", outputs - outputs.mean(0)),
    ):
        rows = unit_vectors(x)
        cosines = rows @ rows[7]
        order = [place for place in (-cosines).argsort() if place != 7]
        found = exploration.pictures(order="near", position=7, unit=unit, limit=20)
        assert (found["total"], places(found)) == (47, order[:20])
        values = [picture["value"] for picture in found["pictures"]]
        np.testing.assert_allclose(values, cosines[order[:20]], atol=1e-4)


def test_pages_hold_every_picture_once(exploration, picto_store):
    whole = exploration.pictures(limit=200)
    assert places(whole) == list(range(48))
    for asked in (
        {"order": "text", "text": "a face"},
        {"order": "component", "unit": "1.3", "component": 1},
        {"order": "component", "unit": "1.3", "component": 1, "end": "smallest"},
        {"order": "near", "position": 3, "unit": "0.4"},
    ):
        pages = [exploration.pictures(**asked, limit=13, offset=start) for start in (0, 13, 26, 39)]
        every = [place for page in pages for place in places(page)]
        assert len(every) == len({*every}) == pages[0]["total"] >= 47
        assert places(exploration.pictures(**asked, limit=13, offset=13)) == places(pages[1])
        own = int(picto_store.labels[5])
        filtered = exploration.pictures(**asked, class_=own, limit=200)
        assert places(filtered) == [place for place in every if picto_store.labels[place] == own]
    ends = [exploration.pictures(order="component", unit="1.3", end=end) for end in ("largest", "smallest")]
    scores = [[picture["value"] for picture in each["pictures"]] for each in ends]
    assert scores == [sorted(scores[0], reverse=True), sorted(scores[1])]
    answers = exploration.parts.classifier.answers(picto_store.output()).numpy()
    wrong = exploration.pictures(order="wrong", limit=200)
    assert places(wrong) == np.flatnonzero(answers != picto_store.labels).tolist()
    label = int(picto_store.labels[0])
    taken = exploration.pictures(order="wrong", class_=label, as_=label)
    assert places(taken) == np.flatnonzero((answers == label) & (picto_store.labels == label)).tolist()


def test_pictures_are_small_files_and_a_cross_where_there_are_none(explored, picto_store, monkeypatch):
    exploration = explored()
    media, data = exploration.picture(4, side=60)
    seen = Image.open(io.BytesIO(data))
    assert (max(seen.size) <= 64, media) == (True, f"image/{seen.format.lower()}")
    images, load = exploration.parts.origin.images, type(exploration.parts.origin.images).load
    broken = images.sample_ids.index(picto_store.sample_ids[5])

    def half(index):
        if index == broken:
            raise UnreadableImageError("5", "cut off")
        return load(images, index)

    monkeypatch.setattr(images, "load", half)
    assert exploration.picture(4, side=64) == (media, data)
    assert exploration.picture(5) == ("image/svg+xml", exploration.picture(5)[1])
    gone = explored(replace(picto_store, dataset="theirs/val"))
    assert gone.pictures(limit=1)["pictures"][0]["src"] is None
    with pytest.raises(ResidualError, match="isn't loaded because a store names it"):
        gone.picture(0)


def test_a_dropped_picture_is_told_apart_and_then_forgotten(exploration, explored, picto_store, monkeypatch):
    buffer = io.BytesIO()
    exploration.pictures_of_store.image(9).save(buffer, "PNG")
    told = exploration.drop(buffer.getvalue())
    classifier = exploration.parts.classifier
    logits = classifier.logits(picto_store.output()[9:10])[0]
    chances = logits.softmax(0)
    assert [each["class"] for each in told["prediction"]] == chances.argsort(descending=True)[:5].tolist()
    assert told["prediction"][0]["probability"] == pytest.approx(chances.max().item(), abs=1e-3)
    first, second = logits.argsort(descending=True)[:2].tolist()
    x, output = picto_store.contributions([9])[0].double(), picto_store.output()[9].double()
    rows = classifier.weights.double()
    part = classifier.scale * x @ (rows[first] - rows[second]) / output.norm()
    best = part.argsort(descending=True)[:10].tolist()
    assert [each["unit"] for each in told["units"]] == [picto_store.linearization.units.name(u) for u in best]
    assert [each["value"] for each in told["units"]] == pytest.approx(part[best].tolist(), abs=1e-2)
    assert (told["near"][0]["position"], told["src"][:11]) == (9, "data:image/")
    assert exploration.drop(picture=told["picture"]) is exploration.drop(buffer.getvalue())
    json.dumps(told, allow_nan=False)
    kinds = {"kinds": ("head",), "coordinates": picto_store.coordinates.only(("head",))}
    part = explored(replace(picto_store, **kinds)).drop(buffer.getvalue())
    assert (part["near"], part["units"]) == ([], told["units"])
    assert "kept without emb" in part["note"]
    monkeypatch.setattr(drops, "_KEPT", 1)
    other = io.BytesIO()
    Image.new("RGB", (30, 20), "teal").save(other, "JPEG")
    exploration.drop(other.getvalue())
    with pytest.raises(ResidualError, match="drop it again"):
        exploration.drop(picture=told["picture"])


def test_a_map_holds_all_of_what_it_is_of(exploration, picto_store):
    encoder, classifier = exploration.parts.encoder, exploration.parts.classifier
    output = picto_store.output()[11].double()
    rows = classifier.weights.double()
    logits = classifier.scale * rows @ output / output.norm()

    def check(told, total, names):
        assert [each["name"] for each in told["maps"]] == names
        assert (told["rows"], told["cols"], told["box"]) == (8, 8, [0, 0, 1, 1])
        for each in told["maps"]:
            values = np.array(each["values"])
            assert each["total"] == pytest.approx(float(total), rel=2e-2, abs=1e-4)
            whole = values.sum() + each["elsewhere"] + each["rest"]
            assert whole == pytest.approx(each["total"], abs=1e-4 * classifier.scale)
        json.dumps(told, allow_nan=False)

    names = picto_store.class_names
    check(exploration.map("11", class_=3), logits[3] - logits.mean(), [names[3]])
    two = exploration.map("11", class_=3, against=8)
    check(two, logits[3] - logits[8], [f"{names[3]} against {names[8]}"])
    pixels = encoder.pixels([exploration.pictures_of_store.image(11)])
    here, there = exploration.map("11", text="a face"), text_maps(encoder, pixels, "a face")  # as the command
    check(here, there.total[0, 0], ["a face"])
    np.testing.assert_allclose(here["maps"][0]["values"], there.values[0, 0], atol=1e-6)
    score = exploration.pictures_of_store.along(exploration.parts.units.named("5.4"), [2])[11, 0].item()
    check(exploration.map("11", unit="5.4", component=2), score, ["5.4:2"])
    every = class_maps(encoder, pixels, classifier, [3], [8])
    np.testing.assert_allclose(two["maps"][0]["values"], every.values[0, 0], atol=1e-4)
    top = exploration.map("11", class_=3, against=8, heads="top", separate=True)
    assert len(top["maps"]) == 10
    added = [abs(np.sum(each["values"]) + each["elsewhere"]) for each in top["maps"]]
    assert added == sorted(added, reverse=True)
    some = [each["name"].partition(":")[0] for each in top["maps"]]
    together = exploration.map("11", class_=3, against=8, heads=",".join(some))
    each = np.sum([each["values"] for each in top["maps"]], axis=0)
    np.testing.assert_allclose(together["maps"][0]["values"], each, atol=1e-4)
    buffer = io.BytesIO()
    exploration.pictures_of_store.image(11).save(buffer, "PNG")
    dropped = exploration.drop(buffer.getvalue())["picture"]
    assert exploration.map(dropped, class_=3, against=8)["maps"] == two["maps"]


def test_a_map_through_an_adapter_is_of_what_it_gives(explored, exploration, picto, picto_store, tmp_path):
    adapter = ResiDual(fit_bases(picto_store), rank=2)
    adapted = AdaptedEncoder(picto, adapter, exploration.parts.classifier, share=True)
    adapted.save_pretrained(tmp_path / "mine")
    told = explored(adapters=[str(tmp_path / "mine")]).map("7", class_=5, against=1, adapter="mine")
    with torch.no_grad():
        logits = adapted(picto.pixels([exploration.pictures_of_store.image(7)]), logits=True)[0]
    (found,) = told["maps"]
    assert found["total"] == pytest.approx((logits[5] - logits[1]).item(), abs=1e-3)
    (plain,) = exploration.map("7", class_=5, against=1)["maps"]
    assert abs(found["total"] - plain["total"]) > 0.1


def test_what_can_be_asked_is_told_without_an_encoder(explored, picto_store):
    can = explored(encoder=None).about()["can"]
    assert all(can[what] is True for what in ("text", "drop", "map", "pictures"))
    there, labels = np.unique(picto_store.labels, return_inverse=True)
    names = tuple(picto_store.class_names[label] for label in there)
    about = {"dataset": "theirs/val", "encoder_name": "somebody/theirs", "class_names": names}
    theirs = replace(picto_store, labels=labels, **about)
    can = explored(theirs).about()["can"]
    assert [can[what] for what in ("text", "drop", "map")] == [True] * 3
    theirs = explored(theirs, encoder=None)
    can = theirs.about()["can"]
    assert all(
        "isn't loaded because a store names it" in can[what] for what in ("text", "drop", "map", "pictures")
    )
    with pytest.raises(ResidualError, match="isn't loaded because a store names it"):
        theirs.text("a face")
    told = theirs.unit("2.1")
    assert (told["texts"], told["told"], told["named"]) == ([], None, False)
    assert "isn't loaded because a store names it" in told["verdict"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda of: of.unit("77.1"), "There is no head"),
        (lambda of: of.text("  "), "type a word"),
        (lambda of: of.text("x" * 501), "may have 500 letters"),
        (lambda of: of.pictures(order="random"), "Unknown order"),
        (lambda of: of.pictures(order="near", position=48), "from 0 to 47"),
        (lambda of: of.pictures(order="component", unit="0.1", component=99), "there is no component 99"),
        (lambda of: of.pictures(class_=100), "from 0 to 99"),
        (lambda of: of.pictures(limit=0), "from 1 to 200"),
        (lambda of: of.picture(-1), "from 0 to 47"),
        (lambda of: of.map("3"), "got none of them"),
        (lambda of: of.map("3", text="a face", class_=2), "got a class and a text"),
        (lambda of: of.map("3", unit="mlp.2"), "looks nowhere"),
        (lambda of: of.map("3", class_=2, heads="mlp.2"), "No head: mlp.2"),
        (lambda of: of.map("3", class_=2, adapter="mine"), "Unknown adapter"),
        (lambda of: of.map("3b", class_=2), "is a place in the store or drop:"),
        (lambda of: of.map("drop:none", class_=2), "drop it again"),
        (lambda of: of.drop(b"<html>"), "can't be read as a picture: it is a web page"),
        (lambda of: of.drop(bytes(2**25 + 1)), "may have 32 MB"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(exploration, asked, message):
    with pytest.raises(ResidualError, match=message):
        asked(exploration)


def test_many_threads_get_what_one_gets(explored):
    asked = [
        lambda of: of.unit("3.1"),
        lambda of: of.text("blue"),
        lambda of: of.map("4", text="green"),
        lambda of: of.pictures(order="text", text="blue", unit="3.1"),
        lambda of: of.pictures(order="near", position=2),
        lambda of: of.unit("3.1"),
        lambda of: of.picture(2),
    ]
    shared, alone = explored(encoder=None), explored()
    with ThreadPoolExecutor(7) as pool:
        found = list(pool.map(lambda ask: ask(shared), asked))
    assert found == [ask(alone) for ask in asked]
