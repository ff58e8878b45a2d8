"""Texts that directions can be named with, each with its embedding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from residual.encoders.changes import EncoderLike, checked_encoder
from residual.errors import ResidualError, unknown_name
from residual.files import local_path, parse_json, read_regular
from residual.finite import check_finite
from residual.progress import Progress
from residual.text.embedding import embed_prompts
from residual.texts import text_lines

_LARGEST = 2**26  # bytes of a file of texts


class TextDictionary:
    """Texts and their embeddings by one encoder.

    Args:
        texts: one an entry; the same may not come twice.
        embeddings: `(m, d)`; rows are L2-normalised here, and float32 at least.
        text_fingerprint: of the text tower, if known.

    Raises:
        ResidualError: no entry, an empty one, one that comes twice, or an embedding that is zero, not finite
            or missing.

    Example:
        >>> import torch
        >>> from residual.text import TextDictionary
        >>> TextDictionary(["red", "round"], torch.eye(2)).nearest(torch.tensor([[3.0, 4.0]]), 1)
        [[('round', 0.800000011920929)]]
    """

    def __init__(
        self,
        texts: Sequence[str],
        embeddings: Float[Tensor, "m d"],
        text_fingerprint: str | None = None,
    ):
        self.texts = checked_texts(texts)
        if len(embeddings) != len(self.texts):
            raise ResidualError(f"{len(self.texts)} texts need as many embeddings, got {len(embeddings)}.")
        embeddings = embeddings.detach().to(torch.promote_types(embeddings.dtype, torch.float32))
        norms = embeddings.norm(dim=1)
        if len(wrong := (~((norms > 0) & norms.isfinite())).nonzero()):
            raise ResidualError(f"The embedding of {self.texts[int(wrong[0])]!r} is zero or not finite.")
        self.embeddings = normalize(embeddings, dim=1)
        self.text_fingerprint = text_fingerprint

    @classmethod
    def encode(
        cls,
        encoder: EncoderLike,
        source: str | Path | Sequence[str],
        templates: Sequence[str] = ("{}",),
        progress: Progress | None = None,
    ) -> TextDictionary:
        """Embed texts, once: they are kept in the cache folder by their content (see `embed_texts`).

        Args:
            encoder: one with a text tower.
            source: a list of texts, one of the lists that ship (`dictionary_names`), or a file: a line an
                entry (empty lines and those that begin with `#` don't count), or a JSON list.
            templates: prompts with `{}` where the text goes; an entry's embedding is the mean of theirs.
            progress: told of the prompts that are done.

        Raises:
            ResidualError: an unknown list, an unreadable file, bad entries or templates, no text tower.
        """
        texts, encoder = checked_texts(read_texts(source)), checked_encoder(encoder)
        embeddings = embed_prompts(encoder, texts, templates, progress)
        return cls(texts, embeddings, encoder.text_fingerprint)

    def nearest(self, directions: Float[Tensor, "k d"], count: int = 5) -> list[list[tuple[str, float]]]:
        """For each direction the texts with the largest cosines to it, and these.

        Raises:
            ResidualError: directions of another width, or that aren't finite.
        """
        width = self.embeddings.shape[1]
        if directions.ndim != 2 or directions.shape[1] != width:
            raise ResidualError(f"Directions are rows (k, {width}), got {tuple(directions.shape)}.")
        directions = directions.to(torch.promote_types(directions.dtype, torch.float32))
        unit = normalize(check_finite(directions, "The directions"), dim=1)
        cosines = unit @ self.embeddings.to(unit).T
        values, places = cosines.topk(min(count, len(self)), dim=1)
        return [
            [(self.texts[place], value) for place, value in zip(row, found, strict=True)]
            for row, found in zip(places.tolist(), values.tolist(), strict=True)
        ]

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"TextDictionary({len(self)} entries, {self.embeddings.shape[1]} wide, {self.texts[0]!r}, …)"


def dictionary_names() -> tuple[str, ...]:
    """The lists that ship."""
    return tuple(_shipped())


def read_texts(source: str | Path | Sequence[str]) -> list[str]:
    """Texts of a list that ships, of a file, or as they are given; see `TextDictionary.encode`.

    Raises:
        ResidualError: there is no such list or file, or the file can't be read.
    """
    if not isinstance(source, str | Path):
        return list(source)
    if str(source) in _shipped():
        return _lines(_shipped()[str(source)])
    path = local_path(source)
    if not path.is_file():
        raise unknown_name("dictionary (a list that ships, or a file)", str(source), dictionary_names())
    try:
        content = read_regular(path, _LARGEST).decode("utf-8-sig")
        texts = parse_json(content, path) if path.suffix == ".json" else _lines(content)
    except (OSError, UnicodeDecodeError) as error:
        raise ResidualError(f"{path} can't be read as texts ({error}).") from error
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ResidualError(f"{path} holds no list of texts.")
    return texts


def checked_texts(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts that a dictionary can be made of.

    Raises:
        ResidualError: none, an empty one, or one that comes twice.
    """
    texts = tuple(texts)
    if not texts:
        raise ResidualError("A dictionary needs at least one text, got none.")
    if empty := [place for place, text in enumerate(texts) if not text.strip()]:
        raise ResidualError(f"Entry {empty[0]} of the dictionary is empty.")
    if twice := [text for text, count in Counter(texts).items() if count > 1]:
        raise ResidualError(f"The dictionary has {twice[0]!r} twice.")
    return texts


@cache
def _shipped() -> dict[str, str]:
    folder = files("residual.text").joinpath("lists")
    return {
        entry.name.removesuffix(".txt"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".txt")
    }


def _lines(content: str) -> list[str]:
    return [line for line in text_lines(content) if line and not line.startswith("#")]
