"""What every room writes and reads by: whole files, checksums, and names that others may see."""

from __future__ import annotations

import copy
import inspect
import math
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from residual.errors import ResidualError, printable
from residual.files import (
    cache_folder,
    local_path,
    parse_json,
    read_regular,
    shareable,
    write_json,
    write_text,
    written_beside,
)
from residual.libraries import library
from residual.tensor_files import load_tensors, pack_tensors, save_tensors, unpack_tensors
from residual.versions import own_version


def test_permissions_are_the_process_s_own_and_are_never_set(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", None)
        write_text(tmp_path / "new" / "a.txt", "a")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert (tmp_path / "new" / "a.txt").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o750


def test_what_a_killed_writer_left_goes_and_what_one_is_at_work_on_stays(tmp_path):
    program = (
        "import os, sys; from residual.files import written_beside\n"
        "with written_beside(sys.argv[1]) as beside: os.kill(os.getpid(), 9)"
    )
    kept = tmp_path / "a.txt"
    kept.write_text("old")
    assert subprocess.run([sys.executable, "-c", program, str(kept)], check=False).returncode == -9
    assert kept.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    with written_beside(kept) as other:
        other.write_text("other")
        write_text(kept, "new")
        assert [path.name for path in tmp_path.iterdir() if path != kept] == [other.name]
        assert kept.read_text() == "new"
    assert kept.read_text() == "other"
    assert list(tmp_path.iterdir()) == [kept]


def test_every_flipped_bit_of_saved_tensors_is_found(tmp_path):
    """But for one in the name of the checksum, which leaves all numbers as they were."""
    path, value = tmp_path / "a.safetensors", torch.randn(2, 3)
    save_tensors(path, "bases", {"x": value}, {"origin": "here"})
    data, refused = path.read_bytes(), 0
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            tensors, note = unpack_tensors(bytes(flipped), "bases", "it")
        except ResidualError:
            refused += 1
        else:
            assert torch.equal(tensors["x"], value)
            assert note["origin"] == "here"
    assert refused >= 8 * len(data) - 8 * len("sha256")
    assert load_tensors(path, "bases")[1] == {"origin": "here"}


def test_tensors_are_in_memory_once_while_they_are_saved(tmp_path):
    tensors = {"x": torch.zeros(2**20)}
    wanted = pack_tensors("bases", tensors, {"versions": own_version(), "origin": "here"})
    tracemalloc.start()
    try:
        save_tensors(tmp_path / "a", "bases", tensors, {"origin": "here"})
        assert tracemalloc.get_traced_memory()[1] < 1.5 * tensors["x"].nbytes
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a").read_bytes() == wanted
    for wrong in (math.nan, math.inf):
        with pytest.raises(ResidualError, match="is to be saved of the bases holds NaN or infinity"):
            save_tensors(tmp_path / "b", "bases", tensors, {"origin": {"scale": [wrong]}})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_tensors_of_every_kind_are_saved_and_come_back_equal(tmp_path):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    z = torch.complex(x, x + 1)
    tensors = {
        "x": x,
        "same": x,
        "tied": torch.nn.Parameter(x),
        "whole": x.view(24),
        "row": x[1],
        "last": x[2:],
    }
    tensors |= {"transposed": x.T, "column": x[:, 2], "expanded": x[:1].expand(3, 6), "turned": x.flip(0)}
    tensors |= {"sparse": x.relu().to_sparse(), "conjugate": z.conj(), "negative": z.conj().imag}
    tensors |= {
        "empty": x[:0],
        "nothing": x[:0],
        "scalar": x[0, 0],
        "truth": x > 0,
        "whole numbers": x.long(),
    }
    save_tensors(tmp_path / "a", "bases", tensors, {})
    got, _ = load_tensors(tmp_path / "a", "bases")
    assert got.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(got[name], value.detach().to_dense() if value.is_sparse else value), name
    for odd, message in (
        (torch.empty(2, device="meta"), "can't be saved: it has no numbers"),
        (torch.nested.nested_tensor([x[0]], layout=torch.jagged), "be saved: it is a NestedTensor"),
        (torch.zeros(2, dtype=torch.complex128), r"is of torch.complex128, which safetensors doesn't know"),
    ):
        with pytest.raises(ResidualError, match=message):
            save_tensors(tmp_path / "b", "bases", {"odd": odd}, {})
    assert not (tmp_path / "b").exists()


def test_saving_many_tensors_takes_as_many_steps():
    def steps(count: int) -> int:
        tensors, calls = {str(number): torch.zeros(1) for number in range(count)}, []
        sys.setprofile(lambda *_: calls.append(None))
        try:
            pack_tensors("bases", tensors, {})
        finally:
            sys.setprofile(None)
        return len(calls)

    assert steps(400) < 3 * steps(200)


def test_what_is_no_file_or_too_large_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(9))
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises((ResidualError, IsADirectoryError), match=r"no regular file|directory"):
            read_regular(path)
    with pytest.raises(ResidualError, match=r"'.*large' has 9 bytes, more than the 8 that are read"):
        read_regular(tmp_path / "large", most=8)
    assert read_regular(tmp_path / "large") == bytes(9)


@pytest.mark.parametrize(
    ("text", "why"),
    [("[" * 100_000, "nested too deeply"), ('{"a": NaN}', "NaN isn't a number"), ("{", "Expecting property")],
)
def test_json_that_is_none(text, why):
    with pytest.raises(ResidualError, match=f"'it' is no JSON that can be read: .*{why}"):
        parse_json(text, "it")


def test_errors_are_one_line_that_does_nothing_to_a_terminal():
    text = "a\x1b[2J\r\nb\u202ec\u2028é\u200d\udc80"
    assert printable(text) == r"a\x1b[2J\r\nb\u202ec\u2028é" + "\u200d" + r"\udc80"
    error = ResidualError(f"No {text}.", text)
    assert not re.search(r"[\x00-\x1f\u202e\u2028\udc80]", error.message + error.hint + str(error))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("folder:/mnt/me/pictures/", "folder:pictures"),
        ("wds:/data/{split}-{000..012}.tar", "wds:{split}-{000..012}.tar"),
        ("wds:https://me:pw@host/a.tar?token=1", "wds:https://host/a.tar"),
        ("wds:file:///mnt/me/a.tar", "wds:a.tar"),
        ("hf:~/models/clip", "hf:clip"),
        ("hf:openai/clip@main", "hf:openai/clip@main"),
        ("open_clip:ViT-B-32//mnt/me/w.safetensors", "open_clip:ViT-B-32/w.safetensors"),
        ("open_clip:ViT-B-32/laion2b", "open_clip:ViT-B-32/laion2b"),
        ("/mnt/me/bases.safetensors", "bases.safetensors"),
        ("mixed", "mixed"),
        ("hf:a/b@refs/pr/2", "hf:a/b@refs/pr/2"),
        ("hf:C:\\me\\model", "hf:model"),
        ("folder:~nobody-of-this-name/pictures", "folder:pictures"),
        ("wds:https://me:p@ss@host/a.tar", "wds:https://host/a.tar"),
        ("n" * 5000, "n" * 5000),
        ("folder:\\\\host\\share\\", "folder:share"),
        ("a/relative/name", "name"),
        ("timm:vit_base/~/w.safetensors", "timm:vit_base/w.safetensors"),
        ("timm:hf-hub:a/b", "timm:hf-hub:a/b"),
        ("", ""),
    ],
)
def test_names_that_others_see_hold_no_path_of_this_machine(name, shown):
    assert shareable(name) == shown
    assert shareable(shown) == shown


# Libraries


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("from torch import no_such_name", r"cannot import name 'no_such_name' from 'torch'"),
        ("import no_such_module", r"No module named 'no_such_module'"),
        ("1 / 0", r"division by zero"),
        ("def load_dataset(): ...", ""),
    ],
)
def test_what_hides_a_library_is_named(tmp_path, monkeypatch, content, told):
    (tmp_path / "timm.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ResidualError, match=rf"by that name is '.*timm\.py'.*{told}.*, not .* Rename"):
        library("timm", "x", "timm")
    sys.modules.pop("timm", None)


def test_a_library_of_links_is_the_library(tmp_path, monkeypatch):
    """As uv --link-mode=symlink, Nix and Bazel install: the files are elsewhere."""
    site, kept = tmp_path / "site", tmp_path / "kept"
    for folder in (site / "linked-1.0.dist-info", kept):
        folder.mkdir(parents=True)
    about = site / "linked-1.0.dist-info" / "METADATA"
    about.write_text("Metadata-Version: 2.1\nName: linked\nVersion: 1.0\n")
    (kept / "linked.py").write_text("")  # without a __version__
    (site / "linked.py").symlink_to(kept / "linked.py")
    monkeypatch.syspath_prepend(site)
    assert library("linked", "x", "timm").__name__ == "linked"
    sys.modules.pop("linked")


def test_a_broken_library_is_not_said_to_be_missing(monkeypatch):
    def fails(_):
        raise error

    monkeypatch.setattr("residual.libraries.import_module", fails)
    for error in (
        ModuleNotFoundError("No module named 'torchvision'", name="torchvision"),
        OSError("libcudart.so.12: cannot open shared object file"),
    ):
        with pytest.raises(ResidualError, match=rf"timm [\d.]+ is there but can't be imported \({error}\)"):
            library("timm", "x", "timm")
    error = ModuleNotFoundError("No module named 'timm'", name="timm")
    with pytest.raises(ResidualError, match=r"x needs timm, which isn't installed: pip install 'residual-"):
        library("timm", "x", "timm")
    error = torch.OutOfMemoryError("no room")
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        library("timm", "x", "timm")


def test_a_library_below_what_is_asked_for_is_told_with_both_versions(monkeypatch):
    monkeypatch.setattr(np, "__version__", "1.25.2")
    with pytest.raises(ResidualError, match=r"x needs numpy [\d.]+ or newer, and 1\.25\.2 is .* -U"):
        library("numpy", "x", "timm")
    monkeypatch.setattr(np, "__version__", "12.0.0.dev1")
    assert library("numpy", "x", "timm") is np


def test_without_a_home_there_is_no_cache_and_no_guess(monkeypatch):
    for name in ("HOME", "RESIDUAL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "pwd", None)
    with pytest.raises(ResidualError, match=r"'/dev/null/residual/a' can't be written"):
        write_text(cache_folder() / "a", "a")
    with pytest.raises(ResidualError, match=r"'~/pictures' can't be found: whose home '~' is isn't known"):
        local_path("~/pictures")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/dev/null/residual")
    monkeypatch.setenv("HOME", "/somewhere")
    assert (cache_folder(), local_path("~/x")) == (Path("/somewhere/.cache/residual"), Path("/somewhere/x"))


# Errors


def subclasses(kind: type) -> set[type]:
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def test_every_error_goes_through_a_pickle_as_it_is():
    """As from a worker; a pool ends, or waits for ever, where it doesn't."""
    for kind in subclasses(ResidualError):
        names = list(inspect.signature(kind).parameters)
        error = kind(*(f"the {name}" for name in names))
        for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
            assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))


def test_numbers_of_numpy_are_json(tmp_path):
    write_json(tmp_path / "a", {"n": np.int64(3), "share": np.float32(0.5), "loss": torch.tensor(2.0)})
    assert parse_json((tmp_path / "a").read_bytes(), "a") == {"n": 3, "share": 0.5, "loss": 2.0}
    write_json(tmp_path / "c", {"loss": np.float32("nan"), "all": [math.inf, 1.5]})
    assert parse_json((tmp_path / "c").read_bytes(), "c") == {"loss": None, "all": [None, 1.5]}
    save_tensors(tmp_path / "b", "bases", {}, {"origin": np.int64(3)})
    assert load_tensors(tmp_path / "b", "bases")[1] == {"origin": 3}
    with pytest.raises(TypeError, match="set is no JSON"):
        write_json(tmp_path / "a", {1})
    assert parse_json((tmp_path / "a").read_bytes(), "a")["n"] == 3
