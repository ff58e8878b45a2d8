"""Dictionaries of texts: where they come from, what is kept of them, and what is no dictionary."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tiny import tiny_encoder
from torch.nn.functional import normalize

from residual import load_encoder
from residual.errors import ResidualError
from residual.text import TextDictionary, ZeroShotClassifier, dictionary_names
from residual.text.dictionary import read_texts


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("picto", device="cpu", dtype=torch.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "texts"


def kept(cache):
    return {path: path.stat().st_mtime_ns for path in cache.glob("*")}


@pytest.mark.parametrize("name", dictionary_names())
def test_lists_that_ship_are_dictionaries(name):
    texts = read_texts(name)
    assert len(texts) == len(set(texts)) > 250
    assert not [text for text in texts if text != text.strip() or text.startswith("#")]


def test_the_same_texts_from_a_list_and_from_files(encoder, tmp_path):
    texts = ["a red flag", "the letter A", "naïve café"]
    lines, whole = tmp_path / "texts.txt", tmp_path / "texts.json"
    lines.write_text("# not a text\n\n" + "\n  ".join(texts) + "\n", encoding="utf-8-sig")
    whole.write_text(json.dumps(texts), encoding="utf-8-sig")
    for source in (texts, lines, str(whole)):
        got = TextDictionary.encode(encoder, source)
        assert got.texts == tuple(texts)
        with torch.no_grad():
            wanted = normalize(encoder.encode_text(texts), dim=1)
        torch.testing.assert_close(got.embeddings, wanted)
        assert got.text_fingerprint == encoder.text_fingerprint


def test_templates_are_averaged_as_for_a_classifier(encoder):
    templates = ("a photo of {}", "{}")
    got = TextDictionary.encode(encoder, ["cat", "dog"], templates)
    wanted = ZeroShotClassifier.from_text(encoder, ["cat", "dog"], templates)
    torch.testing.assert_close(got.embeddings, wanted.weights)


def test_texts_are_encoded_once(encoder, cache):
    told = []
    first = TextDictionary.encode(encoder, "attributes", progress=lambda _, *done: told.append(done))
    assert told[-1] == (len(first), len(first))
    before, count = kept(cache), len(told)
    again = TextDictionary.encode(encoder, "attributes", progress=lambda _, *done: told.append(done))
    assert torch.equal(again.embeddings, first.embeddings)
    assert (len(told), kept(cache)) == (count, before)
    TextDictionary.encode(encoder, read_texts("attributes")[1:])
    assert len(kept(cache)) == len(before) + 1


def test_what_is_kept_is_of_one_text_tower_and_precision(encoder, cache):
    TextDictionary.encode(encoder, ["a cat"])
    half = load_encoder("picto", device="cpu", dtype=torch.bfloat16)
    TextDictionary.encode(half, ["a cat"])
    other = load_encoder("picto", device="cpu", dtype=torch.float32)
    with torch.no_grad():
        other.module.text_projection.weight.mul_(1.5)
    TextDictionary.encode(other, ["a cat"])
    assert other.fingerprint == encoder.fingerprint
    assert other.text_fingerprint != encoder.text_fingerprint
    assert len(kept(cache)) == 3


@pytest.mark.parametrize("damage", [lambda data: data[:40], lambda data: b"", lambda data: data[::-1]])
def test_a_damaged_file_is_made_anew(encoder, cache, damage):
    first = TextDictionary.encode(encoder, ["a cat", "a dog"])
    (path,) = kept(cache)
    path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(TextDictionary.encode(encoder, ["a cat", "a dog"]).embeddings, first.embeddings)
    assert path.stat().st_size > 40


def test_a_closed_cache_does_no_harm(encoder, cache):
    cache.parent.mkdir()
    cache.write_text("in the way", encoding="utf-8")
    assert len(TextDictionary.encode(encoder, ["a cat"])) == 1


def test_nearest_texts():
    dictionary = TextDictionary(["x", "y", "xy"], torch.tensor([[2.0, 0], [0, 1], [1, 1]]))
    ((best, second),) = dictionary.nearest(torch.tensor([[3.0, 0.1]]), 2)
    assert (best[0], second[0]) == ("x", "xy")
    assert best[1] == pytest.approx(3 / math.hypot(3, 0.1))
    assert len(dictionary.nearest(torch.eye(2), 9)[0]) == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "at least one text, got none"),
        (["a", " "], "Entry 1 of the dictionary is empty"),
        (["a", "b", "a"], "has 'a' twice"),
        (["a", "b" * 10**6], "has 1,000,000 letters; a text may have 2,000"),
        ("emojis", r"Unknown dictionary .* 'emojis'. Did you mean 'emoji'"),
    ],
)
def test_bad_sources(encoder, source, message):
    with pytest.raises(ResidualError, match=message):
        TextDictionary.encode(encoder, source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "can't be read as texts"),
        (b"{}", "no list of texts"),
        (b"[1]", "no list of texts"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_files(encoder, tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(ResidualError, match=message):
        TextDictionary.encode(encoder, path)


def test_bad_embeddings():
    with pytest.raises(ResidualError, match="2 texts need as many embeddings, got 1"):
        TextDictionary(["a", "b"], torch.ones(1, 3))
    with pytest.raises(ResidualError, match="embedding of 'b' is zero or not finite"):
        TextDictionary(["a", "b"], torch.tensor([[1.0, 0], [0, 0]]))
    with pytest.raises(ResidualError, match="embedding of 'a' is zero or not finite"):
        TextDictionary(["a", "b"], torch.tensor([[math.nan, 0], [1, 0]]))


def test_an_encoder_without_text():
    with pytest.raises(ResidualError, match="no tokenizer"):
        TextDictionary.encode(tiny_encoder(), ["a"])
