"""Names as people write them, of folders, classes and lists: signs of patterns, other scripts, lines."""

import io
import tarfile
import unicodedata
from pathlib import Path

import hubs
import numpy as np
import pytest
from datasets import ClassLabel, Value
from PIL import Image

from residual.data import load_dataset
from residual.errors import LeftOutWarning, ResidualError
from residual.files import local_path
from residual.texts import distinct, folded, text_lines, why_no_name

SIGNS = ["run[1]", "a*b", "{x}", "{1..2}", "c?d", "e#f", "g%20h", "i::j", " k ", "-l", "m\nn", "~n", "o\\p"]
PERSIAN = "می\u200cروم"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (grey,) * 3).save(file, "PNG")
    return file.getvalue()


def write_shard(path, labels, grey=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, label in enumerate(labels):
            for ending, data in (("png", picture(grey)), ("cls", str(label).encode())):
                about = tarfile.TarInfo(f"{number}.{ending}")
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))


def write_classes(folder, names, count=4):
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_bytes(picture(10))


def first(name):
    return load_dataset(name, "test")[0][0].getpixel((0, 0))[0]


def test_a_path_that_is_there_is_no_pattern(tmp_path, monkeypatch):
    labels = [0, 1] * 4
    for other in ("run1", "aXb", "x", "1", "cXd", "g h"):  # what the patterns would name
        for split in ("train", "test"):
            write_shard(tmp_path / other / split / "0.tar", labels, 200)
    monkeypatch.chdir(tmp_path)
    for name in SIGNS:
        for split in ("train", "test"):
            write_shard(tmp_path / name / split / "0.tar", labels)
        write_classes(tmp_path / name / "classes", "ab")
        for root in (tmp_path / name, name):
            for below in ("", "/", "/{split}/*.tar", "/test/*.tar", "/test/{0..0}.tar", "/test/0.tar"):
                assert first(f"wds:{root}{below}") == 10, (root, below)
            assert first(f"folder:{root}/classes") == 10


def test_a_way_back_out_of_a_link_is_the_one_that_its_folder_has(tmp_path, monkeypatch):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    for folder, grey in ((tmp_path, 200), (tmp_path / "far", 10)):
        write_shard(folder / "x.tar", [0, 1] * 4, grey)
    monkeypatch.chdir(tmp_path)
    for shard in ("x.tar", "*.tar", "{x,x}.tar"):
        assert first(f"wds:link/../{shard}") == first(f"wds:{tmp_path}/link/../{shard}") == 10


def test_a_folder_whose_name_is_like_a_home_has_patterns_and_manifests_below_it(tmp_path, monkeypatch):
    write_shard(tmp_path / "~nobody-here" / "0.tar", [0, 1] * 4)
    monkeypatch.chdir(tmp_path)
    assert first("wds:~nobody-here/{0..0}.tar") == first("wds:~nobody-here/*.tar") == 10
    assert local_path("~nobody-here/new") == Path("~nobody-here/new")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_shard(tmp_path / "home" / "0.tar", [0, 1] * 4, 50)
    write_shard(tmp_path / "~" / "1.tar", [0, 1] * 4, 70)
    assert first("wds:~/*.tar") == 50
    assert first("wds:~/1.tar") == 70


def test_signs_that_are_taken_as_they_stand_are_told_where_nothing_is_found(tmp_path):
    write_shard(tmp_path / "shard-0.tar", [0, 1] * 4)
    for pattern in ("shard-[0-2]*.tar", "shard-?*.tar", "{split}-[0-2]*.tar"):
        with pytest.raises(ResidualError, match=r"'\?' and '\[' are taken as they stand: .* \{0\.\.2\}"):
            load_dataset(f"wds:{tmp_path}/{pattern}", "test")


def test_what_a_pattern_names_is_as_before(tmp_path):
    for number in range(12):
        write_shard(tmp_path / "a" / f"{number}.tar", [0, 1] * 3, number)
    write_shard(tmp_path / "b" / "0.tar", [0, 1] * 3, 50)
    (tmp_path / "a" / "0.txt").touch()

    def shards(pattern):
        data = [load_dataset(f"wds:{tmp_path}/{pattern}", split) for split in ("train", "val", "test")]
        return sorted({sample.rpartition("/")[0] for part in data for sample in part.sample_ids})

    assert shards("a/*.tar") == sorted(f"{number}.tar" for number in range(12))
    assert shards("*/0.tar") == shards("**/0.tar") == shards("{a,b}/0.tar") == ["a/0.tar", "b/0.tar"]
    assert shards("a/1*.tar") == ["1.tar", "10.tar", "11.tar"]


def test_tables_whose_path_their_library_takes_for_a_pattern_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = hubs.table([0, 1] * 8, {"label": Value("int64")})
    for name in ("e#f", "file:s", "i::j", "run[1]"):
        table.save_to_disk(str(tmp_path / "saved"))
        (tmp_path / "saved").rename(tmp_path / name)
    assert len(load_dataset("disk:e#f", "test")) == len(load_dataset("disk:file:s", "test")) == 4
    assert len(load_dataset("disk:run[1]", "test")) == 4
    with pytest.raises(ResidualError, match=r"takes '::' in the path 'i::j' .* Rename"):
        load_dataset("disk:i::j", "test")
    for below in ("", ":default"):
        with pytest.raises(ResidualError, match=r"takes '\[' in the path 'run\[1\]' .* Rename"):
            load_dataset(f"hf:run[1]{below}", "test")


def test_names_of_every_script_are_kept(tmp_path):
    names = (PERSIAN, "कृत्रिम", "👩\u200d🔬", "❤\ufe0f", "ＡＢＣ", "İstanbul", "Straße", "ไทย", "\u200fעברית")
    write_classes(tmp_path / "classes", names)
    assert set(load_dataset(f"folder:{tmp_path}/classes", "train").class_names) == set(names)
    write_shard(tmp_path / "0.tar", names * 3)
    assert set(load_dataset(f"wds:{tmp_path}/0.tar", "train").class_names) == set(names)
    (tmp_path / "classnames.txt").write_text("\n".join(names), encoding="utf-8")
    assert load_dataset(f"wds:{tmp_path}/0.tar", "train").class_names == names
    hubs.table(list(names) * 4, {"label": Value("string")}).save_to_disk(str(tmp_path / "saved"))
    assert set(load_dataset(f"disk:{tmp_path}/saved", "train").class_names) == set(names)


def test_one_name_in_two_normal_forms_is_one_class(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != apart
    for split, name in (("train", composed), ("test", apart)):
        write_classes(tmp_path / "two" / split, (name, "tea"))
    data = load_dataset(f"folder:{tmp_path}/two", "test")
    assert data.class_names == (composed, "tea")
    assert np.bincount(data.labels).tolist() == [4, 4]
    write_classes(tmp_path / "one", (composed, apart, "tea"))
    with pytest.raises(ResidualError, match=r"'cafe\\u0301' and 'caf\\xe9' .* same class name 'café'"):
        load_dataset(f"folder:{tmp_path}/one", "test")
    write_shard(tmp_path / "0.tar", [composed, apart, "tea"] * 4)
    assert len(load_dataset(f"wds:{tmp_path}/0.tar", "train").class_names) == 2
    (tmp_path / "classnames.txt").write_text(f"tea\n{apart}\n", encoding="utf-8")
    assert np.bincount(load_dataset(f"wds:{tmp_path}/0.tar", "train").labels).tolist() == [2, 5]
    hubs.table([composed, apart] * 8 + ["tea"] * 8, {"label": Value("string")}).save_to_disk(
        str(tmp_path / "saved")
    )
    assert np.bincount(load_dataset(f"disk:{tmp_path}/saved", "test").labels).tolist() == [3, 2]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a\u202eb", "turn the writing's direction"),
        ("a\x07b", "control characters"),
        ("\u200b\u200d", "nothing to be seen"),
        ("  ", "is empty"),
    ],
)
def test_what_is_no_name_is_refused_everywhere(tmp_path, name, why):
    write_classes(tmp_path / "classes", (name, "b"))
    hubs.table([name, "b"] * 8, {"label": Value("string")}).save_to_disk(str(tmp_path / "saved"))
    write_shard(tmp_path / "0.tar", [0, 1] * 4)
    (tmp_path / "classnames.txt").write_text(f"{name}\nb\n", encoding="utf-8")
    for address in ("folder:{}/classes", "disk:{}/saved", "wds:{}/0.tar"):
        with pytest.raises(ResidualError, match=why):
            load_dataset(address.format(tmp_path), "train")


def test_names_that_are_tidied_are_names(tmp_path):
    kind = ClassLabel(names=["cat\n", "big\tdog\n", ""])
    tables = {
        "numbers": hubs.table([0, 1] * 8, {"label": kind}),
        "texts": hubs.table(["cat\n", "big\tdog\n"] * 8, {"label": Value("string")}),
        "empty": hubs.table([0, 1, 2] * 8, {"label": kind}),
    }
    for name, table in tables.items():
        table.save_to_disk(str(tmp_path / name))
    with pytest.warns(LeftOutWarning, match="no samples of 1 of its 3 classes: 'class 2'"):
        data = load_dataset(f"disk:{tmp_path}/numbers", "test")
    assert data.class_names == ("cat", "big dog", "class 2")
    assert load_dataset(f"disk:{tmp_path}/texts", "test").class_names == ("big dog", "cat")
    with pytest.raises(ResidualError, match=r"'' of class 2 .* is empty\. .*cast_column\('label', Cl"):
        load_dataset(f"disk:{tmp_path}/empty", "test")


def test_of_several_spellings_the_shortest_is_the_name_and_names_are_sorted(tmp_path):
    labels = ["b", "cat\u200b", "cat", " cat", "a\u200b", "\u200ba"]
    assert distinct(labels) == ["a\u200b", "b", "cat"]
    hubs.table(labels * 8, {"label": Value("string")}).save_to_disk(str(tmp_path / "saved"))
    assert load_dataset(f"disk:{tmp_path}/saved", "test").class_names == ("a\u200b", "b", "cat")
    write_shard(tmp_path / "0.tar", labels * 3)
    assert load_dataset(f"wds:{tmp_path}/0.tar", "test").class_names == ("a\u200b", "b", "cat")


def test_what_looks_the_same_is_folded_and_nothing_else():
    same = [
        ("caf\u00e9", "cafe\u0301"),
        ("cat", "ca\u200bt"),
        ("cat", "\ufeffcat"),
        ("cat", "ca\u200ct"),
        ("a b", " a\u00a0 b"),
    ]
    assert all(folded(one) == folded(other) for one, other in same)
    differ = [
        ("cafe", "café"),
        (PERSIAN, PERSIAN.replace("\u200c", "")),
        ("A", "Ａ"),
        ("I", "İ"),
        ("ß", "ss"),
    ]
    assert all(folded(one) != folded(other) for one, other in differ)
    assert not any(map(why_no_name, ("a", PERSIAN, "👩\u200d🔬", "\ue000", "naïve  café")))


def test_a_list_of_lines_is_read_in_one_way(tmp_path):
    assert text_lines("\ufeffone \r\n\u00a0two\t\rthree\x85\n\nfi\u2028ve\n\n \n") == [
        "one", "two", "three", "", "fi\u2028ve",
    ]  # fmt: skip
    write_shard(tmp_path / "0.tar", [0, 1, 2] * 4)
    names = tmp_path / "classnames.txt"
    for text, line in (("\none\ntwo\nthree\n", 1), ("one\n\u00a0\ntwo\nthree", 2)):
        names.write_text(text, encoding="utf-8")
        with pytest.raises(ResidualError, match=rf"Line {line} of classnames\.txt .* is empty; it must have"):
            load_dataset(f"wds:{tmp_path}/0.tar", "train")
    names.write_bytes("\ufeffone\r\ntwo \r\n\tthree\r\n\r\n".encode())
    assert load_dataset(f"wds:{tmp_path}/0.tar", "train").class_names == ("one", "two", "three")
    names.write_text("one\nfi\x85ve\nthree")  # one line, and no text
    with pytest.raises(ResidualError, match=r"Line 2 of classnames\.txt .* control characters"):
        load_dataset(f"wds:{tmp_path}/0.tar", "train")


def test_a_label_that_several_classes_are_called_by_is_refused(tmp_path):
    write_shard(tmp_path / "0.tar", ["crane", "owl"] * 4)
    (tmp_path / "classnames.txt").write_text("crane\nowl\ncrane\n")
    with pytest.raises(ResidualError, match="'crane', which is several of the 3 classes"):
        load_dataset(f"wds:{tmp_path}/0.tar", "train")


def test_classes_without_samples_are_told(tmp_path):
    hubs.table([1, 4] * 8, {"label": Value("int64")}).save_to_disk(str(tmp_path / "saved"))
    with pytest.warns(LeftOutWarning, match="no samples of 3 of its 5 classes: 'class 0', 'class 2'"):
        assert len(load_dataset(f"disk:{tmp_path}/saved", "train").class_names) == 5
    for labels in ([3_000_000, 7_000_000], [0, 2**40]):
        folder = tmp_path / str(labels[1])
        hubs.table(labels * 8, {"label": Value("int64")}).save_to_disk(str(folder))
        with pytest.raises(
            ResidualError, match=r"label \d+ in column 'label' is too large for a class number"
        ):
            load_dataset(f"disk:{folder}", "train")
