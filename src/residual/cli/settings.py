"""Settings from gin files and `--param name=value`, under what is given on the command line itself."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from tokenize import TokenError
from typing import Any

from residual.adapters.fit_settings import FitSettings, TrainSettings
from residual.adapters.methods import FINE_TUNING, METHODS, AdapterSettings
from residual.data import dataset_names
from residual.errors import ResidualError, unknown_name
from residual.experiments import Plan
from residual.heads.describe import DescribeSettings

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


@dataclass(frozen=True)
class ExperimentOptions:
    """The same of `residual experiment`: the embedded encoder and its suite."""

    encoders: list = field(default_factory=lambda: ["picto"])
    datasets: list = field(default_factory=lambda: [*dataset_names()])
    reference: str = "mixed"
    split: str = "train"
    limit: int = 0
    batch_size: int = 64
    workers: int = -1
    on_error: str = "raise"


def read_run_settings(
    files: Sequence[Path], params: Sequence[str], **given: Any
) -> tuple[RunOptions, list[FitSettings], AdapterSettings]:
    """The options of `residual run`, the settings of its fits, one a seed, and those of its adapters.

    What is not None in `given` wins over `--param`, that over the files, those over the defaults.

    Raises:
        ResidualError: a file that isn't there, or a binding that names nothing or can't be read.
    """
    with _parsed(files, params, RunOptions, AdapterSettings, FitSettings) as (run, make_adapters, make_fit):
        options = _options(run, RunOptions, given)
        return options, [make_fit(seed=seed) for seed in _seeds(options, FitSettings)], make_adapters()


def read_train_settings(
    files: Sequence[Path], params: Sequence[str], **given: Any
) -> tuple[TrainOptions, list[FitSettings] | list[TrainSettings], AdapterSettings]:
    """The options of `residual train`; the settings of its fits, or of its fine-tunings, one a seed; and
    those of its adapters.

    Raises:
        ResidualError: as `read_run_settings`; or a `--param` of fits for fine-tuning, or the reverse. In
            files both may stand, to be used with any method.
    """
    targets = (TrainOptions, AdapterSettings, TrainSettings, FitSettings)
    with _parsed(files, params, *targets) as (train, make_adapters, make_tuning, make_fit):
        options = _options(train, TrainOptions, given)
        if options.method not in METHODS:
            raise unknown_name("method", options.method, METHODS)
        options = replace(options, seeds=options.seeds or (1 if options.method == FINE_TUNING else _SEEDS))
        seeds = _seeds(options, FitSettings, TrainSettings)
        fits, tunings = ([make(seed=seed) for seed in seeds] for make in (make_fit, make_tuning))
        adapters = make_adapters()
    used, unused = "FitSettings", "TrainSettings"
    if options.method == FINE_TUNING:
        fits, used, unused = tunings, unused, used
    if idle := [param for param in params if param.strip().startswith(f"{unused}.")]:
        raise ResidualError(
            f"--param {idle[0]} has no effect here: the settings of {options.method} are {used}."
        )
    return options, fits, adapters


def read_encode_settings(files: Sequence[Path], params: Sequence[str], **given: Any) -> EncodeOptions:
    """The options of `residual encode`, as `read_run_settings` reads those of `residual run`."""
    with _parsed(files, params, EncodeOptions) as (encode,):
        return _options(encode, EncodeOptions, given)


def read_settings(kinds: Sequence[type], files: Sequence[Path], params: Sequence[str]) -> list[Any]:
    """Settings of each kind."""
    with _parsed(files, params, *kinds) as made:
        return [make() for make in made]


def read_describe_settings(files: Sequence[Path], params: Sequence[str], **given: Any) -> DescribeSettings:
    """How `residual describe` tells heads; what is not None in `given` wins."""
    (settings,) = read_settings([DescribeSettings], files, params)
    return replace(settings, **_given(given))


def read_experiment_settings(
    measures: type, files: Sequence[Path], params: Sequence[str], *, out: Path, device: str | None
) -> tuple[Plan, Any]:
    """What an experiment goes over, and how it measures; by default the embedded encoder and its suite."""
    with _parsed(files, params, ExperimentOptions, measures) as (experiment, make):
        options = asdict(_options(experiment, ExperimentOptions, {}))
        for name in ("encoders", "datasets"):
            if wrong := [each for each in options[name] if not isinstance(each, str)]:
                raise ResidualError(f"experiment.{name} is a list of names, got {wrong[0]!r} in it.")
            options[name] = tuple(options[name])
        options["workers"] = None if options["workers"] < 0 else options["workers"]
        return Plan(out=out, device=device, **options), make()


def _seeds(options: RunOptions, *settings: type) -> list[int]:
    """The seeds that a command is to fit with."""
    import gin

    name = _name(type(options))
    if options.seeds < 1:
        raise ResidualError(f"{name}.seeds must be at least 1, got {options.seeds}.")
    if not 0 <= options.seed < 2**63 - options.seeds:
        raise ResidualError(f"{name}.seed must be from 0 to 2**63, got {options.seed}.")
    for each in settings:
        if "seed" in gin.get_bindings(each.__name__, resolve_references=False):
            raise ResidualError(f"{each.__name__}.seed follows {name}.seed: set that instead.")
    return [options.seed + k for k in range(options.seeds)]


@contextmanager
def _parsed(files: Sequence[Path], params: Sequence[str], *kinds: type) -> Generator[list[Any]]:
    """The kinds with what files and params bind to them; what goes wrong there is one sentence."""
    import gin

    gin.clear_config(clear_constants=True)
    with gin.unlock_config():
        made = [_registered(kind) for kind in kinds]
    for file in files:
        if not file.is_file():
            raise ResidualError(f"There is no settings file {str(file)!r}.")
    try:
        gin.parse_config_files_and_bindings([str(file) for file in files], [_quoted(p) for p in params])
        yield made
    except (ValueError, SyntaxError, TokenError, TypeError, OSError, ImportError) as error:
        names = dict.fromkeys(map(_name, (kinds[0], kinds[-1])))
        examples = " or ".join(f"{name}.{_EXAMPLES.get(name, 'batch_size=32')}" for name in names)
        raise ResidualError(
            f"A setting can't be used: {str(error).splitlines()[0]} Settings look like {examples}."
        ) from error


def _options(make: Any, kind: Any, given: dict[str, Any]) -> Any:
    options = make(**_given(given))
    for each in fields(kind):
        value = getattr(options, each.name)
        if type(value).__name__ != each.type:
            raise ResidualError(f"{_name(kind)}.{each.name} is of type {each.type}, got {value!r}.")
    return options


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _name(kind: type) -> str:
    """What it is called in gin: options by their command, settings by their class."""
    command = kind.__name__.removesuffix("Options")
    return kind.__name__ if command == kind.__name__ else command.lower()


_configurable: dict[str, Any] = {}


def _registered(kind: type) -> Any:
    """gin's registry lasts as long as the process: each name is entered once."""
    import gin

    name = _name(kind)
    if name not in _configurable:
        _configurable[name] = gin.external_configurable(kind, name, module="residual")
    return _configurable[name]


def _quoted(param: str) -> str:
    """`run.dataset=letters` without the quotes that a shell takes away."""
    name, equals, value = (part.strip() for part in param.partition("="))
    if not equals:
        raise ResidualError(f"--param takes name=value, got {param!r}.")
    word = bool(value) and not value[0].isdigit() and value[0] not in "'\"[({-+.@%"
    return f"{name} = {value!r}" if word and value not in ("True", "False", "None") else f"{name} = {value}"
