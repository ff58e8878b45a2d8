"""Settings from gin files and `--param name=value`, under what is given on the command line itself.

A file may be shared by several commands: what it binds of another, or of what isn't done this time, is told
in one line. On the command line everything has to have its effect.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from residual.adapters.fit_settings import FitSettings, TrainSettings
from residual.adapters.methods import ADAPTERS, FINE_TUNING, METHODS, AdapterSettings
from residual.adapters.recipes import RECIPES, Fitting, fitting
from residual.cli.command_settings import (
    COMMANDS,
    KINDS,
    SEEDS,
    EncodeOptions,
    ExperimentOptions,
    RunOptions,
    TrainOptions,
)
from residual.cli.settings_files import Binding, read_bindings
from residual.errors import LeftOutWarning, ResidualError, unknown_name
from residual.experiments import EXPERIMENTS, Plan
from residual.heads.comparison import ScoreboardSettings
from residual.heads.descriptions import DescribeSettings
from residual.settings import Listed, called, checked, default_of, idle, listed, settings_of
from residual.spectral.geometry import GeometrySettings
from residual.spectral.similarity import SimilaritySettings
from residual.workflows.run import RUN_METHODS


class Bound:
    """What is bound for one command: by files, over them by `--param`, over these by its own options.

    Args:
        command: one of `COMMANDS`.
        files: of settings.
        params: "name=value" each.
        given: what the command's own options set; those that are None don't count.

    Raises:
        ResidualError: as `read_bindings`; a `--param` of another command, or that an option contradicts.
    """

    def __init__(self, command: str, files: Sequence[Path], params: Sequence[str], **given: Any):
        kinds = COMMANDS[command]
        self.values: dict[type, dict[str, Any]] = {kind: {} for kind in kinds}
        self.places: dict[str, str] = {}  # of a whole name, as "run.seeds"
        self._bindings: dict[str, Binding] = {}
        self._idle: list[Binding] = []
        known = {called(kind): kind for kind in (*kinds, *KINDS.values())}
        hint = f"`residual settings {command}` lists what there is."
        for each in read_bindings(files, params, known, hint, [called(kind) for kind in kinds]):
            kind = known[each.kind]
            if kind in self.values:
                self.values[kind][each.field] = each.value
                self.places[each.name] = each.place
                self._bindings[each.name] = each
            elif each.of_file:
                self._idle.append(each)
            else:
                owners = [f"`residual {name}`" for name, its in COMMANDS.items() if kind in its]
                raise each.refused(
                    f"`residual {command}` has no {each.name}, which is of {', '.join(owners)}"
                )
        for name, value in given.items():
            if value is not None:
                self._give(kinds[0], name, value)

    def _give(self, kind: type, name: str, value: Any) -> None:
        """Set what an option of the command line says."""
        option, whole = f"--{name.replace('_', '-')}", f"{called(kind)}.{name}"
        value = checked(kind, name, value, option)
        if self.places.get(whole) == "--param" and self.values[kind][name] != value:
            raise ResidualError(
                f"{option} is {value!r}, and --param {whole} is {self.values[kind][name]!r}: leave out one."
            )
        self.values[kind][name], self.places[whole] = value, option

    def made(self, kind: type, **over: Any) -> Any:
        """Settings of what is bound, and of `over` before that."""
        return kind(**{**self.values[kind], **over})

    def check_used(self, without: Mapping[str, str]) -> None:
        """Refuse what has no effect on the command line, and tell what has none in files.

        Args:
            without: whole names of settings that don't count this time, each with the reason.

        Raises:
            ResidualError: one of them is bound on the command line.
        """
        for name, why in without.items():
            place = self.places.get(name)
            if place is None:
                continue
            binding = self._bindings.get(name)
            if binding is not None and binding.of_file and place == binding.place:
                self._idle.append(binding)
                continue
            said = f"--param {name}" if place == "--param" else place
            raise ResidualError(f"{said} has no effect here: {why}. Leave it out.")
        if self._idle:
            names = [f"{each.name} ({each.place})" for each in self._idle]
            more = f", and {len(names) - 3} more" if len(names) > 3 else ""
            warnings.warn(
                f"settings that have no effect here: {', '.join(names[:3])}{more}.",
                LeftOutWarning,
                stacklevel=2,
            )

    def idle(self, methods: Sequence[str] = ()) -> dict[str, str]:
        """Whole names of settings that have no effect beside the others, or for any of some methods, each
        with the reason.
        """
        found = {}
        for kind in self.values:
            found |= {f"{called(kind)}.{name}": why for name, why in idle(self.made(kind)).items()}
        if not methods or AdapterSettings not in self.values:
            return found
        own, tuned = called(next(iter(self.values))), FINE_TUNING in methods
        for name in settings_of(AdapterSettings):
            takers = [method for method, each in ADAPTERS.items() if name in each.takes]
            if not set(takers) & set(methods):
                found[f"AdapterSettings.{name}"] = f"it is of {', '.join(takers)}"
        kind = FitSettings if tuned else TrainSettings
        what = f"the settings of {FINE_TUNING} are TrainSettings, and of all other methods FitSettings"
        found |= {f"{called(kind)}.{name}": what for name in settings_of(kind)}
        if tuned:
            what = f"{FINE_TUNING} trains the encoder itself, without components and by no recipe"
            found |= {f"{own}.{name}": what for name in ("bases", "per_dataset", "recipe")}
        if not tuned and all(METHODS[method].released for method in methods):
            found[f"{own}.recipe"] = "methods as published have no other recipe than paper"
        return found


def read_run_settings(
    files: Sequence[Path],
    params: Sequence[str],
    methods: Sequence[str] = RUN_METHODS,
    every: bool = False,
    **given: Any,
) -> tuple[RunOptions, dict[str, Fitting]]:
    """The options of `residual run`, and how each of its methods is made and fitted; of all datasets of the
    suite if `every`.

    What is not None in `given` wins over files, those over the defaults; `--param` wins over files, too.

    Raises:
        ResidualError: as `Bound`; or what has no effect on the command line.
    """
    for method in methods:
        if method not in ADAPTERS:
            raise unknown_name("method", method, ADAPTERS)
    bound = Bound("run", files, params, **given)
    options = bound.made(RunOptions)
    seeds = _seeds(options, bound)
    whole = {"run.dataset": "--all takes every dataset of the suite"} if every else {}
    bound.check_used(bound.idle(methods) | whole)
    adapter, fit = bound.values[AdapterSettings], bound.values[FitSettings]
    return options, {method: fitting(method, options.recipe, seeds, adapter, fit) for method in methods}


def read_train_settings(
    files: Sequence[Path], params: Sequence[str], **given: Any
) -> tuple[TrainOptions, Fitting | list[TrainSettings]]:
    """The options of `residual train`; and how its method is made and fitted, or the settings of its
    fine-tunings, one a seed.

    Raises:
        ResidualError: as `read_run_settings`.
    """
    bound = Bound("train", files, params, **given)
    options = bound.made(TrainOptions)
    tuned = options.method == FINE_TUNING
    options = replace(options, seeds=options.seeds or (1 if tuned else SEEDS))
    seeds = _seeds(options, bound)
    bound.check_used(bound.idle([options.method]))
    if tuned:
        return options, [bound.made(TrainSettings, seed=each) for each in seeds]
    adapter, fit = bound.values[AdapterSettings], bound.values[FitSettings]
    return options, fitting(options.method, options.recipe, seeds, adapter, fit)


def read_encode_settings(
    files: Sequence[Path], params: Sequence[str], bases_only: bool = False, **given: Any
) -> EncodeOptions:
    """The options of `residual encode`, as `read_run_settings` reads those of `residual run`."""
    bound = Bound("encode", files, params, **given)
    bound.check_used(bound.idle() | ({"encode.dtype": "--bases-only stores nothing"} if bases_only else {}))
    return bound.made(EncodeOptions)


def read_analyze_settings(
    files: Sequence[Path], params: Sequence[str], against: bool = False
) -> tuple[GeometrySettings, SimilaritySettings]:
    """How `residual analyze` measures, and compares where something is to be compared."""
    bound = Bound("analyze", files, params)
    similarity = bound.made(SimilaritySettings)
    names = ("explained", "anchors", "seed", "published_anchors")
    without = dict.fromkeys(names, "it is of what --against compares")
    if against:
        without = {"anchors": "it is of the experiments 2 and class-token"}
        if not similarity.published_anchors:
            without["seed"] = "it counts where published_anchors isn't 0"
    bound.check_used(bound.idle() | {f"SimilaritySettings.{name}": why for name, why in without.items()})
    return bound.made(GeometrySettings), similarity


def read_heads_settings(
    files: Sequence[Path], params: Sequence[str], dictionary: bool = False
) -> ScoreboardSettings:
    """What `residual heads` compares; texts only where there is a dictionary."""
    bound = Bound("heads", files, params)
    texts = {} if dictionary else {"ScoreboardSettings.atoms": "it is of the texts of --dictionary"}
    bound.check_used(bound.idle() | texts)
    return bound.made(ScoreboardSettings)


def read_describe_settings(
    files: Sequence[Path], params: Sequence[str], named: bool = False, **given: Any
) -> DescribeSettings:
    """How `residual describe` tells heads, which may be named; what is not None in `given` wins."""
    bound = Bound("describe", files, params, **given)
    best = {"DescribeSettings.top": "--head names the heads"} if named else {}
    bound.check_used(bound.idle() | best)
    return bound.made(DescribeSettings)


def read_experiment_settings(
    number: str, files: Sequence[Path], params: Sequence[str], **given: Any
) -> tuple[Plan, Any]:
    """What an experiment goes over, and how it measures; by default the embedded encoder and its suite.
    `given` is what of the plan no setting says."""
    bound, kind = Bound(f"experiment {number}", files, params), EXPERIMENTS[number]
    measures, without = kind.settings_of, f"experiment {number} does nothing by it"
    bound.check_used(bound.idle() | {f"{called(measures)}.{name}": without for name in kind.unused})
    options = asdict(bound.made(ExperimentOptions))
    options |= {name: tuple(options[name]) for name in ("encoders", "datasets")}
    options["workers"] = None if options["workers"] < 0 else options["workers"]
    defaults = {name: default_of(measures, name) for name in kind.unused}
    return Plan(**given, **options), bound.made(measures, **defaults)


def list_settings(
    command: str,
    files: Sequence[Path] = (),
    params: Sequence[str] = (),
    methods: Sequence[str] = (),
    word: str = "",
) -> list[Listed]:
    """All settings of a command, or of all commands if it is "", with their values and where these are from.

    Args:
        command: one of `COMMANDS`, or how one begins.
        files, params: as the command takes them.
        methods: of run and train, to list only what they use.
        word: what names or meanings have to hold.

    Raises:
        ResidualError: no such command or method, files or methods without one, or as the command itself.
    """
    known = {name: kinds for name, kinds in COMMANDS.items() if f"{name} ".startswith(f"{command} ".lstrip())}
    if not known:
        raise unknown_name("command with settings", command, COMMANDS)
    if (files or params) and len(known) > 1:
        raise ResidualError(f"Of which command? Values are those of one of {', '.join(known)}.")
    if methods and command not in ("run", "train"):
        raise ResidualError("Methods narrow the settings of run and of train: name one of the two.")
    for method in methods:
        if method not in METHODS:
            raise unknown_name("method", method, METHODS)
    kinds = list(dict.fromkeys(kind for its in known.values() for kind in its))
    if len(known) > 1:
        return _with_word([row for kind in kinds for row in listed(kind)], word)
    (name,) = known
    bound = Bound(name, files, params)
    hidden = bound.idle(methods)
    bound.check_used(hidden)
    rows = []
    for kind in kinds:
        values, places = dict(bound.values[kind]), {}
        for each, value in _recipe_of(bound, kind).items():
            if each not in values:
                values[each], places[each] = value, f"recipe {bound.made(kinds[0]).recipe}"
        places |= {each: bound.places[f"{called(kind)}.{each}"] for each in bound.values[kind]}
        rows += listed(kind, values, places)
    return _with_word([row for row in rows if not (methods and row.name in hidden)], word)


def _with_word(rows: list[Listed], word: str) -> list[Listed]:
    found = [row for row in rows if word.lower() in f"{row.name} {row.about}".lower()]
    if not found:
        raise ResidualError(f"No setting has {word!r} in its name or its meaning.")
    return found


def _recipe_of(bound: Bound, kind: type) -> Mapping[str, Any]:
    """What the recipe that a command fits by sets of a kind."""
    options = next(iter(bound.values))
    if not issubclass(options, RunOptions):
        return {}
    recipe = RECIPES[bound.made(options).recipe]
    return {AdapterSettings: recipe.adapter, FitSettings: recipe.fit}.get(kind, {})


def _seeds(options: RunOptions, bound: Bound) -> list[int]:
    """The seeds that a command is to fit with."""
    for kind in bound.values:
        if kind in (FitSettings, TrainSettings) and "seed" in bound.values[kind]:
            own = called(type(options))
            raise ResidualError(f"{called(kind)}.seed follows {own}.seed: set that instead.")
    return [options.seed + k for k in range(options.seeds)]
