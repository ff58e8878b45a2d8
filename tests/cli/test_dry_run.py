"""`residual experiment --dry-run`, and what the command does where something can't be had."""

from __future__ import annotations

import json
import re
import shutil

from pictures import write_folder

from residual.experiments import read_results

CHEAP = ("--param", "experiment.limit=6", "--param", "experiment.reference=letters", "--device", "cpu")


def test_a_dry_run_lists_everything_that_is_missing(residual, tmp_path):
    out = tmp_path / "out"
    words = ("experiment", "1", *CHEAP, "--out", out, "--dry-run", "--json", tmp_path / "it.json")
    words += ("--overwrite",)
    code, shown, err = residual(*words, "--param", "experiment.datasets=['flags']")
    assert (code, err) == (0, "")
    assert re.search(r"^picto +comes with the library +8 +192 +13\.3 MB +yes", shown, re.MULTILINE)
    assert re.search(r"^flags +ships with residual +2,000 +50 +yes", shown, re.MULTILINE)
    lacking = f"experiment.datasets=['flags','folder:{tmp_path}/a','folder:{tmp_path}/b','cifar10']"
    encoders = "experiment.encoders=['picto','vit_l','hf:some/encoder-with-a-name-that-is-far-too-long']"
    code, shown, err = residual(*words, "--param", lacking, "--param", encoders)
    assert code == 1
    assert "encoder-with-a-name-that-is-far-too-long " in shown
    lines = err.splitlines()
    assert len(lines) == 3
    assert "HF_HUB_OFFLINE is set. It holds what is needed of vit_l, hf:some/encoder" in lines[0]
    assert "/a' is not there" in lines[1]
    assert "/b' is not there" in lines[2]
    told = json.loads((tmp_path / "it.json").read_text())
    assert [each["error"] is None for each in told["encoders"]] == [True, False, False]
    assert not out.exists()


def test_what_can_be_measured_is_and_the_same_command_tries_the_rest(residual, monkeypatch, tmp_path):
    monkeypatch.setattr("residual.experiments.running.save_figure", lambda *_: [])
    out, gone = tmp_path / "out", tmp_path / "gone"
    words = ("experiment", "class-token", *CHEAP, "--out", out, "--json", tmp_path / "it.json")
    words += ("--param", f"experiment.datasets=['folder:{gone}','flags']")
    code, shown, err = residual(*words)
    assert code == 1
    assert re.search(r"^flags( +\S+)+$", shown, re.MULTILINE)
    assert "2 cells, 2 of them measured now" in shown
    first, failed, last = err.splitlines()
    assert first.startswith("missing: folder:gone-")
    assert re.match(r"failed: picto on folder:gone-\w{8}: Image folder .* is not there", failed)
    assert last == "The same command tries these again, with --overwrite."
    words += ("--overwrite",)
    assert [each["dataset"][:11] for each in json.loads((tmp_path / "it.json").read_text())["failed"]] == [
        "folder:gone"
    ]
    write_folder(gone, each=4)
    for path in gone.rglob("*.png"):
        content = path.read_bytes()
        path.write_bytes(b"no picture")
    code, shown, err = residual(*words)  # it fails in the middle of its work
    assert (code, "2 cells, 0 of them measured now" in shown) == (1, True)
    assert re.match(r"failed: .* 6 images of folder:.*--param experiment.most_skipped_share=S\.\n", err)
    for path in gone.rglob("*.png"):
        path.write_bytes(content)
    code, shown, err = residual(*words)
    assert (code, err, "3 cells, 1 of them measured now" in shown) == (0, "", True)
    assert len(read_results(out / "class_token")["picto"]) == 3
    shutil.rmtree(gone)  # what is done is drawn all the same
    code, shown, err = residual(*words)
    assert (code, "3 cells, 0 of them measured now" in shown) == (0, True)
    assert err.startswith("missing: folder:gone-")
