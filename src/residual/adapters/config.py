"""What an adapter's config says. Anyone may have written it: it is read no further than it is a config, each
field is of its kind, and it names the encoder but has nothing loaded that the library doesn't list.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residual.encoders.encoder import Encoder
from residual.encoders.fingerprints import precision_hint
from residual.encoders.load import load_encoder
from residual.encoders.names import is_listed
from residual.errors import AdapterEncoderError, ResidualError, is_out_of_memory
from residual.files import parse_json, read_regular
from residual.libraries import first_line, version_of
from residual.store.form import check_form
from residual.versions import check_fields, told_by_version

FORMATS = (1, 2)
_LARGEST = 2**23  # bytes; names of 100,000 classes are a quarter of it
_ENCODER = {
    **dict.fromkeys(("name", "fingerprint", "split", "pooling"), str),
    "original_fingerprint": str | None,
    "output_dim": int,
}
_FORM = {
    "method": str,
    "encoder": _ENCODER,
    **dict.fromkeys(("adapter", "bases", "classifier", "training"), dict | None),
    "class_names": list | None,
}
_NOTED = ("format", "trained_weights", "rounded_fingerprint", "versions", "sha256")
# Of what may be null, and may lack some.
_ROOMS = {
    "adapter": {
        "dim": int,
        "ranks": [int],
        "tail": str,
        "mean": str,
        "others": str,
        "l1": int | float,
        "write_back": str,
        "mode": str,
        "base": dict | None,
    },
    "classifier": {"scale": int | float, "fingerprint": str | None, "normalized": bool},
    "training": {
        "dataset": str,
        "accuracy": {str: int | float},
        "interval": {str: int | float | None},
        "n_train": int | None,
        "n_test": int | None,
        "seeds": [int],
        "settings": dict,
    },
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

    def encoder(
        self, place: str | Path, given: Encoder | str | None, device: Any = None, rounded: str | None = None
    ) -> Encoder:
        """The encoder that is given, or loaded by the name that is given; else by this one if it is listed.

        `rounded` is the fingerprint of its weights in float16, where a config tells it.

        Raises:
            AdapterEncoderError: none is given, and this name isn't listed.
            ResidualError: the weights, the centering or the width are others; or as `load_encoder`.
        """
        chosen = self.name if given is None else given
        if given is None and not is_listed(self.name):
            raise AdapterEncoderError(
                f"{place} is for an encoder called {self.name!r}, which isn't one that the library lists, so "
                "it isn't loaded because a file names it.",
                self.name,
            )
        encoder = chosen
        if not isinstance(encoder, Encoder):
            encoder = load_encoder(encoder, device, centering=self.split)
        known = encoder.fingerprint in (self.fingerprint, self.original_fingerprint)
        known = known or (rounded is not None and encoder.rounded_fingerprint == rounded)
        if not known or (encoder.centering, encoder.output_dim) != (self.split, self.output_dim):
            wanted = self.original_fingerprint or self.fingerprint
            raise ResidualError(
                f"{place} is for {self.name} (weights {wanted[:8]}, centering {self.split!r}, width "
                f"{self.output_dim}), not for {encoder.name} (weights {encoder.fingerprint[:8]}, centering "
                f"{encoder.centering!r}, width {encoder.output_dim}).",
                "" if known else precision_hint(encoder.dtype, "from_pretrained(…, encoder).half()"),
            )
        return encoder


def format_of(adapter: dict[str, Any] | None, classifier: dict[str, Any] | None) -> int:
    """2 where there is a choice that readers of format 1 would pass over, so that they refuse it."""
    adapter = adapter or {}
    kept = [adapter.get(name) for name in ("others", "tail", "mean")]
    coarse = "l1" in adapter and kept != ["zero", "drop", "drop"]
    later = coarse or not {"write_back", "base"}.isdisjoint(adapter)
    return 2 if later or "normalized" in (classifier or {}) else 1


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
    check_config(config, path)
    return config


def check_config(config: Any, path: Path) -> None:
    """Refuse a config of another format, or with fields of another kind.

    Raises:
        ResidualError: it is; names the file and the field.
    """
    if not isinstance(config, dict) or "format" not in config:
        raise ResidualError(f"{path} can't be read (it tells of no format).")
    if (version := config["format"]) not in FORMATS:
        versions = config.get("versions")
        writer = versions.get("residual-vit", "unknown") if isinstance(versions, dict) else "unknown"
        raise ResidualError(
            f"{path} is of format {_short(version)}, and this residual-vit ({version_of('residual-vit')}) "
            f"reads formats {FORMATS[0]} and {FORMATS[1]}: take the version that wrote it, {_short(writer)}, "
            "or a newer one."
        )
    with making_sense(path):
        _check_fields(config)
    check_fields(config, (*_FORM, *_NOTED), path)
    for room, form in {"encoder": _ENCODER, **_ROOMS}.items():
        check_fields(config[room] or {}, form, path, room)


def _check_fields(config: Any) -> None:
    """Refuse fields of another kind; what the bases come from is looked at where it is read.

    Raises:
        FormError: names the field.
    """
    check_form(config, _FORM, "the config")
    if config["class_names"] is not None:
        check_form(config["class_names"], [str], "class_names")
    for room, form in _ROOMS.items():
        if (held := config[room]) is not None:
            check_form(held, {name: part for name, part in form.items() if name in held}, room)


@contextmanager
def making_sense(path: str | Path) -> Generator[None]:
    """Turn what goes wrong with fields that are missing or of another kind into one sentence.

    Raises:
        ResidualError: in place of what went wrong.
    """
    wrong = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError, ArithmeticError)
    with told_by_version(path):
        try:
            yield
        except wrong as error:
            if isinstance(error, ResidualError) or is_out_of_memory(error):
                raise
            what = f"no {error}" if isinstance(error, KeyError) else first_line(error)
            raise ResidualError(f"{path} and the tensors beside it make no adapter ({what}).") from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}…"
