import sys

import pytest

from residual import encode_dataset, load_dataset, load_encoder
from residual.cli import main


@pytest.fixture(scope="module", autouse=True)
def _once(picto_once):
    pass


@pytest.fixture
def residual(monkeypatch, capsys):
    """Run the command in this process: exit code, stdout, stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["residual", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        shown = capsys.readouterr()
        return stop.value.code or 0, shown.out, shown.err

    return call


@pytest.fixture(scope="session")
def picto():
    return load_encoder("picto", device="cpu")


@pytest.fixture(scope="session")
def stores(picto, tmp_path_factory):
    """By Picto: 60 letters with all units, heads alone, MLPs alone; 60 flags; 2 letters; 4 letters with all
    patches; 120 digits of each split."""
    folder = tmp_path_factory.mktemp("stores")
    letters = load_dataset("letters", "val").sample(60)
    for name, data, how in (
        ("letters", letters, {}),
        ("heads", letters, {"kinds": ("head",)}),
        ("mlps", letters, {"kinds": ("mlp",)}),
        ("two", letters.sample(2), {}),
        ("patches", letters.sample(4), {"pooling": "patches", "kinds": ("head",)}),
        ("flags", load_dataset("flags", "val").sample(60), {}),
        *((split, load_dataset("digits", split).sample(120), {}) for split in ("train", "val", "test")),
    ):
        encode_dataset(picto, data, folder / name, **how)
    return folder
