"""`residual heads`: its table, JSON and figures, from stores on the disk; what doesn't fit is told."""

from __future__ import annotations

import json

from PIL import Image

from residual import ResidualStore
from residual.heads import score_units, top_share
from residual.workflows.store_origin import classifier_of, encoder_of

FEW = ("--param", "ScoreboardSettings.shares=(0.05, 0.5)", "--param", "ScoreboardSettings.seeds=4")


def test_the_scoreboard_of_a_store(residual, stores, tmp_path):
    code, shown, err = residual(
        "heads",
        stores / "val",
        "--test",
        stores / "test",
        "--train",
        stores / "train",
        "--dictionary",
        "attributes",
        "--json",
        tmp_path / "told.json",
        "--figures",
        tmp_path / "figures",
        *FEW,
    )
    assert code == 0, err
    assert "picto: heads chosen on digits/val, tested on digits/test" in shown
    for row in ("all units", "all heads", "S alone", "U|T in span", "U output", "P texts", "O trained"):
        assert row in shown
    told = json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))
    assert {row["way"] for row in told["rows"]} >= {"accuracy", "pursuit", "trained", "random"}
    assert len(told["scores"]) == 48
    store = ResidualStore.open(stores / "val")
    scores = score_units(store, classifier_of(store, encoder_of(store)), ("accuracy",))
    assert told["selections"]["accuracy 0.05"] == top_share(scores["accuracy"], 0.05, scores["unit"])
    assert told["jaccard"]["accuracy 0.5"]["accuracy 0.5"] == 1
    for name in ("scoreboard", "scores-accuracy", "scores-trained"):
        with Image.open(tmp_path / f"figures/{name}.png") as image:
            assert min(image.size) > 200
        assert (tmp_path / f"figures/{name}.svg").is_file()


def test_one_store_is_halved(residual, stores):
    code, shown, _ = residual("heads", stores / "val", *FEW)
    assert code == 0
    assert "tested on the other half of digits/val" in shown


def test_what_does_not_fit(residual, stores):
    for words, message in (
        (("heads", "--param", "ScoreboardSettings.mode=median"), "mode takes 'zero' or 'mean'; got 'median'"),
        (
            ("heads", "--param", "ScoreboardSettings.shares=(2.0,)"),
            "each above 0 and at most 1; got (2.0,)",
        ),
        (("val", "--test", stores / "flags"), "don't belong together: class_names"),
        (("heads",), "without units of kind emb, mlp"),
        (("none",), "There is no store at"),
        (("val", "--dictionary", "wrods"), "Did you mean 'words'"),
        (("val", "--encoder", "pictoo"), "Did you mean 'picto'"),
    ):
        code, _, err = residual("heads", stores / words[0], *words[1:])
        assert (code, message in err, "Traceback" in err) == (2, True, False), (words, err)
