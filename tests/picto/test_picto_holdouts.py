"""Nothing of the offline suite's test data is in Picto's training."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PICTO = ROOT / "picto"
TRAINING = ["corpus", "words", "render", "packed", "captions", "augment", "tokenizer", "train", "export"]


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def corpus() -> dict:
    return read(PICTO / "corpus-manifest.json")


@pytest.fixture(scope="module")
def suite() -> dict:
    return read(ROOT / "src/residual/data/suite/manifest.json")


@pytest.fixture(scope="module")
def holdouts() -> dict:
    return read(PICTO / "holdouts.json")


def shared(corpus: dict, suite: dict) -> set[str]:
    """Hashes of drawings that are both trained on and in the suite, whatever each calls them."""
    trained = {digest for hashes in corpus["hashes"].values() for digest in hashes}
    return trained & {*suite["icons"], *suite["glyphs"]}


def test_no_drawing_is_shared(corpus, suite):
    assert len(corpus["hashes"]["icons"]) > 50_000
    assert len(corpus["hashes"]["glyphs"]) > 9_000
    assert len(suite["icons"]) > 2_000
    assert len(suite["glyphs"]) > 1_200
    assert not shared(corpus, suite)


@pytest.mark.parametrize("kind", ["icons", "glyphs"])
def test_a_shared_drawing_would_be_found(corpus, suite, kind):
    leaked = {"hashes": corpus["hashes"] | {kind: [*corpus["hashes"][kind], suite[kind][7]]}}
    assert shared(leaked, suite) == {suite[kind][7]}


def test_both_sides_hash_alike(suite):
    """The suite's shipped glyphs, hashed as the corpus hashes its own, have the hashes in the manifest."""
    pytest.importorskip("resvg_py", reason="picto/render.py draws with it; in the dependency group 'picto'")
    from render import pixel_hash

    from residual.data.suite.assets import sprite

    names = suite["sprites"]["glyphs"]
    found = {pixel_hash(np.array(sprite(f"glyphs/{name}"))) for name in names[::40]}
    assert len(found) > 25
    assert found <= set(suite["glyphs"])
    icons = suite["sprites"]["openmoji"][::40]
    assert {pixel_hash(np.array(sprite(f"openmoji/{name}"))) for name in icons} <= set(suite["icons"])


def test_no_set_or_font_is_shared(corpus, suite, holdouts):
    sources = read(PICTO / "sources.json")
    held_sets = {"openmoji", "emojione-v1"}
    held_fonts = {*holdouts["fonts"]["train"], *holdouts["fonts"]["test"]}
    assert set(holdouts["icon_sets"]) == held_sets
    assert len(held_fonts) == 20
    assert {key: suite["holdouts"][key] for key in ("icon_sets", "fonts")} == {
        key: holdouts[key] for key in ("icon_sets", "fonts")
    }
    named = {prefix for kind in ("emoji", "flags", "colour", "line") for prefix in sources[kind]}
    assert named == set(corpus["icon_sets"])
    assert not named & held_sets
    assert not set(corpus["fonts"]) & held_fonts
    assert not set(sources["fonts_handwritten"]) & held_fonts


def test_the_suite_shows_only_held_out_drawings(suite, holdouts):
    assert set(suite["sprites"]) == {*holdouts["icon_sets"], "signs", "glyphs"}
    fonts = {name.split("/")[0] for name in suite["sprites"]["glyphs"]}
    assert fonts == {*holdouts["fonts"]["train"], *holdouts["fonts"]["test"]}


def imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.split(".")[0] for name in names}


def test_training_imports_no_real_digits():
    """Neither the packages of real digits, nor the suite or its signs, reach what trains."""
    paths = [PICTO / f"{name}.py" for name in TRAINING] + sorted((PICTO / "scenes").glob("*.py"))
    assert {path.stem for path in PICTO.glob("*.py")} == {*TRAINING, "suite", "signs", "evaluate", "licences"}
    assert len(paths) > len(TRAINING) + 5
    for path in paths:
        assert not imports(path) & {"mlxtend", "sklearn", "residual", "suite", "signs"}, path.name
    assert {"mlxtend", "sklearn", "signs"} <= imports(PICTO / "suite.py")  # the check sees what is there


@pytest.mark.parametrize("prefix", ["openmoji", "emojione-v1"])
def test_corpus_refuses_a_held_out_set(prefix, monkeypatch, tmp_path):
    pytest.importorskip("resvg_py", reason="picto/render.py draws with it; in the dependency group 'picto'")
    import corpus
    import words

    with pytest.raises(ValueError, match=f"icon set {prefix} is held out"):
        corpus.icon_records("emoji", prefix, None)

    def tampered(name: str) -> dict:
        content = read(PICTO / name)
        return content | {"line": [*content["line"], prefix]} if name == "sources.json" else content

    monkeypatch.setattr(words, "read_json", tampered)
    monkeypatch.setattr(corpus, "BUILD", tmp_path / "corpus")
    with pytest.raises(ValueError, match=f"icon set {prefix} is held out"):
        corpus.build(workers=1)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("font", ["lora", "gochi-hand"])
def test_corpus_refuses_a_held_out_font(font):
    pytest.importorskip("resvg_py", reason="picto/render.py draws with it; in the dependency group 'picto'")
    import corpus

    with pytest.raises(ValueError, match=f"font {font} is held out"):
        corpus.glyph_records(font, handwritten=False)
