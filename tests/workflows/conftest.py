from __future__ import annotations

import pytest

from residual import encode_dataset, load_dataset, load_encoder
from residual.workflows.exploration import Exploration, Sources

TEXTS = "red orange yellow green blue purple white round striped face animal tool food plant number"


@pytest.fixture(scope="session")
def picto_store():
    """Pictures of emoji by Picto, in memory."""
    emoji = load_dataset("emoji-concepts", "val").sample(48)
    return encode_dataset(load_encoder("picto", device="cpu"), emoji)


@pytest.fixture(scope="session")
def explored(picto_store, tmp_path_factory):
    """Makes an exploration of this store, or of others, with few texts."""
    texts = tmp_path_factory.mktemp("texts") / "few.txt"
    texts.write_text(
        "\n".join(sorted({*TEXTS.split(), *(f"something {word}" for word in TEXTS.split()[:6])}))
    )

    def made(*stores) -> Exploration:
        return Exploration(Sources((), dictionary=str(texts)), stores or [picto_store])

    return made


@pytest.fixture(scope="session")
def exploration(explored):
    return explored()
