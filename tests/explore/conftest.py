from __future__ import annotations

import browser as real
import pytest

from residual import encode_dataset, load_dataset, load_encoder
from residual.workflows.exploration import Exploration, Sources

TEXTS = "red orange yellow green blue purple white black round striped face animal tool food plant number"


@pytest.fixture(scope="module")
def browser():
    """One for all tests of a file: while it is there its loop is the thread's, and others can't run one."""
    with real.browser() as found:
        yield found


@pytest.fixture(scope="package")
def emoji(tmp_path_factory):
    """A store of 60 pictures of emoji, by Picto, on the disk."""
    path = tmp_path_factory.mktemp("explored") / "emoji"
    pictures = load_dataset("emoji-concepts", "val").sample(60)
    encode_dataset(load_encoder("picto", device="cpu"), pictures, path)
    return path


@pytest.fixture(scope="module")
def address(browser, emoji):
    """Where this store is explored, with few texts."""
    texts = emoji.with_name("few.txt")
    texts.write_text("\n".join(TEXTS.split()), encoding="utf-8")
    with real.served(Exploration(Sources([str(emoji)], dictionary=str(texts)))) as found:
        yield found


@pytest.fixture
def page(browser):
    """A watched page on a desktop."""
    with real.watched(browser) as found:
        yield found
