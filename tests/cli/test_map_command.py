"""`residual map`, as it is called: a table, figures and JSON; what doesn't fit is told in a sentence."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from saved import transformers_folder

from residual import AdaptedEncoder, encode_dataset, fit_bases, load_dataset
from residual.adapters import LinearMap
from residual.text import ZeroShotClassifier
from residual.workflows.map import figure_names

CLASSES = ("one cat", "two cats", "three cars")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """One as the encoder takes them, a wide one, and the same turned by EXIF alone."""
    folder = tmp_path_factory.mktemp("pictures")
    first = load_dataset("counting", "test")[200][0]
    first.save(folder / "cars.png")
    wide = Image.new("RGB", (150, 60), "#cfe")
    wide.paste(first.resize((60, 60)), (45, 0))
    wide.save(folder / "wide.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    wide.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    return folder


def read(path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_texts_over_pictures(residual, pictures, tmp_path):
    files = [pictures / f"{name}.png" for name in ("turned", "wide")]
    words = ("--text", "cars", "--text", "a <cat> $x$", "--json", tmp_path / "j")
    code, shown, err = residual("map", *files, *words, "--device", "cpu")
    assert (code, err) == (0, "")
    assert shown.splitlines()[0].strip() == "by picto, less the mean of 299 texts"
    assert "cosine  patches  other tokens  the rest" in shown
    found = read(tmp_path / "j")
    assert (found["encoder"], found["adapter"], found["of"]) == ("picto", None, "cosine")
    turned, wide = found["mapped"]
    assert (wide["picture"], wide["rows"], wide["cols"]) == ("wide.png", 8, 8)
    assert wide["box"] == pytest.approx([0.3, 0, 0.7, 1], abs=0.01)
    assert turned["box"] == wide["box"]  # upright it is the same picture
    for one, other in zip(turned["maps"], wide["maps"], strict=True):
        assert one["values"] == [pytest.approx(row, abs=1e-6) for row in other["values"]]
    for each in (one for picture in found["mapped"] for one in picture["maps"]):
        parts = sum(map(sum, each["values"])) + each["elsewhere"] + each["rest"]
        assert parts == pytest.approx(each["total"], abs=1e-5)
    assert str(pictures) not in (tmp_path / "j").read_text(encoding="utf-8")


def test_a_figure_of_each_picture(residual, pictures, tmp_path):
    words = ("map", pictures / "wide.png", "--text", "a <cat> $x$", "--figures", tmp_path / "out")
    assert residual(*words)[0] == 0
    names = ("map-wide.png", "map-wide.svg")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(names)
    with Image.open(tmp_path / "out/map-wide.png") as drawn:
        assert drawn.width > 600
    assert "a &lt;cat&gt;" in (tmp_path / "out/map-wide.svg").read_text(encoding="utf-8")
    code, _, err = residual(*words)
    assert (code, "--overwrite" in err) == (2, True)


def test_no_two_pictures_have_one_figure():
    paths = ["a/cat.png", "b/Cat.jpg", "cat-2.png", "cat.png"]
    assert figure_names(paths) == ["map-cat", "map-Cat-2", "map-cat-2-2", "map-cat-3"]


def test_the_heads_that_add_or_take_most(residual, pictures, tmp_path):
    words = ("--text", "cars", "--against", "a cat", "--json", tmp_path / "j")
    code, shown, _ = residual("map", pictures / "cars.png", *words, "--top", 48)
    (found,) = read(tmp_path / "j")["mapped"]
    top, adds = found["maps"], [each["total"] - each["rest"] for each in found["maps"]]
    sizes = [abs(each) for each in adds]
    assert (code, len(top), sizes) == (0, 48, sorted(sizes, reverse=True))
    told = f"48 heads add {sum(adds):+.3f}: {sum(each > 0 for each in adds)} for it"
    assert (found["about"], f"cars.png: {told}" in shown) == (told, True)
    best = top[0]["name"].partition(":")[0]
    assert top[0]["name"] == f"{best}: cars against a cat"
    assert residual("map", pictures / "cars.png", *words, "--head", best, "--overwrite")[0] == 0
    (alone,) = read(tmp_path / "j")["mapped"][0]["maps"]
    assert alone["values"] == [pytest.approx(row, abs=1e-6) for row in top[0]["values"]]


def test_classes_of_a_dataset_and_of_an_adapter(residual, picto, pictures, tmp_path):
    told = ("--json", tmp_path / "j", "--overwrite")
    assert residual("map", pictures / "cars.png", "--dataset", "counting", *told)[0] == 0
    (taken,) = read(tmp_path / "j")["mapped"]
    assert (taken["about"], taken["maps"][0]["name"]) == ("taken for 'three cars'", "three cars")

    classifier = ZeroShotClassifier.from_text(picto, CLASSES, ["{}"])
    adapted = AdaptedEncoder(picto, LinearMap(192, 2 * torch.eye(192)), classifier)
    adapted.save_pretrained(tmp_path / "adapter")
    words = ("--adapter", tmp_path / "adapter", "--class", "two cats", "--against", "three cars")
    assert residual("map", pictures / "cars.png", *words, *told)[0] == 0
    found = read(tmp_path / "j")
    pixels = picto.pixels([Image.open(pictures / "cars.png")])
    logits = adapted(pixels).detach()[0]
    assert (found["adapter"], found["of"]) == ("adapter", "logit")
    (each,) = found["mapped"][0]["maps"]
    assert each["total"] == pytest.approx(float(logits[1] - logits[2]), abs=1e-3)


def test_components(residual, picto, pictures, tmp_path):
    store = encode_dataset(picto, load_dataset("letters", "val").sample(8), kinds=("head",))
    fit_bases(store).save(tmp_path / "bases.safetensors")
    words = ("--component", "7.2:0", "--component", "6.5:3", "--bases", tmp_path / "bases.safetensors")
    code, shown, _ = residual("map", pictures / "cars.png", *words)
    assert (code, "score" in shown, " 6.5:3 " in shown) == (0, True, True)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return transformers_folder("ViTModel", tmp_path_factory.mktemp("vit")).name


def test_refusals_are_one_sentence(residual, vit, pictures, tmp_path):
    (tmp_path / "no picture.png").write_text("nothing")
    (tmp_path / "bases").write_text("nothing")
    cars = pictures / "cars.png"
    for words, message in (
        ((cars,), "What to look for isn't said"),
        ((tmp_path / "none.png", "--text", "a"), "Image 'none.png' can't be read (No such file"),
        ((tmp_path / "no picture.png", "--text", "a"), "it is no image of a known format"),
        ((pictures, "--text", "a"), "is a folder, and pictures are files"),
        ((cars, "--text", "a", "--class", "b"), "Maps of one kind at a time"),
        ((cars, "--text", "a", "--head", "1.1", "--top", 2), "Heads are named, or the best are taken"),
        ((cars, "--text", "a", "--text", "b", "--top", 2), "The best heads are those of one text or class"),
        ((cars, "--text", "a", "--dataset", "mnist"), "A dataset is for its classes"),
        ((cars, "--text", "a", "--encoder", vit), "has no text tower"),
        ((cars, "--text", "a", "--encoder", "pikto"), "Did you mean 'picto'"),
        ((cars, "--against", "b"), "What is against it needs a text or a class"),
        ((cars, "--component", "7.2:0"), "Maps of components need the bases"),
        ((cars, "--component", "7.2:0", "--bases", tmp_path / "bases"), "bases"),
        ((cars, "--text", "a", "--figures", cars), "can't be written"),
    ):
        code, shown, err = residual("map", *words)
        assert (code, shown, message in err, err.count("\n")) == (2, "", True, 1), (words, err)
