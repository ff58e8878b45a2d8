"""A user's own image folder, in every layout and with every mistake."""

import os
import re
import struct
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from residual.data import kinds, listing, load_dataset
from residual.data.decode import decode_image
from residual.data.layout import listed_once
from residual.data.manifest import Manifest
from residual.errors import LeftOutWarning, ResidualError, UnderstoodWarning, UnreadableImageError

SPLITS = ("train", "val", "test")


def fill(folder, classes=("cats", "dogs"), count=10, suffix="png"):
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (20, 12), (c * 40, i * 5, 7)).save(folder / name / f"{i:03d}.{suffix}")


def load(folder, split="train"):
    return load_dataset(f"folder:{folder}", split)


def test_class_folders_are_split_60_20_20(tmp_path):
    fill(tmp_path, ("big_red-fox", "cats", "dogs"), 20)
    parts = [load(tmp_path, split) for split in SPLITS]
    assert [len(p) for p in parts] == [36, 12, 12]
    assert [np.bincount(p.labels).tolist() for p in parts] == [[12] * 3, [4] * 3, [4] * 3]
    ids = [i for p in parts for i in p.sample_ids]
    assert len(set(ids)) == 60
    assert "big_red-fox/000.png" in ids
    assert parts[0].class_names == ("big red fox", "cats", "dogs")
    assert parts[0].name == f"folder:{tmp_path}"
    image, label = parts[0][0]
    assert (image.mode, image.size) == ("RGB", (20, 12))
    assert label == 0
    assert parts[0].sample_ids == load(tmp_path).sample_ids
    assert all(t.count("{}") == 1 for t in parts[0].templates)


def test_given_splits_are_kept(tmp_path):
    for split, count in zip(SPLITS, (5, 1, 2), strict=True):
        fill(tmp_path / split, count=count)
    assert [len(load(tmp_path, split)) for split in SPLITS] == [10, 2, 4]
    assert load(tmp_path, "val").sample_ids == ("val/cats/000.png", "val/dogs/000.png")


def test_val_is_a_fifth_of_train_where_there_is_none(tmp_path):
    fill(tmp_path / "train", count=10)
    fill(tmp_path / "test", count=3)
    train, val, test = (load(tmp_path, split) for split in SPLITS)
    assert (len(train), len(val), len(test)) == (16, 4, 6)
    assert np.bincount(val.labels).tolist() == [2, 2]
    assert not set(train.sample_ids) & set(val.sample_ids)


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, ("bus", "train"))
    assert load(tmp_path).class_names == ("bus", "train")


def test_small_classes_reach_every_split(tmp_path):
    fill(tmp_path, count=3)
    assert [np.bincount(load(tmp_path, split).labels).tolist() for split in SPLITS] == [[1, 1]] * 3


def test_formats(tmp_path):
    for suffix in ("png", "jpg", "jpeg", "webp", "bmp", "gif", "PNG", "tif", "JFIF", "ppm", "jp2", "tga"):
        fill(tmp_path / suffix, count=3, suffix=suffix)
        assert load(tmp_path / suffix)[0][0].mode == "RGB"


def test_where_the_ending_says_nothing_the_content_does(tmp_path, monkeypatch):
    fill(tmp_path, count=3)
    for place, name in enumerate(("a", "b.img", "c.1", "d.png_large")):
        Image.new("RGB", (20, 12), (place, 0, 0)).save(tmp_path / "cats" / name, "JPEG")
    for name, content in (
        ("e.npy", b"\x93NUMPY"),
        ("f", b"BMW and others"),
        ("g.txt", b"x"),
        ("h.json", b""),
    ):
        (tmp_path / "dogs" / name).write_bytes(content)
    os.mkfifo(tmp_path / "dogs" / "pipe")
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    looked_at = []
    read = listing.read_regular
    monkeypatch.setattr(
        listing, "read_regular", lambda path, **how: looked_at.append(path) or read(path, **how)
    )
    told = (
        r"left out are files that aren't read as images, 5 \(2 with no ending, .*\), such as 'dogs/e.npy', "
        r"'dogs/f' and 3 more; images in no class folder, 1, such as 'outside.png'\."
    )
    with pytest.warns(LeftOutWarning, match=told):
        parts = [load(tmp_path, split) for split in SPLITS]
    assert sum(map(len, parts)) == 10
    assert {path.name for path in looked_at} == {"a", "b.img", "c.1", "d.png_large", "f", "pipe"}


def test_copies_and_half_downloads_are_no_pictures(tmp_path):
    fill(tmp_path, count=3)
    copies = ("000.png~", "000.PNG.bak", "#000.png#", "000.png_original", "9.jpg.part", "9.tmp", "000.png.1")
    for name in copies:
        (tmp_path / "cats" / name).write_bytes((tmp_path / "cats" / "000.png").read_bytes())
    with pytest.warns(LeftOutWarning, match=r"read as images, 7 \(.*, such as 'cats/#000.png#', '"):
        assert sum(len(load(tmp_path, split)) for split in SPLITS) == 6


@pytest.mark.parametrize(("ending", "kind"), [("HEIC", "HEIF"), ("avif", "AVIF"), ("jxl", "JXL")])
def test_formats_of_plugins_are_read_and_without_one_the_extra_and_the_count_are_told(
    tmp_path, monkeypatch, ending, kind
):
    kinds._registered.cache_clear()
    Image.init()
    assert not kinds.lacking_plugin(kinds.PLUGINS[f".{ending.lower()}"])
    fill(tmp_path, count=3)
    exif = Image.Exif()
    exif[274] = 6  # a quarter to the right
    for place in range(5):
        photo = Image.new("RGB", (40, 20), (place, 90, 200))
        photo.save(tmp_path / "cats" / f"p{place}.{ending}", kind, exif=exif.tobytes())
    data = load(tmp_path)
    row = next(row for row, sample in enumerate(data.sample_ids) if sample.endswith(ending))
    assert data[row][0].size == ((40, 20) if kind == "JXL" else (20, 40))  # which has its turn elsewhere
    kinds._registered.cache_clear()
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(Image.OPEN, kind)
    monkeypatch.setattr(Image, "ID", [each for each in Image.ID if each != kind])
    with pytest.warns(
        LeftOutWarning, match=rf"5 files can't be read, such as 'cats/p0.{ending}' and 4 more: .* needs"
    ):
        data = load(tmp_path)
    told = r"one of \d such files: .* needs .*: pip install 'residual-vit\[formats\]', or save it as PNG"
    with pytest.raises(UnreadableImageError, match=told):
        data[row]
    kinds._registered.cache_clear()


def test_a_small_file_of_a_huge_jpeg_xl_isnt_unpacked():
    huge = b"\xff\n" + (0 | 3 << 1 | (2**30 - 1) << 3 | 1 << 33).to_bytes(9, "little")  # 2**30 squared
    for content in (huge, b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4s", 0, b"jxlc") + huge):
        with pytest.raises(UnreadableImageError, match="million pixels: save it smaller"):
            decode_image(content, "a", "here")
    with pytest.raises(UnreadableImageError, match="its boxes hold no picture"):
        decode_image(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "a", "here")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP"])
def test_of_several_frames_the_first_is_read_and_it_is_told_once(tmp_path, kind):
    fill(tmp_path, count=5)
    pages = [Image.new("RGB", (8, 8), (200 * place, 0, 0)) for place in range(2)]
    for place in range(3):
        pages[0].save(tmp_path / "cats" / f"00{place}.png", kind, save_all=True, append_images=pages[1:])
    data = load(tmp_path)
    several = [
        row for row in range(len(data)) if data.sample_ids[row] in {f"cats/00{n}.png" for n in range(3)}
    ]
    with pytest.warns(
        LeftOutWarning, match="has several frames or pages.* Of all such pictures the first"
    ) as told:
        assert [data[row][0].getpixel((0, 0))[0] for row in several] == [0] * len(several)
    assert len(told) == 1


def test_linked_folders_are_read_once_and_rings_are_not_gone_round(tmp_path):
    fill(tmp_path / "real", count=3)
    fill(tmp_path / "elsewhere", ("more",), count=4)
    for number, target in enumerate(
        (tmp_path / "elsewhere" / "more", "..", "/", tmp_path / "elsewhere/more")
    ):
        (tmp_path / "real" / "cats" / f"link{number}").symlink_to(target)
    ids = sorted(i for split in SPLITS for i in load(tmp_path / "real", split).sample_ids if "cats" in i)
    assert ids == [f"cats/00{n}.png" for n in range(3)] + [f"cats/link0/00{n}.png" for n in range(4)]


def test_a_linked_folder_that_holds_another_linked_one_is_read_without_it(tmp_path, monkeypatch):
    fill(tmp_path / "real", count=3)
    fill(tmp_path / "real" / "cats", ("own",), count=2)
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "elsewhere" / "x", ("more", "rest"), count=4)
    (tmp_path / "real" / "cats" / "a").symlink_to(tmp_path / "elsewhere" / "x" / "more")
    (tmp_path / "real" / "cats" / "b").symlink_to(tmp_path / "elsewhere")
    for root in ("real", tmp_path / "real"):
        ids = [i for split in SPLITS for i in load(root, split).sample_ids if "cats" in i]
        counts = Counter(sample.rpartition("/")[0] for sample in ids)
        assert counts == {"cats": 3, "cats/own": 2, "cats/a": 4, "cats/b/x/rest": 4}


@pytest.mark.parametrize("target", ["nowhere", "nowhere/x", "latest", "Train"])
@pytest.mark.parametrize("link", ["latest", "Train"])
def test_a_class_folder_that_is_a_link_to_nothing_is_named(tmp_path, link, target):
    fill(tmp_path, count=3)
    (tmp_path / link).symlink_to(tmp_path / target)
    with pytest.raises(
        ResidualError, match=rf"The link '.*{link}' leads nowhere: to '.*{target}' \(.*\)\. Mend or"
    ):
        load(tmp_path)


def test_a_file_whose_name_is_no_text_is_read_and_noted(tmp_path):
    fill(tmp_path, count=3)
    with open(os.fsencode(tmp_path / "cats") + b"/caf\xe9.png", "wb") as file:
        file.write((tmp_path / "cats" / "000.png").read_bytes())
    whole = [load(tmp_path, split) for split in SPLITS]
    odd = next(split for split in whole if "cats/caf\udce9.png" in split.sample_ids)
    assert odd.load(odd.sample_ids.index("cats/caf\udce9.png")).size == (20, 12)
    Manifest.of(odd).save(tmp_path / "manifest.json")
    Manifest.of(odd).check(Manifest.load(tmp_path / "manifest.json"), "the same")


def test_raw_files_of_cameras_are_left_out(tmp_path):
    fill(tmp_path, count=3)
    Image.new("RGB", (8, 8)).save(tmp_path / "cats" / "preview.nef", "TIFF")
    with pytest.warns(LeftOutWarning, match="such as 'cats/preview.nef'"):
        assert len(load(tmp_path)) == 2


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "Git LFS keeps in its place: pull it",
        ),
        (b"\n<!DOCTYPE html><html>Not found", "a web page: download it again"),
        (b"<svg xmlns=''/>", "save it as PNG"),
        (b"GIF or not", "no image of a known format"),
    ],
)
def test_what_is_there_in_place_of_a_picture_is_told(tmp_path, content, what):
    fill(tmp_path, count=3)
    data = load(tmp_path)
    (tmp_path / data.sample_ids[0]).write_bytes(content)
    with pytest.raises(UnreadableImageError, match=what):
        data[0]


def test_folders_beside_the_splits_are_told(tmp_path):
    for split in ("train", "test", "holdout", "Train", "TEST"):
        fill(tmp_path / split, count=3)
    (tmp_path / "latest").symlink_to(tmp_path / "nowhere" / "x")
    with pytest.warns(LeftOutWarning, match="beside the splits in 'TEST', 'Train', 'holdout', 'latest'"):
        load(tmp_path)


@pytest.mark.parametrize("split", SPLITS)
def test_a_class_without_images_is_named(tmp_path, split):
    fill(tmp_path)
    (tmp_path / "lakes").mkdir()
    (tmp_path / "lakes" / "notes.txt").touch()
    with pytest.raises(
        ResidualError,
        match=r"without an image that can be read: 'lakes' \(1 with .txt\)\. Put some there, or",
    ):
        load(tmp_path, split)


def test_a_picture_of_any_class_is_listed_once(tmp_path, monkeypatch):
    """However many classes there are: of each folder one list, of each file at most one look."""
    fill(tmp_path, [f"class {number}" for number in range(40)], count=3)
    kinds = "npy npz pt pkl md yaml jsonl parquet log hdf5 safetensors zip svg"
    beside = [f"a.{kind}" for kind in kinds.split()]
    for name in (*beside, "a.dat", "b"):
        (tmp_path / "class 0" / name).touch()
    listed, opened = [], []
    scan, opens = os.scandir, os.open
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scan(path))
    monkeypatch.setattr(os, "open", lambda path, *how: opened.append(str(path)) or opens(path, *how))
    with pytest.warns(
        LeftOutWarning,
        match=r"read as images, 12 .*; archives, .*, 1, .*; empty files, 2, such as 'class 0/a.dat', 'cl",
    ):
        load(tmp_path)
    assert len(listed) <= 40 + 3
    assert sorted(opened) == [str(tmp_path / "class 0" / name) for name in ("a.dat", "b")]


def test_hidden_files_and_those_of_systems_are_left_out_and_counted(tmp_path):
    fill(tmp_path, count=5)
    (tmp_path / ".thumbs").mkdir()
    (tmp_path / ".thumbs" / "a.png").write_bytes(b"x")
    (tmp_path / "cats" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "cats" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "cats" / "@eaDir").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cats" / "@eaDir" / "000.png")
    (tmp_path / "__MACOSX").mkdir()
    with pytest.warns(
        LeftOutWarning, match="hidden or left by a system, 3, such as 'cats/.hidden.png' and 2 more"
    ):
        parts = [load(tmp_path, split) for split in SPLITS]
    assert sum(map(len, parts)) == 10
    assert parts[0].class_names == ("cats", "dogs")


@pytest.mark.parametrize("content", [b"", b"no image at all", b"cut"])
def test_an_unreadable_image_is_named(tmp_path, content):
    fill(tmp_path, count=5, suffix="jpg")
    data = load(tmp_path)
    path = tmp_path / data.sample_ids[2]
    path.write_bytes(path.read_bytes()[:200] if content == b"cut" else content)
    assert data[1][0].mode == "RGB"
    with pytest.raises(UnreadableImageError, match=data.sample_ids[2]) as caught:
        data[2]
    assert caught.value.sample_id == data.sample_ids[2]
    with pytest.raises(UnreadableImageError, match='on_error="skip"'):
        data.subset([2])[0]


def test_pipes_and_devices_are_named_and_never_opened(tmp_path):
    for kind in ("cats", "dogs"):
        (tmp_path / kind).mkdir()
        os.mkfifo(tmp_path / kind / "pipe.png")
        (tmp_path / kind / "zero.png").symlink_to("/dev/zero")
        (tmp_path / kind / "gone.png").symlink_to(tmp_path / "nowhere")
    data = [load_dataset(f"folder:{tmp_path}", split) for split in ("train", "val", "test")]
    assert sum(map(len, data)) == 6
    for part in data:
        for row in range(len(part)):
            with pytest.raises(UnreadableImageError, match=r"a pipe or a device|No such file") as caught:
                part[row]
            assert str(tmp_path) not in str(caught.value)


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(ResidualError, match=r"nowhere' is not there\. Put images into"):
        load(tmp_path / "nowhere")
    (tmp_path / "file.png").write_text("x")
    with pytest.raises(ResidualError, match="is a file, not a folder"):
        load(tmp_path / "file.png")
    with pytest.raises(ResidualError, match="'folder:' needs something after it, as in folder:photos/birds"):
        load_dataset("folder:", "train")


def test_no_images(tmp_path):
    (tmp_path / "cats").mkdir()
    with pytest.raises(ResidualError, match=r"No images in class folders of"):
        load(tmp_path)


def test_images_without_class_folders(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ResidualError, match=r"No images in class folders of"):
        load(tmp_path)


def test_only_one_class(tmp_path):
    fill(tmp_path, ("cats",))
    with pytest.raises(ResidualError, match=r"only one class, 'cats'.*Put images into PATH/CLASS/"):
        load(tmp_path)
    fill(tmp_path / "cats", ("old", "young"))
    with pytest.raises(ResidualError, match=r"If they are in there, name '.*/cats'"):
        load(tmp_path)


def test_too_few_images_in_a_class(tmp_path):
    fill(tmp_path)
    fill(tmp_path, ("owls",), 2)
    with pytest.raises(ResidualError, match=r"Class 'owls' of .* too few images to split: 2, .* at least 3"):
        load(tmp_path)


def test_too_few_images_for_val(tmp_path):
    fill(tmp_path / "train", count=1)
    fill(tmp_path / "test")
    with pytest.raises(
        ResidualError, match="too few images to split: 1, where train and val need at least 2"
    ):
        load(tmp_path)


@pytest.mark.parametrize("split", SPLITS)
def test_splits_that_disagree(tmp_path, split):
    fill(tmp_path / "train", ("cats", "dogs"))
    fill(tmp_path / "test", ("cats", "doge"))
    with pytest.raises(ResidualError, match=r"disagree \(only in train: 'dogs'; only in test: 'doge'"):
        load(tmp_path, split)


def test_names_that_become_the_same(tmp_path):
    fill(tmp_path, ("red_fox", "red-fox"))
    with pytest.raises(ResidualError, match=r"'red-fox' and 'red_fox' .* same class name 'red fox'"):
        load(tmp_path)


def test_sixteen_bits_become_eight_and_fractions_are_refused_by_name(tmp_path):
    ramp = np.linspace(0, 65535, 64).reshape(8, 8).round().astype(np.uint16)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for place in range(3):
            Image.fromarray(ramp).save(tmp_path / label / f"{place}.png")
    data = load_dataset(f"folder:{tmp_path}", "train")
    assert np.abs(np.asarray(data[0][0])[..., 0] - ramp / 257).max() <= 0.5
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / data.sample_ids[0], format="TIFF")
    with pytest.raises(UnreadableImageError, match="fractions"):
        data[0]


def layout(root, *folders):
    """Twenty pictures in each folder of a class; `name.` is one with pictures in no class folder."""
    for folder in folders:
        name = folder.rstrip(".")
        fill(root / name, ("cats", "dogs") if name == folder else (".",), 20)


@pytest.mark.parametrize(
    ("there", "sizes", "note"),
    [
        (
            "Train VALID Testing",
            (40, 40, 40),
            r"^'Train' is taken for train\. 'VALID' .* val\. 'Testing' .* test\.$",
        ),
        ("training dev test", (40, 40, 40), r"'training' is taken for train\. 'dev' is taken for val\."),
        (
            "train Test",
            (32, 8, 40),
            "'Test' is taken for test. folder:.* has val a fifth of its folder 'train', at",
        ),
        (
            "train validation",
            (32, 8, 40),
            "has val a fifth of its folder 'train', .*: 32 train, 8 val and 40 test",
        ),
        (
            "train",
            (24, 8, 8),
            "has its folder 'train' split into train, val and test, at random, in every class ",
        ),
        (
            "cats. test. dogs.",
            (36, 12, 12),
            "its class folders split into .*: 36 train, 12 val and 12 test pict",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.* no folder of test pictures.* those of 'validation' are test")
def test_layouts_as_people_have_them(tmp_path, there, sizes, note):
    layout(tmp_path, *there.split())
    with listed_once():
        parts = [load(tmp_path, split) for split in SPLITS]
    assert tuple(map(len, parts)) == sizes
    assert len({sample for part in parts for sample in part.sample_ids}) == sum(sizes)
    assert {part.class_names for part in parts} == {
        ("cats", "dogs", "test") if "." in there else ("cats", "dogs")
    }
    assert re.search(note, " ".join(parts[0].notes))
    assert parts[0].notes == parts[0].subset([0]).notes


@pytest.mark.parametrize(
    ("there", "sizes", "warned"),
    [
        (
            "train val",
            (32, 8, 40),
            "no folder of test pictures: those of 'val' are test, and .* fifth of 'train'",
        ),
        ("train test.", (24, 8, 8), "left out are images in no class folder, 20, such as 'test/000.png'"),
        (
            "train val test.",
            (32, 8, 40),
            "left out are images in no class folder, 20, such as 'test/000.png'",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.* no folder of test pictures")
def test_pictures_that_are_used_otherwise_than_their_folder_says_are_told(tmp_path, there, sizes, warned):
    layout(tmp_path, *there.split())
    with pytest.warns(UserWarning, match=warned):
        assert tuple(len(load(tmp_path, split)) for split in SPLITS) == sizes


@pytest.mark.parametrize(
    ("there", "sentence"),
    [
        (
            "cats. dogs. test",
            "'test' of .* folders in it, as a split has; beside it are 'cats', 'dogs': whether",
        ),
        (
            "train masks.",
            r"'train' of .* beside it are 'masks': .* Name the folder '.*train' to have its classes",
        ),
        (
            "train valid dev test",
            "Folders 'dev' and 'valid' of .* all seem to be val: call the one that is meant 'val'",
        ),
        ("val test", "has 'val' and 'test' but no train"),
        ("train. test.", "has 'test' and 'train' but no class folders in them"),
    ],
)
def test_layouts_that_leave_a_doubt(tmp_path, there, sentence):
    layout(tmp_path, *there.split())
    with pytest.raises(ResidualError, match=sentence):
        load(tmp_path)


def test_classes_that_differ_in_case_and_in_how_a_letter_is_written(tmp_path):
    fill(tmp_path / "one", ("Cat", "cat", "A", "a"))
    with pytest.warns(
        UnderstoodWarning, match="'Cat' and 'cat' of .* two classes, and differ in small"
    ) as told:
        assert load(tmp_path / "one").class_names == ("A", "Cat", "a", "cat")
    assert len(told) == 1
    for split, name in (("train", "caf\u00e9"), ("test", "cafe\u0301")):
        fill(tmp_path / "two" / split, ("bar", name))
    assert [len(load(tmp_path / "two", split)) for split in SPLITS] == [16, 4, 20]
    fill(tmp_path / "three" / "train", ("Cat", "dog"))
    fill(tmp_path / "three" / "test", ("cat", "dog"))
    with pytest.raises(
        ResidualError, match=r"only in test: 'cat'.* 'Cat' and 'cat' differ in small and capital"
    ):
        load(tmp_path / "three")


def test_where_all_endings_of_a_class_lie_the_content_tells(tmp_path):
    fill(tmp_path, count=3)
    for place in range(3):
        (tmp_path / "cats" / f"00{place}.png").rename(tmp_path / "cats" / f"{place}.txt")
        Image.new("RGB", (8, 8)).save(tmp_path / "cats" / f"{place}.nef", "TIFF")
    with pytest.warns(LeftOutWarning, match=r"read as images, 3 \(3 with .nef\)"):
        assert "cats/0.txt" in {sample for split in SPLITS for sample in load(tmp_path, split).sample_ids}


def test_pictures_further_down_are_of_their_class_and_told(tmp_path):
    fill(tmp_path, count=5)
    fill(tmp_path / "cats", ("kittens",), 5)
    assert (
        "5 pictures in folders inside of class folders are of that class, as 'cats/kittens'."
        in load(tmp_path).notes
    )
