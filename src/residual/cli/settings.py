"""Settings from gin files and `--param name=value`, under what is given on the command line itself."""

from __future__ import annotations

import reprlib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from residual.adapters.fit_settings import FitSettings, TrainSettings
from residual.adapters.methods import FINE_TUNING, METHODS, AdapterSettings
from residual.adapters.recipes import Fitting, fitting
from residual.cli.settings_files import read_bindings
from residual.data import dataset_names
from residual.errors import ResidualError, unknown_name
from residual.experiments import Plan
from residual.heads.descriptions import DescribeSettings
from residual.workflows.run import RUN_METHODS

_MOST_SEEDS = 1_000
_SEEDS = 5  # fitted at once, they cost little more than one
_EXAMPLES = {
    "AdapterSettings": "init=ones",
    "AdaptersSettings": "seeds=3",
    "DescribeSettings": "criterion=l1",
    "FitSettings": "learning_rate=0.4",
    "GeometrySettings": "threshold=0.95",
    "HeadsSettings": "atoms=5",
    "ScoreboardSettings": "shares=(0.05, 0.1)",
    "SimilaritySettings": "explained=0.95",
}


@dataclass(frozen=True)
class RunOptions:
    """What files and `--param` can set of `residual run`, as `run.dataset=letters`."""

    dataset: str = "mnist"
    encoder: str = "picto"
    bases: str = "mixed"
    recipe: str = "gentle"
    hold_out: tuple[str, ...] = ()
    limit: int = 0
    per_dataset: int = 200
    seed: int = 0
    seeds: int = _SEEDS
    batch_size: int = 64
    on_error: str = "raise"


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """The same of `residual train`; 0 seeds are 5, for fine-tuning 1."""

    method: str = "residual"
    seeds: int = 0


@dataclass(frozen=True)
class EncodeOptions:
    """The same of `residual encode`; with -1 workers their number follows the device."""

    dataset: str = "mnist"
    split: str = "train"
    encoder: str = "picto"
    pooling: str = "own"
    kinds: str = "emb,mlp,head"
    dtype: str = "float16"
    batch_size: int = 64
    workers: int = -1
    on_error: str = "raise"
    limit: int = 0
    stream: bool = False


@dataclass(frozen=True)
class ExperimentOptions:
    """The same of `residual experiment`: the embedded encoder and its suite."""

    encoders: list = field(default_factory=lambda: ["picto"])
    datasets: list = field(default_factory=lambda: [*dataset_names()])
    reference: str = "mixed"
    split: str = "train"
    limit: int = 0
    reference_limit: int = 0
    task_limit: int = 0
    stream: bool = False
    batch_size: int = 64
    workers: int = -1
    on_error: str = "skip"
    most_skipped: int = 100
    most_skipped_share: float | int = 0.01


def read_run_settings(
    files: Sequence[Path], params: Sequence[str], methods: Sequence[str] = RUN_METHODS, **given: Any
) -> tuple[RunOptions, dict[str, Fitting]]:
    """The options of `residual run`, and how each of its methods is made and fitted.

    What is not None in `given` wins over `--param`, that over the files, those over the defaults.

    Raises:
        ResidualError: a file that isn't there, or a binding that names nothing or can't be read.
    """
    run, adapter, fit = _bound(files, params, RunOptions, AdapterSettings, FitSettings)
    options = _made(RunOptions, run, given)
    seeds = _seeds(options, FitSettings=fit)
    _checked(adapter, fit)
    return options, {method: fitting(method, options.recipe, seeds, adapter, fit) for method in methods}


def read_train_settings(
    files: Sequence[Path], params: Sequence[str], **given: Any
) -> tuple[TrainOptions, Fitting | list[TrainSettings]]:
    """The options of `residual train`; and how its method is made and fitted, or the settings of its
    fine-tunings, one a seed.

    Raises:
        ResidualError: as `read_run_settings`; or a recipe or a `--param` of fits for fine-tuning, or the
            reverse. In files all may stand, to be used with any method.
    """
    targets = (TrainOptions, AdapterSettings, TrainSettings, FitSettings)
    train, adapter, tuning, fit = _bound(files, params, *targets)
    options = _made(TrainOptions, train, given)
    if options.method not in METHODS:
        raise unknown_name("method", options.method, METHODS)
    options = replace(options, seeds=options.seeds or (1 if options.method == FINE_TUNING else _SEEDS))
    seeds = _seeds(options, FitSettings=fit, TrainSettings=tuning)
    _checked(adapter, fit)
    tunings = [_made(TrainSettings, tuning, {"seed": each}) for each in seeds]
    how: Fitting | list[TrainSettings] = tunings
    used, unused = "TrainSettings", "FitSettings"
    if options.method != FINE_TUNING:
        how = fitting(options.method, options.recipe, seeds, adapter, fit)
        used, unused = unused, used
    elif given.get("recipe"):
        raise ResidualError(f"Recipes are of adapters: {FINE_TUNING} has none.")
    names = (f"{unused}.", *(("train.recipe", "AdapterSettings.") if options.method == FINE_TUNING else ()))
    if idle := [param for param in params if param.strip().startswith(names)]:
        raise ResidualError(
            f"--param {idle[0]} has no effect here: the settings of {options.method} are {used}."
        )
    return options, how


def read_encode_settings(files: Sequence[Path], params: Sequence[str], **given: Any) -> EncodeOptions:
    """The options of `residual encode`, as `read_run_settings` reads those of `residual run`."""
    (encode,) = _bound(files, params, EncodeOptions)
    return _made(EncodeOptions, encode, given)


def read_settings(kinds: Sequence[type], files: Sequence[Path], params: Sequence[str]) -> list[Any]:
    """Settings of each kind."""
    return [_made(kind, values) for kind, values in zip(kinds, _bound(files, params, *kinds), strict=True)]


def read_describe_settings(files: Sequence[Path], params: Sequence[str], **given: Any) -> DescribeSettings:
    """How `residual describe` tells heads; what is not None in `given` wins."""
    (described,) = _bound(files, params, DescribeSettings)
    return _made(DescribeSettings, described, given)


def read_experiment_settings(
    measures: type, files: Sequence[Path], params: Sequence[str], *, out: Path, device: str | None
) -> tuple[Plan, Any]:
    """What an experiment goes over, and how it measures; by default the embedded encoder and its suite."""
    experiment, measured = _bound(files, params, ExperimentOptions, measures)
    options = asdict(_made(ExperimentOptions, experiment))
    for name in ("encoders", "datasets"):
        if wrong := [each for each in options[name] if not isinstance(each, str)]:
            raise ResidualError(f"experiment.{name} is a list of names, got {wrong[0]!r} in it.")
        options[name] = tuple(options[name])
    options["workers"] = None if options["workers"] < 0 else options["workers"]
    return Plan(out=out, device=device, **options), _made(measures, measured)


def _seeds(options: RunOptions, **settings: Mapping[str, Any]) -> list[int]:
    """The seeds that a command is to fit with; `settings` is what is bound to those that follow them."""
    name = _name(type(options))
    if not 1 <= options.seeds <= _MOST_SEEDS:
        raise ResidualError(f"{name}.seeds must be from 1 to {_MOST_SEEDS:,}, got {options.seeds}.")
    if not 0 <= options.seed < 2**63 - options.seeds:
        raise ResidualError(f"{name}.seed must be from 0 to 2**63, got {options.seed}.")
    for each, bound in settings.items():
        if "seed" in bound:
            raise ResidualError(f"{each}.seed follows {name}.seed: set that instead.")
    return [options.seed + k for k in range(options.seeds)]


def _bound(files: Sequence[Path], params: Sequence[str], *kinds: type) -> list[dict[str, Any]]:
    """What files and params bind to each kind."""
    named = {_name(kind): kind for kind in kinds}
    ends = dict.fromkeys((next(iter(named)), next(reversed(named))))
    examples = " or ".join(f"{name}.{_EXAMPLES.get(name, 'batch_size=32')}" for name in ends)
    return list(read_bindings(files, params, named, f"Settings look like {examples}.").values())


def _made(kind: Any, bound: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Any:
    """Options or settings of what is bound and, before that, what is given and not None.

    Raises:
        ResidualError: a value is of another type than its field, or out of range.
    """
    values = {**bound, **{name: value for name, value in (given or {}).items() if value is not None}}
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        if isinstance(value, list) and typing.get_origin(hints[name]) is tuple:
            values[name] = tuple(value)
    odd = [name for name, value in values.items() if not _fits(value, hints[name])]
    try:
        made = kind(**values)  # it knows best what it can't be
    except (TypeError, ArithmeticError):
        if not odd:
            raise
    else:
        if not odd:
            return made
    types = {each.name: each.type for each in fields(kind)}
    raise ResidualError(
        f"{_name(kind)}.{odd[0]} is of type {types[odd[0]]}, got {reprlib.repr(values[odd[0]])}."
    )


def _fits(value: Any, hint: Any) -> bool:
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(each, parts[0]) for each in value)
    return any(type(value) is each or (each is float and type(value) is int) for each in parts or (hint,))


def _checked(adapter: Mapping[str, Any], fit: Mapping[str, Any]) -> None:
    """Refuse settings of adapters and fits that can't be, whatever the recipe."""
    _made(AdapterSettings, adapter)
    _made(FitSettings, fit)


def _name(kind: type) -> str:
    """What it is called in files: options by their command, settings by their class."""
    command = kind.__name__.removesuffix("Options")
    return kind.__name__ if command == kind.__name__ else command.lower()
