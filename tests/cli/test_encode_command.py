"""`residual encode`, `bases` and `verify`, as they are called."""

import json

import pytest
import torch

from residual import ResidualStore, SpectralBases, fit_bases
from residual.spectral import UnitMoments

DATA = ("--dataset", "letters", "--split", "val")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of 60 pictures, made by the command in a process of its own memory."""
    from residual.cli.app import app

    folder = tmp_path_factory.mktemp("made")
    path = folder / "store"
    words = ["encode", *DATA, "--limit", "60", "--batch-size", "16", "--out", str(path), "--json"]
    app([*words, str(folder / "told.json")], standalone_mode=False)
    return path, json.loads((folder / "told.json").read_text())


def test_encode_tells_what_it_made(made):
    path, told = made
    store = ResidualStore.open(path)
    assert (len(store), store.dataset, store.encoder_name) == (60, "letters/val", "picto")
    assert (told["samples"], told["complete"], told["skipped"]) == (60, True, {})
    assert told["bytes"] == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert told["sentence"].startswith("store: 60 samples of letters/val by picto")


def test_again_does_nothing_and_other_arguments_are_refused(made, residual):
    path, _ = made
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    code, out, _ = residual("encode", *DATA, "--limit", "60", "--out", path)
    assert (code, "0 images in" in out) == (0, True)
    code, _, err = residual("encode", *DATA, "--limit", "59", "--out", path)
    assert code == 2
    assert "holds something else: number of samples 60, not 59" in err
    code, _, err = residual("encode", *DATA, "--limit", "60", "--out", path, "--kinds", "head")
    assert (code, "kinds" in err) == (2, True)
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_bases_from_stores_and_without_one(made, residual, tmp_path):
    path, _ = made
    assert residual("bases", path, "--out", tmp_path / "stored.safetensors", "--device", "cpu")[0] == 0
    words = ("encode", *DATA, "--limit", "60", "--bases-only", "--kinds", "head", "--batch-size", "16")
    assert residual(*words, "--out", tmp_path / "streamed.safetensors")[0] == 0
    for part in (1, 2, 3):
        assert residual(*words, "--out", tmp_path / f"{part}.moments", "--part", f"{part}/3")[0] == 0
    parts = [tmp_path / f"{part}.moments" for part in (1, 2, 3)]
    assert residual("bases", *parts, "--out", tmp_path / "merged.safetensors")[0] == 0

    stored, streamed, merged = (
        SpectralBases.load(tmp_path / f"{name}.safetensors") for name in ("stored", "streamed", "merged")
    )
    assert stored.units == streamed.units == merged.units
    assert stored.origin.samples == streamed.origin.samples == merged.origin.samples == 60
    for one, two, three in zip(stored.eigenvalues, streamed.eigenvalues, merged.eigenvalues, strict=True):
        torch.testing.assert_close(two[:8], three[:8], rtol=1e-6, atol=0)
        torch.testing.assert_close(one[:3], two[:3], rtol=1e-2, atol=0)  # float16 against float32
    assert not list(tmp_path.glob("*.unfinished"))


def test_patches_count_as_samples(residual, tmp_path):
    out = tmp_path / "patches.safetensors"
    words = ("encode", *DATA, "--limit", "4", "--bases-only", "--kinds", "head", "--pooling", "patches")
    assert residual(*words, "--out", out)[0] == 0
    origin = SpectralBases.load(out).origin
    assert (origin.samples, origin.pooling) == (4 * 64, "patches")


def test_a_run_without_a_store_goes_on_from_its_checkpoint(residual, tmp_path, monkeypatch):
    from residual.spectral import fit

    monkeypatch.setattr(fit, "SECONDS_BETWEEN", -1.0)  # after every batch
    words = ("encode", *DATA, "--limit", "40", "--bases-only", "--kinds", "head", "--batch-size", "8")
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    assert residual(*words, "--out", whole)[0] == 0

    update, seen = UnitMoments.update, []

    def broken(self, batch):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(len(batch))
        update(self, batch)

    monkeypatch.setattr(UnitMoments, "update", broken)
    with pytest.raises((KeyboardInterrupt, AssertionError)):
        assert residual(*words, "--out", cut)[0] == 0
    monkeypatch.setattr(
        UnitMoments, "update", lambda self, batch: (seen.append(len(batch)), update(self, batch))
    )
    assert (tmp_path / "cut.safetensors.unfinished").is_file()
    code, _, err = residual(*words[:5], "--limit", "39", *words[7:], "--out", cut)
    assert (code, "is of another run" in err) == (2, True)
    assert residual(*words, "--out", cut)[0] == 0
    assert sum(seen) == 40
    for one, two in zip(
        SpectralBases.load(whole).eigenvalues, SpectralBases.load(cut).eigenvalues, strict=True
    ):
        torch.testing.assert_close(one, two)


def test_verify_finds_a_changed_byte(made, residual, tmp_path):
    import shutil

    path, _ = made
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    assert residual("verify", copy)[:2] == (0, f"{ResidualStore.open(copy)}: no damaged files.\n")
    with (copy / "z/c/0/0/0/0").open("r+b") as file:
        file.seek(100)
        byte = file.read(1)[0]
        file.seek(100)
        file.write(bytes([byte ^ 1]))
    code, out, err = residual("verify", copy, "--sample", "1", "--json", tmp_path / "found.json")
    assert (code, "1 damaged file" in out) == (1, True)
    assert "z/c/0/0/0/0 holds a changed byte. Spoilt: 60 samples" in err
    assert "run the same `encode` again" in err
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["file"] for one in found["damages"]] == ["z/c/0/0/0/0"]
    (copy / "z/c/0/0/0/0").unlink()
    assert residual("encode", *DATA, "--limit", "60", "--batch-size", "16", "--out", copy)[0] == 0
    assert (copy / "z/c/0/0/0/0").read_bytes() == (path / "z/c/0/0/0/0").read_bytes()
    receipt = copy / "receipts/000000.json"
    receipt.write_bytes(b"{}")
    code, _, err = residual("verify", copy)
    assert (code, "receipts/000000.json isn't what was written. Spoilt: 60 samples" in err) == (1, True)
    receipt.unlink()
    code, _, err = residual("verify", copy)
    assert (code, f"'{copy}' isn't complete: 0 of 60 samples are there" in err) == (1, True)


def test_broken_images_are_listed(residual, tmp_path):
    from PIL import Image

    for split in ("train", "val", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (64, 64), (40 * number, 90, 10)).save(folder / f"{number}.png")
    (tmp_path / "pictures/train/cat/2.png").write_bytes(b"")
    words = ("encode", "--dataset", f"folder:{tmp_path / 'pictures'}", "--out", tmp_path / "store")
    code, _, err = residual(*words)
    assert (code, "Image 'train/cat/2.png' can't be read" in err) == (2, True)
    code, _, err = residual(*words, "--on-error", "skip", "--json", tmp_path / "told.json")
    assert code == 0
    store = ResidualStore.open(tmp_path / "store")
    told = json.loads((tmp_path / "told.json").read_text())
    assert list(told["skipped"]) == list(store.skipped) == ["train/cat/2.png"]
    assert "left out, can't be read: train/cat/2.png (it is empty" in err
    assert len(store) == 7
    (tmp_path / "pictures/train/dog/3.png").write_bytes((tmp_path / "pictures/train/dog/0.png").read_bytes())
    code, _, err = residual(*words, "--on-error", "skip", "--check", "all")
    assert (code, err.count("\n"), "'train/dog/3.png' is another image than the one" in err) == (2, 1, True)


def test_settings_and_refusals(residual, tmp_path):
    bound = {"dataset": "letters", "split": "val", "kinds": "head"}
    (tmp_path / "it.gin").write_text("\n".join(f"encode.{name} = {bound[name]!r}" for name in bound))
    words = ("encode", "--cfg", tmp_path / "it.gin", "--param", "encode.limit=8")
    assert residual(*words, "--out", tmp_path / "store")[0] == 0
    store = ResidualStore.open(tmp_path / "store")
    assert (len(store), store.dataset, store.kinds) == (8, "letters/val", ("head",))
    assert fit_bases(store).all_means is None
    for more, message in (
        (("--part", "9"), "A part looks like 2/8"),
        (("--check", "every"), "check is 'some' or 'all'"),
        (("--bases-only", "--check", "all"), "only a store can be checked for all"),
        (("--bases-only", "--shard-mb", "128"), "Bases alone have no shards"),
        (("--part", "3/2"), "A part is"),
        (("--kinds", "heads"), "Kinds of unit are"),
        (("--limit", "9"), "--limit is 9, and --param encode.limit is 8: leave out one"),
        (("--dtype", "int8"), "--dtype takes 'float16' or 'float32'"),
        (("--param", "encode.colour=red"), "A setting can't be used"),
        (("--pooling", "middle"), "Unknown pooling 'middle'"),
    ):
        code, _, err = residual(*words, "--out", tmp_path / "other", *more)
        assert (code, message in err) == (2, True), (more, err)
    assert not (tmp_path / "other").exists()
    code, _, err = residual("bases", tmp_path / "nowhere", "--out", tmp_path / "b.safetensors")
    assert (code, "There is no store at" in err) == (2, True)


def test_a_misspelt_dataset_is_told_before_an_encoder_is_loaded(residual, tmp_path, monkeypatch):
    for module in ("workflows.encode", "adapters.config"):
        monkeypatch.setattr(f"residual.{module}.load_encoder", lambda *_, **__: pytest.fail("loaded"))
    for words in (("encode", "--out", tmp_path / "x"), ("evaluate", "nobody/nothing", "--encoder", "picto")):
        code, _, err = residual(*words, "--dataset", "minst")
        assert (code, "Unknown dataset 'minst'. Did you mean 'mnist'" in err) == (2, True)
