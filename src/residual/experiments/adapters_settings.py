"""What experiment 4 compares, and how each method is fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from residual.adapters.adapter_settings import INITS, MEANS
from residual.adapters.fit_settings import PRECISIONS, FitSettings, TrainSettings
from residual.adapters.methods import ADAPTERS, FINE_TUNING, METHODS, AdapterSettings
from residual.adapters.recipes import RECIPES, Fitting, fitting
from residual.encoders.names import encoder_name
from residual.errors import ResidualError
from residual.experiments.few_shots import ZERO_SHOT
from residual.report.tables import METHOD_NAMES
from residual.settings import MOST_SEEDS, PAPER, check_settings, setting

_TUNED = {"methods": (FINE_TUNING,)}
PAPERS_BATCH = 128  # how cells have it noted, unless one number is given for all encoders


def _are_sizes(sizes: int | dict | None) -> bool:
    numbers = sizes.values() if isinstance(sizes, dict) else () if sizes is None else (sizes,)
    return all(type(number) is int and number > 0 for number in numbers)


@dataclass(frozen=True)
class AdaptersSettings:
    """What is compared; the defaults are the paper's, where it has any.

    Args:
        methods: "zero_shot", "linear", "spectral", "coarse", "residual_star", "residual", "fine_tuning"; and
            "linear_released", "spectral_released", "coarse_released", "residual_released", as the published
            code has them.
        seeds: fits of each, which accuracies are means of.
        shots: numbers of pictures of each class that methods but fine-tuning are fitted on besides, see
            `few_shot_rows`; every seed draws its own.
        epochs: of all methods, at most.
        patience: epochs without a better validation accuracy before any method stops.
        batch_size: of all methods but fine-tuning.
        tuning_rate: the learning rate of fine-tuning.
        tuning_precision: of fine-tuning, see `TrainSettings`.
        tuning_batch_size: of fine-tuning: None for the paper's, 128 and for BLIP 32; a number for all
            encoders; or numbers by their names, the paper's for the others.
        tuning_micro_batch: `micro_batch` of fine-tuning, see `TrainSettings`; results don't depend on it.
        tuning_seeds, tuning_epochs: of fine-tuning, where other than those above; 0 for those.
        init: of λ, see `AdapterSettings`.
        mean: of the re-weighted units: "drop", as in the paper, or "keep".
        recipe: of all methods but fine-tuning, see `fitting`; what `init` and `mean` have that isn't the
            paper's wins over it.

    Raises:
        ResidualError: an unknown method, recipe or choice, or a number below 1.
    """

    methods: tuple[str, ...] = setting(
        (ZERO_SHOT, *(name for name, each in METHODS.items() if not each.released)),
        choices=tuple(METHOD_NAMES),
        source=PAPER,
    )
    seeds: int = setting(5, least=1, most=MOST_SEEDS)
    shots: tuple[int, ...] = setting((), least=1)
    epochs: int = setting(30, least=1, source=PAPER)
    patience: int = setting(5, least=1, source=PAPER)
    batch_size: int = setting(64, least=1, source=PAPER)
    tuning_rate: float | int = setting(1e-5, above=0, source=PAPER, only=_TUNED)
    tuning_batch_size: int | dict | None = setting(
        None,
        holds=_are_sizes,
        takes="a whole number, at least 1, such numbers by encoders' names, as {'clip_b': 64}, or None",
        source=PAPER,
        only=_TUNED,
    )
    tuning_micro_batch: int | None = setting(None, least=1, only=_TUNED)
    tuning_precision: str = setting("32-true", choices=PRECISIONS, only=_TUNED)
    tuning_seeds: int = setting(0, least=0, most=MOST_SEEDS, only=_TUNED)
    tuning_epochs: int = setting(0, least=0, only=_TUNED)
    init: str = setting("randn", choices=INITS, source=PAPER)
    mean: str = setting("drop", choices=MEANS, source=PAPER)
    recipe: str = setting("paper", choices=tuple(RECIPES), source=PAPER)

    def __post_init__(self):
        check_settings(self)
        if not self.methods:
            raise ResidualError("At least one method is needed, got none.")
        for encoder in self.tuning_batch_size if isinstance(self.tuning_batch_size, dict) else ():
            encoder_name(encoder)

    def fitting(self, method: str, sampled: bool) -> Fitting:
        """How a method is made and fitted. Of a sample of a dataset, classes may be missing."""
        own = {"mean": self.mean, "init": self.init if self.init in ADAPTERS[method].inits else "ones"}
        chosen = {name: value for name, value in own.items() if value != getattr(AdapterSettings, name)}
        fit = {"batch_size": self.batch_size, **self._shared(0, sampled)}
        return fitting(method, self.recipe, range(self.seeds), chosen, fit)

    def fits(self, sampled: bool) -> list[FitSettings]:
        """Of each seed. Of a sample of a dataset, classes may be missing."""
        return [
            FitSettings(batch_size=self.batch_size, **self._shared(seed, sampled))
            for seed in range(self.seeds)
        ]

    def tunings(self, sampled: bool, encoder: str = "") -> list[TrainSettings]:
        """The same for fine-tuning an encoder."""
        sizes = self.tuning_batch_size
        fits = [
            TrainSettings(
                learning_rate=self.tuning_rate,
                batch_size=sizes.get(encoder) if isinstance(sizes, dict) else sizes,
                micro_batch=self.tuning_micro_batch,
                precision=self.tuning_precision,
                **self._shared(seed, sampled),
            )
            for seed in range(self.tuning_seeds or self.seeds)
        ]
        return [replace(each, epochs=self.tuning_epochs or each.epochs) for each in fits]

    def _shared(self, seed: int, sampled: bool) -> dict[str, Any]:
        missing = "ignore" if sampled else "raise"
        return {"epochs": self.epochs, "patience": self.patience, "seed": seed, "missing": missing}
