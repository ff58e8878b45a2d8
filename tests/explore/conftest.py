from __future__ import annotations

from dataclasses import replace

import browser as real
import numpy as np
import pytest

from residual import AdaptedEncoder, ResidualStore, encode_dataset, fit_bases, load_dataset, load_encoder
from residual.adapters import Coarse
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
    """Where this store is explored, in two groups, with few texts, an adapter, and its last pictures as
    another store."""
    texts, adapter, last = (emoji.with_name(name) for name in ("few.txt", "adapter", "last"))
    texts.write_text("\n".join(TEXTS.split()), encoding="utf-8")
    encoder, store = load_encoder("picto", device="cpu"), ResidualStore.open(emoji).load()
    if not adapter.exists():
        AdaptedEncoder(encoder, Coarse(fit_bases(store))).save_pretrained(adapter)
    grouped = replace(store, groups=np.arange(60) % 2, group_names=("even", "odd"))
    sources = Sources([str(emoji), str(last)], [str(adapter)], dictionary=str(texts))
    with real.served(Exploration(sources, [grouped, store.subset(range(30, 60))], encoder)) as found:
        yield found


@pytest.fixture
def page(browser):
    """A watched page on a desktop."""
    with real.watched(browser) as found:
        yield found
