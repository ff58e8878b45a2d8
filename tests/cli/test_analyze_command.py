"""`residual analyze`, as it is called: tables in the terminal, numbers as JSON, figures."""

import json
import math
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from plain import plain_rank, plain_spectral_cosine, plain_spectrum
from tiny import TinyImages, tiny_encoder

from residual import ResidualStore, encode_dataset, fit_bases, load_dataset, load_encoder
from residual.spectral import GeometrySettings, unit_geometry
from residual.spectral.geometry import MEASURES
from residual.spectral.similarity import SIMILARITIES

N = 60


@pytest.fixture(scope="module")
def tiny_store(tmp_path_factory):
    """Of another encoder."""
    path = tmp_path_factory.mktemp("tiny") / "store"
    encode_dataset(tiny_encoder(), TinyImages(30), path, dtype="float32")
    return path


def read(path) -> dict:
    """JSON as others read it: no NaN."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def rows(shown: str, kind: str) -> list[list[str]]:
    return [line.split() for line in shown.splitlines() if line.startswith(kind)]


def test_a_row_a_layer_in_the_terminal(stores, residual):
    code, shown, err = residual("analyze", stores / "letters", "--device", "cpu")
    assert (code, err) == (0, "")
    assert shown.splitlines()[0].strip() == "picto on letters/val, 60 samples"
    table = unit_geometry(ResidualStore.open(stores / "letters"))
    assert [row[1] for row in rows(shown, "heads")] == [str(layer) for layer in range(8)]
    assert [row[1] for row in rows(shown, "MLP")] == [str(layer) for layer in range(8)]
    assert len(rows(shown, "embedding")) == 1
    for layer, row in enumerate(rows(shown, "heads")):
        values = table.query(f"kind == 'head' and layer == {layer}")["linear_dimension"]
        assert row[2:5] == [f"{values.mean():.3g}", "(SD", f"{values.std():.1g})"]
    for layer, row in enumerate(rows(shown, "MLP")):
        (value,) = table.query(f"kind == 'mlp' and layer == {layer}")["two_nn"]
        assert row[3] == f"{value:.3g}"


def test_json_has_every_unit_and_how_it_was_measured(stores, residual, tmp_path):
    words = ("--param", "GeometrySettings.threshold=0.8", "--param", "GeometrySettings.halvings=0")
    path = tmp_path / "deep/letters.json"
    assert residual("analyze", stores / "letters", *words, "--json", path)[0] == 0
    found = read(path)
    assert found["store"] == "letters"
    about = [found[name] for name in ("encoder", "dataset", "pooling", "samples")]
    assert about == ["picto", "letters/val", "own", N]
    how = GeometrySettings(threshold=0.8, halvings=0)
    assert found["settings"] == vars(how)
    assert set(found["seconds"]) == {"measure", "compare"}
    assert "against" not in found
    store = ResidualStore.open(stores / "letters")
    table = unit_geometry(store, settings=how)
    assert [unit["unit"] for unit in found["units"]] == list(range(57))
    assert found["units"][0]["layer"] is None
    for unit, row in zip(found["units"], table.to_dict("records"), strict=True):
        assert {name: unit[name] for name in MEASURES} == pytest.approx(
            {name: row[name] for name in MEASURES}
        )
    _, variances = plain_spectrum(store.contributions(units=[20])[:, 0].double().numpy())
    assert found["units"][20]["linear_dimension"] == plain_rank(variances, 0.8)


def test_two_stores_are_compared(stores, residual, tmp_path):
    words = ("--kinds", "head", "--json", tmp_path / "told.json")
    for setting in ("explained=0.8", "published_anchors=9"):
        words += "--param", f"SimilaritySettings.{setting}"
    code, shown, _ = residual("analyze", stores / "letters", "--against", stores / "flags", *words)
    assert code == 0
    assert "picto: letters/val and flags" in shown
    assert "spectral cosine" in shown
    assert len(rows(shown, "heads")) == 16
    assert not rows(shown, "MLP")
    against = read(tmp_path / "told.json")["against"]
    assert against["bases"] == "flags"
    assert against["settings"] == {"explained": 0.8, "anchors": 256, "seed": 0, "published_anchors": 9}
    assert [unit["unit"] for unit in against["units"]] == list(range(9, 57))
    x, y = (
        ResidualStore.open(stores / name).contributions(units=[30])[:, 0].double().numpy()
        for name in ("letters", "flags")
    )
    (a, α), (b, β) = plain_spectrum(x), plain_spectrum(y)
    k, m = plain_rank(α, 0.8), plain_rank(β, 0.8)
    row = against["units"][30 - 9]
    assert (row["kind"], row["layer"], row["head"]) == ("head", 3, 3)
    assert (row["rank_a"], row["rank_b"]) == (k, m)
    expected = plain_spectral_cosine(a[:k], b[:m], α[:k], β[:m])
    assert row["spectral_cosine"] == pytest.approx(expected, rel=1e-3)
    assert row["mean_distance"] == pytest.approx(np.linalg.norm(x.mean(0) - y.mean(0)), rel=1e-3)
    assert 0 < row["published_relative_cosine"] < 1


def test_bases_in_a_file_are_compared_as_their_store_is(stores, residual, tmp_path):
    path = tmp_path / "flags.safetensors"
    assert residual("bases", stores / "flags", "--out", path)[0] == 0
    for source, name in ((path, "file"), (stores / "flags", "store")):
        words = ("--kinds", "mlp,head", "--against", source, "--json", tmp_path / f"{name}.json")
        assert (
            residual("analyze", stores / "letters", *words, "--param", "GeometrySettings.halvings=0")[0] == 0
        )
    file, store = (read(tmp_path / f"{name}.json")["against"]["units"] for name in ("file", "store"))
    shared = [unit for unit in store if unit["kind"] == "head"]  # what a file of bases holds by default
    assert len(file) == len(shared) == 48
    for one, two in zip(file, shared, strict=True):
        assert one == pytest.approx(two)


def test_a_store_is_like_itself(stores, residual, tmp_path):
    words = ("--against", stores / "heads", "--json", tmp_path / "told.json")
    assert residual("analyze", stores / "heads", *words)[0] == 0
    for unit in read(tmp_path / "told.json")["against"]["units"]:
        for name in SIMILARITIES:
            if name in unit and "distance" not in name and "angle" not in name:
                assert unit[name] == pytest.approx(1), name


def test_some_kinds_of_unit(stores, residual, tmp_path):
    for kinds, count in (("mlp", 8), ("emb", 1), ("emb,mlp", 9)):
        words = ("--kinds", kinds, "--json", tmp_path / "told.json", "--overwrite")
        words += ("--param", "GeometrySettings.halvings=0")
        assert residual("analyze", stores / "letters", *words)[0] == 0
        units = read(tmp_path / "told.json")["units"]
        assert len(units) == count
        assert {unit["kind"] for unit in units} == set(kinds.split(","))


def test_figures_are_drawn_as_png_and_svg(stores, residual, tmp_path):
    folder = tmp_path / "deep/figures"
    words = ("--figures", folder, "--against", stores / "flags")
    code, shown, _ = residual("analyze", stores / "heads", *words)
    assert code == 0
    names = ["heads-linear_dimension", "heads-two_nn", "shapes", "similarity"]
    assert sorted(path.stem for path in folder.glob("*.png")) == names
    assert sorted(path.stem for path in folder.glob("*.svg")) == names
    for path in folder.iterdir():
        assert str(path) in shown
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.verify()
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_a_store_of_patches_counts_tokens(stores, residual, tmp_path):
    how = ("--param", "GeometrySettings.samples=100", "--json", tmp_path / "told.json")
    code, shown, _ = residual("analyze", stores / "patches", *how)
    assert (code, "picto on letters/val, 4 samples" in shown) == (0, True)
    found = read(tmp_path / "told.json")
    assert found["pooling"] == "patches"
    assert all(unit["samples"] + unit["dropped"] == 100 for unit in found["units"])


def test_units_without_a_dimension_are_null_in_json(residual, tmp_path):
    """Three samples have no halves."""
    data = load_dataset("letters", "val").sample(3)
    encode_dataset(load_encoder("picto", device="cpu"), data, tmp_path / "store", kinds=("mlp",))
    assert residual("analyze", tmp_path / "store", "--json", tmp_path / "told.json")[0] == 0
    units = read(tmp_path / "told.json")["units"]
    assert [unit["two_nn_2"] for unit in units] == [None] * 8
    assert not any(math.isnan(unit["linear_dimension"]) for unit in units)


# Refusals


def test_refusals_are_one_sentence(stores, tiny_store, residual, tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = stores / "heads"
    for words, message in (
        ((tmp_path / "nowhere",), "There is no store at"),
        ((store, "--against", tmp_path / "nowhere"), "There is no store at"),
        ((store, "--against", tmp_path / "no.safetensors"), "no.safetensors"),
        ((store, "--kinds", "heads"), "Unknown kinds of unit: 'heads'"),
        ((store, "--kinds", "mlp"), "The store holds no units of kind mlp, only head"),
        ((store, "--kinds", ""), "kind"),
        ((store, "--against", tiny_store), "Bases of widths 192 and 12 can't be compared"),
        ((stores / "two",), "Shapes can be measured of at least 3 samples; the store has 2"),
        ((store, "--device", "abacus"), "The device 'abacus' isn't there"),
        ((store, "--param", "GeometrySettings.treshold=0.9"), "A setting can't be used"),
        (
            (store, "--param", "GeometrySettings.threshold=1.5"),
            "below 1; got 1.5 (--param)",
        ),
        ((store, "--cfg", tmp_path / "no.gin"), "There is no settings file"),
        ((store, "--json", tmp_path), "can't be written: it is a folder"),
        ((store, "--json", tmp_path / "file/it.json"), "can't be made"),
        ((store, "--figures", tmp_path / "file"), "it is a file, and a folder is wanted"),
    ):
        code, shown, err = residual("analyze", *words)
        assert (code, shown, message in err) == (2, "", True), (words, err)
        assert (err.startswith("residual: "), err.count("\n")) == (True, 1), err


def test_bases_of_other_weights_are_refused(stores, residual, tmp_path):
    encoder = load_encoder("picto", device="cpu")
    encoder.module.visual_projection.weight.data[0, 0] += 1
    other = encode_dataset(encoder, load_dataset("letters", "val").sample(9))
    fit_bases(other).save(tmp_path / "other.safetensors")
    words = "analyze", stores / "heads", "--against", tmp_path / "other.safetensors"
    code, _, err = residual(*words, "--param", "SimilaritySettings.published_anchors=9")
    assert (code, "a file of bases holds no samples" in err) == (2, True), err
    code, shown, err = residual(*words)
    assert (code, shown) == (2, "")
    assert "Bases of different encoders: picto (weights" in err


def test_bases_and_stores_that_share_no_unit_are_refused(stores, residual, tmp_path):
    fit_bases(ResidualStore.open(stores / "letters"), "mlp").save(tmp_path / "mlps.safetensors")
    code, _, err = residual("analyze", stores / "heads", "--against", tmp_path / "mlps.safetensors")
    assert (code, "The two bases have no unit in common" in err) == (2, True)


def test_a_damaged_store_is_told(stores, residual, tmp_path):
    shutil.copytree(stores / "heads", tmp_path / "store")
    (tmp_path / "store/manifest.json").write_text("{}")
    code, _, err = residual("analyze", tmp_path / "store")
    assert (code, "manifest.json is damaged" in err) == (2, True)
