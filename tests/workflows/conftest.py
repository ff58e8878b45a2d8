from __future__ import annotations

import pytest

from residual import encode_dataset, load_dataset, load_encoder
from residual.workflows.exploration import Exploration, Sources

TEXTS = "red orange yellow green blue purple white round striped face animal tool food plant number"


@pytest.fixture(scope="session")
def picto():
    return load_encoder("picto", device="cpu")


@pytest.fixture(scope="session")
def picto_store(picto):
    """Pictures of emoji by Picto, in memory."""
    return encode_dataset(picto, load_dataset("emoji-concepts", "val").sample(48))


@pytest.fixture(scope="session")
def explored(picto, picto_store, tmp_path_factory):
    """Makes an exploration of this store, or of another, with few texts; and with the encoder, or without."""
    texts = tmp_path_factory.mktemp("texts") / "few.txt"
    texts.write_text(
        "\n".join(sorted({*TEXTS.split(), *(f"something {word}" for word in TEXTS.split()[:6])}))
    )

    def made(store=picto_store, encoder=picto, adapters=()) -> Exploration:
        return Exploration(Sources((), adapters, dictionary=str(texts)), [store], encoder)

    return made


@pytest.fixture(scope="session")
def exploration(explored):
    return explored()
