"""`residual describe`, as it is called: a table, JSON and a page; what doesn't fit is told in a sentence."""

from __future__ import annotations

import json
import shutil

import pytest
from pictures import write_folder
from saved import transformers_folder
from tiny import TinyImages, tiny_encoder

from residual import ResidualStore, encode_dataset, fit_bases, load_dataset, load_encoder
from residual.heads import score_units
from residual.text import TextDictionary, somp, weighted_components
from residual.workflows.store_origin import classifier_of

N = 60
TEXTS = ("the letter A", "the letter O", "a round shape", "a thin line", "something red", "a dark picture")


@pytest.fixture(scope="module")
def encoder(picto):
    return picto


@pytest.fixture(scope="module")
def stores(stores):
    (stores / "texts.txt").write_text("# few\n" + "\n".join(TEXTS), encoding="utf-8")
    return stores


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Names of a CLIP and of an encoder without text, and a store by the latter and one by no known name."""
    folder = tmp_path_factory.mktemp("saved")
    clip, vit = (transformers_folder(kind, folder / kind).name for kind in ("CLIPModel", "ViTModel"))
    encode_dataset(load_encoder(vit, device="cpu"), TinyImages(8), folder / "by vit")
    encode_dataset(tiny_encoder(), TinyImages(8), folder / "by tiny", dtype="float32")
    return {"clip": clip, "vit": vit, "by vit": folder / "by vit", "by tiny": folder / "by tiny"}


def read(path) -> dict:
    """JSON as others read it: no NaN."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def few(stores) -> tuple:
    return "--dictionary", stores / "texts.txt", "--atoms", 3


def test_named_heads_in_terminal_json_and_page(encoder, stores, residual, tmp_path):
    page, told = tmp_path / "deep/heads.html", tmp_path / "deeper/heads.json"
    words = ("--head", "7.2", "--head", "6.5", "--components", 2, "--images", 3, "--device", "cpu")
    code, shown, err = residual(
        "describe", stores / "letters", *few(stores), *words, "--page", page, "--json", told
    )
    assert (code, err) == (0, "")
    assert shown.splitlines()[0].strip() == "picto on letters/val, 60 samples"
    assert [line.split()[0] for line in shown.splitlines() if line.startswith((" 7.2", " 6.5"))] == [
        "7.2",
        "6.5",
    ]
    assert f"The page to look at: {page}" in shown
    for kind in ("src=", 'class="map"'):  # each picture has its map below
        assert page.read_text(encoding="utf-8").count(f"<img {kind}") == 2 * 2 * 2 * 3
    for file in (page, told):  # they are for others
        assert str(stores) not in file.read_text(encoding="utf-8")
    found = read(told)
    assert found["store"] == "letters"
    about = [
        found[name] for name in ("encoder", "dataset", "pooling", "samples", "heads_of_encoder", "notes")
    ]
    assert about[:5] == ["picto", "letters/val", "own", N, 48]
    suited = found["dictionary"].pop("suited")  # six texts of colours and kinds say little of letters
    assert (suited["suits"], suited["count"]) == (False, 3)
    assert found["notes"][0].startswith("The dictionary can't describe these pictures: the best 3 of its")
    assert found["dictionary"] == {"source": "texts.txt", "entries": 6}
    assert found["settings"]["atoms"] == 3
    store = ResidualStore.open(stores / "letters")
    bases, texts = fit_bases(store), TextDictionary.encode(encoder, TEXTS)
    scores = score_units(store, classifier_of(store, encoder), ("accuracy",)).set_index("unit")["accuracy"]
    assert [head["name"] for head in found["heads"]] == ["7.2", "6.5"]
    for head, unit in zip(found["heads"], (9 + 7 * 6 + 2, 9 + 6 * 6 + 5), strict=True):
        assert head["unit"] == unit
        assert head["score"] == pytest.approx(scores[unit])
        assert head["rank"] == 1 + sum(scores > scores[unit])
        wanted = somp(weighted_components(bases, unit), texts, 3, "std", centre=False)
        assert tuple(chosen["text"] for chosen in head["texts"]) == wanted.texts
        explained = [chosen["explained_variance"] for chosen in head["texts"]]
        assert explained == pytest.approx(wanted.explained_variance.tolist(), abs=1e-4)
        assert sum(head["explained_variance_ratio"]) == pytest.approx(1)
        assert head["eigenvalues"] == pytest.approx(bases.select([unit]).eigenvalues[0].tolist())
        assert [len(each["largest"]) for each in head["components"]] == [3, 3]
        for component in head["components"]:
            assert {end["sample_id"] for end in component["largest"]} <= set(store.sample_ids)


@pytest.mark.parametrize("task", ["accuracy", "span", "correlation"])
def test_the_best_by_each_task(encoder, stores, residual, tmp_path, task):
    words = ("--task", task, "--top", 4, "--json", tmp_path / "told.json")
    assert residual("describe", stores / "letters", *few(stores), *words)[0] == 0
    found = read(tmp_path / "told.json")["heads"]
    store = ResidualStore.open(stores / "letters")
    scores = score_units(store, classifier_of(store, encoder), (task,))[task]
    assert [head["score"] for head in found] == pytest.approx(sorted(scores, reverse=True)[:4])
    assert found[0]["rank"] == 1


def test_the_best_ten_by_accuracy_unless_said_otherwise(stores, residual, tmp_path):
    told = tmp_path / "told.json"
    assert residual("describe", stores / "heads", *few(stores), "--json", told)[0] == 0
    found = read(told)
    assert len(found["heads"]) == 10
    how = found["settings"]
    assert (how["task"], how["criterion"], how["components"], how["images"]) == ("accuracy", "std", 3, 8)


def test_settings_from_a_file_from_params_and_from_options(stores, residual, tmp_path):
    (tmp_path / "few.gin").write_text("DescribeSettings.top = 2\nDescribeSettings.texts = 1\n")
    words = ("--cfg", tmp_path / "few.gin", "--param", "DescribeSettings.criterion=l1", "--json")
    told = tmp_path / "told.json"
    assert residual("describe", stores / "heads", *few(stores), *words, told)[0] == 0
    found = read(told)
    assert (len(found["heads"]), found["settings"]["criterion"]) == (2, "l1")
    assert len(found["heads"][0]["components"][0]["positive_texts"]) == 1
    assert (
        residual("describe", stores / "heads", *few(stores), *words, told, "--overwrite", "--top", 3)[0] == 0
    )
    assert len(read(told)["heads"]) == 3


def test_a_list_that_ships_is_taken_and_told(stores, residual):
    code, shown, _ = residual("describe", stores / "heads", "--head", "5.0")
    assert (code, "By the 299 texts of attributes." in shown) == (0, True)
    assert " 5.0" in shown


def test_pictures_are_left_out_where_the_dataset_is_gone(encoder, stores, residual, tmp_path):
    for split in ("train", "val", "test"):
        write_folder(tmp_path / "digits" / split, each=4)
    name = f"folder:{tmp_path / 'digits'}"
    encode_dataset(encoder, load_dataset(name, "train"), tmp_path / "store")
    words = (
        "describe",
        tmp_path / "store",
        *few(stores),
        "--head",
        "7.0",
        "--page",
        tmp_path / "heads.html",
        "--overwrite",
    )
    named = (*words, "--dataset", name)
    (tmp_path / "digits/train/digit 0/00.png").unlink()
    code, _, err = residual(*named)
    assert code == 0
    assert err.startswith(
        "Not in folder:digits/train any more: 1 of the store's samples, the first 'train/digit 0/00.png'"
    )
    some = (tmp_path / "heads.html").read_text(encoding="utf-8")
    assert some.count("<img src=") + some.count('class="missing"') == 3 * 2 * 6
    assert some.count("<img src=") == some.count('<img class="map"')
    for split in ("train", "val", "test"):
        shutil.rmtree(tmp_path / "digits" / split / "digit 0")
    code, _, err = residual(*named)
    assert (code, "has other classes than" in err, "'a photo of a {}.'" in err) == (0, True, True)
    shutil.rmtree(tmp_path / "digits")
    code, shown, err = residual(*named)
    assert (code, shown, "digits" in err) == (2, "", True)
    code, shown, err = residual(*words)
    assert (code, " 7.0" in shown) == (0, True)
    assert "isn't loaded because a store names it: pictures are left out" in err
    text = (tmp_path / "heads.html").read_text(encoding="utf-8")
    assert "<img " not in text
    assert "isn&#39;t loaded because a store names it" in text


# Refusals


def refused(residual, words, message) -> None:
    code, shown, err = residual("describe", *words)
    assert (code, shown, message in err) == (2, "", True), (words, err)
    assert (err.startswith("residual: "), err.count("\n")) == (True, 1), err


def test_refusals_are_one_sentence(stores, residual, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for name, content in (
        ("empty.txt", "# nothing\n\n"),
        ("twice.txt", "a cat\na dog\na cat\n"),
        ("blank.json", '["a", " "]'),
        ("numbers.json", "[1, 2]"),
        ("binary.txt", b"\xff\xfe\x00"),
        ("two.txt", "a cat\na dog\n"),
    ):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def texts(name):
        return stores / "letters", "--dictionary", tmp_path / name

    known = (stores / "letters", *few(stores))
    for words, message in (
        ((tmp_path / "nowhere", *few(stores)), "There is no store at"),
        ((stores / "mlps", *few(stores)), "letters/val was encoded without heads"),
        ((stores / "patches", *few(stores)), "several tokens an image"),
        ((stores / "heads", *few(stores), "--task", "span"), "without units of kind emb, mlp"),
        (texts("empty.txt"), "A dictionary needs at least one text, got none"),
        (texts("twice.txt"), "The dictionary has 'a cat' twice"),
        (texts("blank.json"), "Entry 1 of the dictionary is empty"),
        (texts("numbers.json"), "holds no list of texts"),
        (texts("binary.txt"), "can't be read as texts"),
        (texts("two.txt"), "The dictionary has 2 entries, so 10 texts can't be chosen of it"),
        ((stores / "letters", "--dictionary", "wrods"), "Did you mean 'words'"),
        ((*known, "--head", "8.0"), "There is no head 8.0: layers are 0 to 7 and heads 0 to 5."),
        ((*known, "--head", "1.6"), "There is no head 1.6: layers are 0 to 7 and heads 0 to 5."),
        ((*known, "--head", "mlp3"), "Unknown unit 'mlp3'. Did you mean 'mlp.3'"),
        ((*known, "--head", "1.2", "--top", "3"), "--top has no effect here: --head names the heads"),
        ((*known, "--task", "beauty"), "--task takes 'accuracy', 'span' or 'correlation'; got 'beauty'"),
        ((*known, "--encoder", "pikto"), "Did you mean 'picto'"),
        ((*known, "--device", "abacus"), "The device 'abacus' isn't there"),
        ((*known, "--param", "DescribeSettings.atom=3"), "A setting can't be used"),
        (
            (*known, "--param", "DescribeSettings.criterion=l3"),
            "or 'cosine'; got 'l3' (--param)",
        ),
        (
            (*known, "--param", "DescribeSettings.threshold=2.0"),
            "below 1; got 2.0 (--param)",
        ),
        ((*known, "--cfg", tmp_path / "no.gin"), "There is no settings file"),
        ((*known, "--json", tmp_path), "can't be written: it is a folder"),
        ((*known, "--page", tmp_path / "file/it.html"), "can't be made"),
    ):
        refused(residual, words, message)


def test_encoders_that_do_not_fit(stores, saved, residual):
    words = (stores / "letters", *few(stores), "--encoder", saved["clip"])
    refused(residual, words, "letters/val was encoded by picto (weights ")
    message = "The encoder of the store, 'tiny', isn't loaded because a store names it"
    refused(residual, (saved["by tiny"], *few(stores)), message)
    words = (saved["by vit"], *few(stores), "--encoder", saved["vit"])
    refused(residual, words, "no text tower, and a dictionary of texts needs one")


def test_the_help_has_examples(residual):
    code, shown, _ = residual("describe", "--help")
    assert code == 0
    for words in ("residual describe letters-test --page heads.html", "default: attributes", "--dataset"):
        assert words in " ".join(shown.split())
