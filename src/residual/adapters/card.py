"""What is known of how an adapter was trained, and the model card of an adapted encoder."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import jinja2

from residual.adapters.methods import FINE_TUNING, kept_method
from residual.encoders.names import ALIASES, encoder_name, is_listed
from residual.errors import ResidualError, printable
from residual.intervals import over_seeds, shown


@dataclass(frozen=True)
class TrainingRecord:
    """What was done and what came of it: it goes into an adapter's config and onto its model card.

    Args:
        dataset: whose train split it was fitted on, and whose test split measured it.
        accuracy: of each method, a part in [0, 1]; "zero_shot" is the encoder without adapter.
        interval: half the width of the 95 % interval over seeds, of some of them.
        n_train, n_test: how many pictures, if known.
        seeds: of the fits that the accuracies are means of.
        settings: of the fit, as JSON has them.

    Raises:
        ResidualError: an accuracy outside [0, 1], an interval that isn't positive or of no accuracy, or
            settings that JSON doesn't hold.
    """

    dataset: str = ""
    accuracy: Mapping[str, float | int] = field(default_factory=dict)
    interval: Mapping[str, float | int | None] = field(default_factory=dict)
    n_train: int | None = None
    n_test: int | None = None
    seeds: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if wrong := [name for name, value in self.accuracy.items() if not 0 <= value <= 1]:
            raise ResidualError(f"Accuracies are parts from 0 to 1; {', '.join(wrong)} isn't.")
        for name, half in self.interval.items():
            if name not in self.accuracy or not (half is None or 0 <= half < math.inf):
                raise ResidualError(
                    f"The interval of {name!r} must be of one of the accuracies, and half its width: {half}."
                )
        try:
            json.dumps(asdict(self), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ResidualError(f"A training record must be plain JSON: {error}.") from error

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> TrainingRecord:
        """Read what `dataclasses.asdict` made, by way of a file."""
        seeds = tuple(values.get("seeds", ()))
        return cls(seeds=seeds, **{name: value for name, value in values.items() if name != "seeds"})


def model_card(config: dict[str, Any], place: str, nameable: bool = True) -> str:
    """Markdown with a header that the hub reads; names of unknown origin stay on their line in it.

    Args:
        config: of the adapter.
        place: where it will be loaded from.
        nameable: whether the encoder's name there is the whole one.
    """
    from huggingface_hub import ModelCardData

    method, name = config["method"], config["encoder"]["name"]
    kept = kept_method(method)
    record = TrainingRecord.of_json(config["training"] or {})
    base = hub_name(name)
    header = ModelCardData(
        library_name="residual-vit",
        pipeline_tag="image-classification" if config["class_names"] else "image-feature-extraction",
        tags=["residual-vit", "vision-transformer", method],
        base_model=base,
        base_model_relation=base and ("finetune" if method == FINE_TUNING else "adapter"),
    )
    return _template().render(
        config,
        header=header.to_yaml(),
        title=f"{name} adapted to {record.dataset}" if record.dataset else f"{name}, adapted",
        about=kept.about if kept else "none: the encoder as it is, with a classifier",
        arguments=_arguments(place, name, nameable),
        classes=config["class_names"] or [],
        record=record,
        shown={
            name: shown(share, record.interval.get(name), record.n_test)
            for name, share in record.accuracy.items()
        },
        over_seeds=any(over_seeds(half) for half in record.interval.values()),
    )


def hub_name(encoder: str) -> str | None:
    """The hub's repository that an encoder of this name is loaded from, where the name says so."""
    spec = ALIASES[encoder].spec if encoder in ALIASES else encoder
    form, _, place = spec.partition(":")
    if form in ("open_clip", "timm"):
        if not place.startswith("hf-hub:"):
            return None
        place = place.removeprefix("hf-hub:")
    elif form != "hf" or os.path.isdir(os.path.expanduser(place)):
        return None
    repo = place.partition("@")[0]
    return repo if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", repo) else None


def _arguments(place: str, encoder: str, nameable: bool) -> str:
    """Those by which it is loaded: an encoder that isn't listed has to be named, or given."""
    if is_listed(encoder):
        return json.dumps(place)
    with suppress(ResidualError):
        if encoder_name(encoder) == encoder and nameable:
            return f"{json.dumps(place)}, encoder={json.dumps(encoder)}"
    return f"{json.dumps(place)}, encoder=encoder"


def _plain(text: str) -> str:
    """Text that stays text in Markdown, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", printable(" ".join(text.split())))


def _code(text: str) -> str:
    """Text that stays code between backticks, on one line."""
    return printable(text).replace("`", "'")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("residual.adapters"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "plain": _plain,
        "code": _code,
        "json": json.dumps,
        "number": "{:,}".format,
    }
    return environment.get_template("card.md")
