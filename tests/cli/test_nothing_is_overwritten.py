"""Every command that writes: what isn't its own is refused by name and left alone, its own is replaced only
with --overwrite, and both are told before any work.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ADAPTER, STORE = TESTS / "adapters/old/residual", TESTS / "store/old/store"
# What each command is called with; none of it is there, so that work that begins is told from a refusal.
FOLDERS = {
    "--out": ("train", "--dataset", "nowhere"),
    "--report": ("run", "--dataset", "nowhere"),
    "--figures": ("analyze", "nowhere"),
}
FILES = {
    "run": ("run", "--dataset", "nowhere", "--json"),
    "train": ("train", "--dataset", "nowhere", "--out", "new", "--json"),
    "evaluate": ("evaluate", "./nowhere", "--dataset", "nowhere", "--json"),
    "encode": ("encode", "--dataset", "nowhere", "--out", "new", "--json"),
    "bases only": ("encode", "--dataset", "nowhere", "--bases-only", "--out"),
    "bases": ("bases", "nowhere", "--out"),
    "analyze": ("analyze", "nowhere", "--json"),
    "heads": ("heads", "nowhere", "--json"),
    "describe": ("describe", "nowhere", "--dictionary", "words", "--page"),
    "map": ("map", "nowhere", "--text", "a cat", "--json"),
    "verify": ("verify", "nowhere", "--json"),
    "manifest": ("datasets", "nowhere", "--split", "test", "--manifest"),
    "encoders": ("encoders", "--json"),
    "experiment": ("experiment", "1", "--dry-run", "--json"),
}


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def held(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def refused(residual, place: Path, *words: str | Path) -> str:
    """What the command says, with and without --overwrite; nothing was touched."""
    before, said = held(place), []
    for more in ((), ("--overwrite",)):
        code, shown, error = residual(*words, *more)
        assert (code, shown) == (2, "")
        assert "nowhere" not in error
        said.append(error)
    assert held(place) == before
    assert said[0] == said[1]
    return said[0]


def written(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("option", FOLDERS)
def test_a_folder_of_somebody_elses_is_refused_by_what_is_in_it(residual, inside, option):
    words = (*FOLDERS[option], option)
    written(inside / "notes/README.md", "# My thesis\n")
    assert "'notes' holds 'README.md'" in refused(residual, inside, *words, "notes")
    for name in (".git/config", "src/a.py", "b.txt"):
        written(inside / "checkout" / name)
    os.chdir(inside / "checkout")
    assert "'.' holds '.git', 'b.txt' and 'src'" in refused(residual, inside, *words, ".")
    os.chdir(inside)
    shutil.copytree(STORE, inside / "store")
    assert "'store' holds a store" in refused(residual, inside, *words, "store")
    if option != "--out":
        shutil.copytree(ADAPTER, inside / "adapter")
        assert "'adapter' holds an adapter" in refused(residual, inside, *words, "adapter")
    written(inside / "file")
    assert "it is a file, and a folder is wanted" in refused(residual, inside, *words, "file")
    assert "'file' is no folder" in refused(residual, inside, *words, "file/below")
    (inside / "loop").symlink_to("loop")
    assert "it is a link to itself" in refused(residual, inside, *words, "loop")
    (inside / "link").symlink_to("gone")
    assert "is a link to 'gone', which isn't there" in refused(residual, inside, *words, "link")


@pytest.mark.parametrize("command", FILES)
def test_a_file_of_another_kind_is_refused_and_told(residual, inside, command):
    words, place = FILES[command], inside / "there"
    shutil.copy(ADAPTER / "adapter_config.json", place)
    assert "'there' is the config of an adapter: it is no place for" in refused(
        residual, inside, *words, place.name
    )
    place.write_text('{"pictures": 3}')
    assert "'there' is JSON of something else" in refused(residual, inside, *words, place.name)
    place.write_text("To do: buy milk\n")
    assert "'there' is a text" in refused(residual, inside, *words, place.name)
    place.unlink()
    place.mkdir()
    assert "it is a folder, and a file is wanted" in refused(residual, inside, *words, place.name)


def test_an_adapter_is_replaced_on_request_and_its_card_only_where_it_is_one(residual, inside):
    shutil.copytree(ADAPTER, inside / "mine")
    train = ("train", "--encoder", "nowhere", "--out", "mine")
    before = held(inside)
    code, shown, error = residual(*train)
    assert (code, shown) == (2, "")
    assert error == "residual: 'mine' holds an adapter already. To replace it: --overwrite.\n"
    written(inside / "mine/notes.txt")
    assert "Unknown encoder 'nowhere'" in residual(*train, "--overwrite")[2]
    assert held(inside) == {**before, "mine/notes.txt": b"mine"}
    written(inside / "mine/README.md", "# My own words\n")
    code, _, error = residual(*train, "--overwrite")
    assert code == 2
    assert "'mine' holds 'README.md': it is no place for an adapter" in error


@pytest.mark.parametrize("left", ["", "seed-0", "seed-0/csv/metrics.csv", "seed-1/wandb/run/files/a.yaml"])
def test_a_fine_tuning_stopped_before_its_first_checkpoint_goes_on(residual, inside, left):
    place = inside / "mine/training" / left
    (place.parent if place.suffix else place).mkdir(parents=True)
    place.suffix and place.touch()
    tune = ("train", "--dataset", "nowhere", "--out", "mine")
    assert "nowhere" in residual(*tune, "--method", "fine_tuning")[2]
    assert "holds a fine-tuning that hasn't come to its end" in residual(*tune)[2]
    (inside / "mine/training/notes.txt").touch()
    refused(residual, inside, *tune, "--method", "fine_tuning")


def test_two_things_in_one_place_and_empty_places(residual, inside):
    train = ("train", "--encoder", "nowhere", "--out", "a", "--figures", "b/../a")
    assert "--out and --figures are both" in residual(*train)[2]
    (inside / "empty").mkdir()
    written(inside / "empty/.DS_Store")
    written(inside / "nothing.json", "")
    more = ("--out", "empty", "--json", "nothing.json", "--figures", "deep/new")
    words = ("train", "--encoder", "nowhere", *more)
    assert "Unknown encoder 'nowhere'" in residual(*words)[2]
    assert sorted(held(inside)) == ["empty", "empty/.DS_Store", "nothing.json"]  # no folder is left behind


def test_two_commands_at_once_are_one_too_many(residual, inside):
    code = (
        "import sys; from residual.outputs import claimed\n"
        "with claimed('out', True), claimed('a.json'): print(1, flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"1\n"
        wanted = f"Process {other.pid} is writing to"
        for words in (
            ("train", "--out", "out"),
            ("run", "--report", "out"),
            ("encoders", "--json", "a.json"),
        ):
            code, shown, error = residual(*words, *(("--dataset", "nowhere") if len(words[0]) < 6 else ()))
            assert (code, shown) == (2, "")
            assert wanted in error
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    assert "Unknown encoder" in residual("train", "--encoder", "nowhere", "--out", "out")[2]
    assert residual("encoders", "--json", "a.json")[0] == 0
    assert [*held(inside)] == ["a.json", "out"]


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="a folder that is closed to root, too")
def test_a_closed_place_is_told_before_work(residual):
    for words in (("train", "--out"), ("run", "--json")):
        code, shown, error = residual(*words, "/proc/self/new/x", "--dataset", "nowhere")
        assert (code, shown) == (2, "")
        assert "can't be" in error
