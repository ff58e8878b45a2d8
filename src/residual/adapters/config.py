"""What an adapter's config says. Anyone may have written it: it is read no further than it is a config, each
field is of its kind, and it names the encoder but has nothing loaded that the library doesn't list.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from residual.encoders.encoder import Encoder
from residual.encoders.load import is_listed, load_encoder
from residual.errors import AdapterEncoderError, ResidualError
from residual.files import parse_json, read_regular
from residual.libraries import first_line, version_of

FORMAT = 1
_LARGEST = 2**23  # bytes; names of 100,000 classes are a quarter of it
_NUMBERS = (int, float)
_KINDS: dict[str, Callable[[Any], bool]] = {
    "a text": lambda value: isinstance(value, str),
    "a whole number": lambda value: type(value) is int,
    "a number": lambda value: type(value) in _NUMBERS,
    "an object": lambda value: isinstance(value, dict),
    "a list of texts": lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
    "a list of whole numbers": lambda value: isinstance(value, list) and all(type(v) is int for v in value),
    "numbers by name": lambda value: (
        isinstance(value, dict) and all(v is None or type(v) in _NUMBERS for v in value.values())
    ),
}
_FIELDS = {
    "a text": "method sha256 training.dataset encoder.name encoder.fingerprint encoder.split encoder.pooling "
    "bases.encoder_name bases.fingerprint bases.split bases.pooling adapter.tail adapter.mean adapter.others",
    "a whole number": "encoder.output_dim adapter.dim bases.samples",
    "a number": "adapter.l1 classifier.scale",
    "an object": "encoder training.settings",
    "a list of texts": "bases.datasets",
    "a list of whole numbers": "adapter.ranks training.seeds",
    "numbers by name": "training.accuracy training.interval",
}
_FIELDS_OR_NULL = {
    "a text": "encoder.original_fingerprint classifier.fingerprint",
    "a whole number": "training.n_train training.n_test",
    "an object": "adapter bases classifier training",
    "a list of texts": "class_names",
}


@dataclass(frozen=True)
class EncoderFacts:
    """What a config says of the encoder; `original_fingerprint` is what it had before it was fine-tuned.

    `split` is the centering's older name, which files keep.
    """

    name: str
    fingerprint: str
    original_fingerprint: str | None
    split: str
    pooling: str
    output_dim: int

    def __post_init__(self):
        if self.pooling != "own":
            raise ValueError(f"no encoder is like this: {self}")

    def encoder(self, place: str | Path, given: Encoder | str | None, device: Any = None) -> Encoder:
        """The encoder that is given, or loaded by the name that is given; else by this one if it is listed.

        Raises:
            AdapterEncoderError: none is given, and this name isn't listed.
            ResidualError: the weights, the centering or the width are others; or as `load_encoder`.
        """
        if given is None and not is_listed(self.name):
            raise AdapterEncoderError(
                f"{place} is for an encoder called {self.name!r}, which isn't one that the library lists, so "
                "it isn't loaded because a file names it.",
                self.name,
            )
        encoder = given
        if not isinstance(encoder, Encoder):
            encoder = load_encoder(encoder or self.name, device, centering=self.split)
        wrong = encoder.fingerprint not in (self.fingerprint, self.original_fingerprint)
        if wrong or (encoder.centering, encoder.output_dim) != (self.split, self.output_dim):
            wanted = self.original_fingerprint or self.fingerprint
            raise ResidualError(
                f"{place} is for {self.name} (weights {wanted[:8]}, centering {self.split!r}, width "
                f"{self.output_dim}), not for {encoder.name} (weights {encoder.fingerprint[:8]}, centering "
                f"{encoder.centering!r}, width {encoder.output_dim})."
            )
        return encoder


def read_config(path: Path) -> dict[str, Any]:
    """A config, each of its fields of its kind.

    Raises:
        ResidualError: there is none, it can't be read, or is of a format that this version doesn't know.
    """
    if not path.exists():
        raise ResidualError(f"{str(path.parent)!r} holds no {path.name}: save_pretrained writes one.")
    try:
        config = parse_json(read_regular(path, _LARGEST), path)
    except OSError as error:
        raise ResidualError(f"{path} can't be read ({error.strerror}).") from error
    if not isinstance(config, dict) or "format" not in config:
        raise ResidualError(f"{path} can't be read (it tells of no format).")
    if (version := config["format"]) != FORMAT:
        versions = config.get("versions")
        writer = versions.get("residual-vit", "unknown") if isinstance(versions, dict) else "unknown"
        raise ResidualError(
            f"{path} is of format {_short(version)}, and this residual-vit ({version_of('residual-vit')}) "
            f"reads format {FORMAT}: take the version that wrote it, {_short(writer)}, or a newer one."
        )
    with making_sense(path):
        check_fields(config)
    return config


def check_fields(config: dict[str, Any]) -> None:
    """Refuse fields of another kind; one that is missing is for whoever needs it.

    Raises:
        ValueError: names the field.
    """
    for fields, null in ((_FIELDS, False), (_FIELDS_OR_NULL, True)):
        for kind, names in fields.items():
            for name in names.split():
                room, _, field = name.rpartition(".")
                holder = config.get(room) if room else config
                if not isinstance(holder, dict) or field not in holder:
                    continue
                value = holder[field]
                if not (_KINDS[kind](value) or (null and value is None)):
                    raise ValueError(f"{name} is {_short(value)}, not {kind}")


@contextmanager
def making_sense(path: str | Path) -> Generator[None]:
    """Turn what goes wrong with fields that are missing or of another kind into one sentence.

    Raises:
        ResidualError: in place of what went wrong.
    """
    wrong = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError, ArithmeticError)
    try:
        yield
    except (ResidualError, torch.OutOfMemoryError):
        raise
    except wrong as error:
        what = f"no {error}" if isinstance(error, KeyError) else first_line(error)
        raise ResidualError(f"{path} and the tensors beside it make no adapter ({what}).") from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}…"
