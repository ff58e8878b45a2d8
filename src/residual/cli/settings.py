"""Settings from gin files and `--param name=value`, under what is given on the command line itself."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tokenize import TokenError
from typing import Any

from residual.adapters.fit_settings import FitSettings, TrainSettings
from residual.adapters.methods import FINE_TUNING, METHODS, AdapterSettings
from residual.data import dataset_names
from residual.errors import ResidualError, unknown_name
from residual.experiments.plan import Plan
from residual.heads.comparison import ScoreboardSettings
from residual.heads.describe import DescribeSettings
from residual.spectral.geometry import GeometrySettings
from residual.spectral.similarity import SimilaritySettings


def read_settings(
    files: Sequence[Path], params: Sequence[str], **given: Any
) -> tuple[dict[str, Any], list[FitSettings], AdapterSettings]:
    """The options of `residual run`, the settings of its fits, one a seed, and those of its adapters.

    What is not None in `given` wins over `--param`, that over the files, those over the defaults.

    Raises:
        ResidualError: a file that isn't there, or a binding that names nothing or can't be read.
    """

    def run(
        dataset: str = "mnist",
        encoder: str = "picto",
        bases: str = "mixed",
        per_dataset: int = 200,
        seed: int = 0,
        seeds: int = _SEEDS,
        batch_size: int = 64,
        on_error: str = "raise",
    ) -> dict[str, Any]:
        return dict(locals())

    with _parsed(files, params, run, AdapterSettings, FitSettings) as (options, make_adapters, make_fit):
        chosen = _chosen(options, run, given)
        return chosen, [make_fit(seed=seed) for seed in _seeds(chosen, run, FitSettings)], make_adapters()


def read_train_settings(
    files: Sequence[Path], params: Sequence[str], **given: Any
) -> tuple[dict[str, Any], list[FitSettings], list[TrainSettings], AdapterSettings]:
    """The options of `residual train`; the settings of its fits and of its fine-tunings, one a seed; those of
    its adapters.

    Raises:
        ResidualError: as `read_settings`; or a `--param` of fits for fine-tuning, or the reverse. In files
            both may stand, to be used with any method.
    """

    def train(
        dataset: str = "mnist",
        method: str = "residual",
        encoder: str = "picto",
        bases: str = "mixed",
        per_dataset: int = 200,
        seed: int = 0,
        seeds: int = 0,
        batch_size: int = 64,
        on_error: str = "raise",
    ) -> dict[str, Any]:
        return dict(locals())

    targets = (train, AdapterSettings, TrainSettings, FitSettings)
    with _parsed(files, params, *targets) as (options, make_adapters, make_tuning, make_fit):
        chosen = _chosen(options, train, given)
        if chosen["method"] not in METHODS:
            raise unknown_name("method", chosen["method"], METHODS)
        chosen["seeds"] = chosen["seeds"] or (1 if chosen["method"] == FINE_TUNING else _SEEDS)
        seeds = _seeds(chosen, train, FitSettings, TrainSettings)
        trainings = [make_tuning(seed=seed) for seed in seeds]
        fits, adapters = [make_fit(seed=seed) for seed in seeds], make_adapters()
    used, unused = "FitSettings", "TrainSettings"
    if chosen["method"] == FINE_TUNING:
        used, unused = unused, used
    if idle := [param for param in params if param.strip().startswith(f"{unused}.")]:
        raise ResidualError(
            f"--param {idle[0]} has no effect here: the settings of {chosen['method']} are {used}."
        )
    return chosen, fits, trainings, adapters


def _seeds(chosen: dict[str, Any], command: Any, *settings: type) -> list[int]:
    """The seeds that a command is to fit with."""
    import gin

    name, first, count = command.__name__, chosen["seed"], chosen["seeds"]
    if count < 1:
        raise ResidualError(f"{name}.seeds must be at least 1, got {count}.")
    if not 0 <= first < 2**63 - count:
        raise ResidualError(f"{name}.seed must be from 0 to 2**63, got {first}.")
    for each in settings:
        if "seed" in gin.get_bindings(each.__name__, resolve_references=False):
            raise ResidualError(f"{each.__name__}.seed follows {name}.seed: set that instead.")
    return [first + k for k in range(count)]


def read_encode_settings(files: Sequence[Path], params: Sequence[str], **given: Any) -> dict[str, Any]:
    """The options of `residual encode`, as `read_settings` reads those of `residual run`."""

    def encode(
        dataset: str = "mnist",
        split: str = "train",
        encoder: str = "picto",
        pooling: str = "own",
        kinds: str = "emb,mlp,head",
        dtype: str = "float16",
        batch_size: int = 64,
        workers: int = -1,
        on_error: str = "raise",
        limit: int = 0,
    ) -> dict[str, Any]:
        return dict(locals())

    with _parsed(files, params, encode) as (options,):
        return _chosen(options, encode, given)


def read_analyze_settings(
    files: Sequence[Path], params: Sequence[str]
) -> tuple[GeometrySettings, SimilaritySettings]:
    """How `residual analyze` measures, as `read_settings` reads the options of `residual run`."""
    with _parsed(files, params, GeometrySettings, SimilaritySettings) as (geometry, similarity):
        return geometry(), similarity()


def read_scoreboard_settings(files: Sequence[Path], params: Sequence[str]) -> ScoreboardSettings:
    """What `residual heads` compares."""
    with _parsed(files, params, ScoreboardSettings) as (make,):
        return make()


def read_describe_settings(files: Sequence[Path], params: Sequence[str], **given: Any) -> DescribeSettings:
    """How `residual describe` tells heads; what is not None in `given` wins."""
    with _parsed(files, params, DescribeSettings) as (make,):
        settings = make()
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


def read_experiment_settings(
    measures: type, files: Sequence[Path], params: Sequence[str], *, out: Path, device: str | None
) -> tuple[Plan, Any]:
    """What an experiment goes over, and how it measures; by default the embedded encoder and its suite."""

    def experiment(
        encoders: list = ["picto"],  # noqa: B006 (gin makes a new one of what it is given, and nothing changes it)
        datasets: list = [*dataset_names()],  # noqa: B006, B008
        reference: str = "mixed",
        split: str = "train",
        limit: int = 0,
        batch_size: int = 64,
        workers: int = -1,
        on_error: str = "raise",
    ) -> dict[str, Any]:
        return dict(locals())

    with _parsed(files, params, experiment, measures) as (options, make):
        chosen = _chosen(options, experiment, {})
        for name in ("encoders", "datasets"):
            if wrong := [each for each in chosen[name] if not isinstance(each, str)]:
                raise ResidualError(f"experiment.{name} is a list of names, got {wrong[0]!r} in it.")
            chosen[name] = tuple(chosen[name])
        chosen["workers"] = None if chosen["workers"] < 0 else chosen["workers"]
        return Plan(out=out, device=device, **chosen), make()


@contextmanager
def _parsed(files: Sequence[Path], params: Sequence[str], *targets: Any) -> Generator[list[Any]]:
    """The targets with what files and params bind to them; what goes wrong there is one sentence."""
    import gin

    gin.clear_config(clear_constants=True)
    with gin.unlock_config():
        made = [_once(target.__name__, target) for target in targets]
    for file in files:
        if not file.is_file():
            raise ResidualError(f"There is no settings file {str(file)!r}.")
    try:
        gin.parse_config_files_and_bindings([str(file) for file in files], [_quoted(p) for p in params])
        yield made
    except (ValueError, SyntaxError, TokenError, TypeError, OSError, ImportError) as error:
        names = dict.fromkeys(target.__name__ for target in (targets[0], targets[-1]))
        examples = " or ".join(f"{name}.{_EXAMPLES.get(name, 'batch_size=32')}" for name in names)
        raise ResidualError(
            f"A setting can't be used: {str(error).splitlines()[0]} Settings look like {examples}."
        ) from error


def _chosen(options: Any, target: Any, given: dict[str, Any]) -> dict[str, Any]:
    chosen = options(**{name: value for name, value in given.items() if value is not None})
    for name, value in chosen.items():
        wanted = target.__annotations__[name]
        if type(value).__name__ != wanted:
            raise ResidualError(f"{target.__name__}.{name} is of type {wanted}, got {value!r}.")
    return chosen


_SEEDS = 5  # fitted at once, they cost little more than one
_EXAMPLES = {
    "AdapterSettings": "init=ones",
    "AdaptersSettings": "seeds=3",
    "DescribeSettings": "criterion=l1",
    "FitSettings": "learning_rate=0.4",
    "GeometrySettings": "threshold=0.95",
    "HeadsSettings": " or HeadsSettings.atoms=5",
    "ScoreboardSettings": "shares=(0.05, 0.1)",
    "SimilaritySettings": "explained=0.95",
}
_registered: dict[str, Any] = {}


def _once(name: str, target: Any) -> Any:
    """gin's registry lasts as long as the process: each name is entered once."""
    import gin

    if name not in _registered:
        _registered[name] = gin.external_configurable(target, name, module="residual")
    return _registered[name]


def _quoted(param: str) -> str:
    """`run.dataset=letters` without the quotes that a shell takes away."""
    name, equals, value = param.partition("=")
    if not equals:
        raise ResidualError(f"--param takes name=value, got {param!r}.")
    value = value.strip()
    word = bool(value) and not value[0].isdigit() and value[0] not in "'\"[({-+.@%"
    return (
        f"{name.strip()} = '{value}'"
        if word and value not in ("True", "False", "None")
        else f"{name} = {value}"
    )
