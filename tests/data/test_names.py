"""Datasets and encoders by what people call them: understood without doubt, suggested where there is one."""

from __future__ import annotations

import os

import datasets
import numpy as np
import pytest
from PIL import Image

from residual.data import load_dataset
from residual.data.load import dataset_name
from residual.encoders.names import encoder_name
from residual.errors import ResidualError, UnderstoodWarning


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that commands run in, with a folder of pictures and more."""
    for place in ("pictures", "letters", "home/pictures", "shards/train"):
        (tmp_path / place / "cats").mkdir(parents=True)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").touch()
    (tmp_path / "tars").mkdir()
    for file in ("shards/train/0.tar", "tars/0.tar", "one.tar", "here.csv", "cat.png"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def test_names_without_a_form_that_leave_no_doubt(here):
    for name, whole in {
        "letters": "letters",
        "folder:x": "folder:x",
        "pictures": "folder:pictures",
        "./letters": "folder:./letters",
        "pictures/": "folder:pictures/",
        str(here / "pictures"): f"folder:{here}/pictures",
        "~/pictures": "folder:~/pictures",
        "saved": "disk:saved",
        "shards": "wds:shards",
        "tars": "wds:tars/*.tar",
        "one.tar": "wds:one.tar",
        "https://host/{000..012}.tar": "wds:https://host/{000..012}.tar",
        "ylecun/mnist": "hf:ylecun/mnist",
        "ylecun/mnist@main:mnist": "hf:ylecun/mnist@main:mnist",
        "https://huggingface.co/datasets/ylecun/mnist": "hf:ylecun/mnist",
    }.items():
        assert dataset_name(name) == whole


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("foldr:pictures", "Unknown dataset 'foldr:pictures'. Did you mean 'folder:pictures'"),
        ("picture", "Unknown dataset 'picture'. Did you mean 'pictures'"),
        ("./picture", r"There is no folder './picture' \(did you mean 'pictures', in '/"),
        (r"C:\pictures", "There is no folder 'C:"),
        (
            "pictures/dogs",
            r"no folder here, but 'pictures' is one \(in .*'cats'\).*hub is 'hf:pictures/dogs'",
        ),
        ("here.csv", r"'here.csv' is a file that isn't read .*Dataset.from_csv\('here.csv'\).*'disk:here'"),
        ("data/shapes.parquet", r"would be a file, and isn't here.*from_parquet\('data/shapes.parquet'\)"),
        ("shapes.zip", "Unpack it, and name the folder: 'folder:PATH'"),
        ("a/shapes.npz", "Arrays are given from Python: `encode_dataset` takes them"),
        ("./cat.png", "is a file, and no dataset. Name the folder whose sub-folders are classes"),
    ],
)
@pytest.mark.usefixtures("here")
def test_names_that_leave_a_doubt_are_answered_with_the_way_out(name, answer):
    with pytest.raises(ResidualError, match=answer):
        dataset_name(name)


@pytest.mark.usefixtures("here")
def test_a_dataset_that_is_known_wins_over_a_folder_of_its_name_which_is_told():
    with pytest.warns(
        UnderstoodWarning, match="'letters' is the dataset known by that name; .* 'folder:letters'"
    ):
        assert load_dataset("letters", "test").name == "letters"


def test_a_folder_by_its_path_is_the_same_dataset(tmp_path):
    for label in ("cats", "dogs"):
        for place in range(3):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / label / f"{place}.png")
    plain, whole = load_dataset(str(tmp_path), "val"), load_dataset(f"folder:{tmp_path}", "val")
    assert (plain.name, plain.sample_ids) == (whole.name, whole.sample_ids)


def test_a_table_of_files_is_read_by_the_way_that_the_error_tells(here):
    rows = ["image,label"]
    for place in range(12):
        Image.fromarray(np.full((8, 8, 3), 20 * place, np.uint8)).save(here / f"{place}.png")
        rows.append(f"{here / f'{place}.png'},{'dog' if place % 2 else 'cat'}")
    (here / "shapes.csv").write_text("\n".join(rows))
    with pytest.raises(ResidualError, match=r"Dataset\.from_csv"):
        dataset_name("shapes.csv")
    table = datasets.Dataset.from_csv("shapes.csv", cache_dir=str(here / "cache"))
    table.cast_column("image", datasets.Image()).save_to_disk("shapes")
    os.remove(here / "3.png")
    data = load_dataset("shapes", "train")
    assert (data.name, data.class_names, len(data)) == ("disk:shapes", ("cat", "dog"), 8)
    assert {data[row][0].getpixel((0, 0))[0] // 20 % 2 == data[row][1] for row in range(8)} == {True}


@pytest.mark.usefixtures("here")
def test_encoders_by_what_people_call_them():
    assert encoder_name("openai/clip-vit-base-patch32") == "hf:openai/clip-vit-base-patch32"
    assert encoder_name("facebook/dinov2-base@main") == "hf:facebook/dinov2-base@main"
    assert encoder_name("clip_b") == "clip_b"
    for name, meant in {
        "timm/vit_base_patch16_224.augreg": "'timm:vit_base_patch16_224.augreg' or 'open_clip:hf-hub:timm",
        "ViT-B-16": "'open_clip:ViT-B-16/TAG'",
        "ViT-B-16/openai": "'open_clip:ViT-B-16/openai'",
        "vit_base_patch16_224": "'timm:vit_base_patch16_224'",
        "openclip:ViT-B-16/openai": "'open_clip:ViT-B-16/openai'",
        "pictures/model": "'hf:pictures/model'",
        "./pictures": "'hf:./pictures' or 'open_clip:./pictures' or 'timm:./pictures'",
    }.items():
        with pytest.raises(ResidualError, match=f"Unknown encoder '{name}'. Did you mean {meant}"):
            encoder_name(name)
