"""What files and `--param` can set of each command: its own options, and the settings of what it does."""

from __future__ import annotations

from dataclasses import dataclass

from residual.adapters.fit_settings import FitSettings, TrainSettings
from residual.adapters.methods import METHODS, AdapterSettings
from residual.adapters.recipes import RECIPES
from residual.data import SPLITS, dataset_names
from residual.experiments import EXPERIMENTS
from residual.heads.comparison import ScoreboardSettings
from residual.heads.descriptions import DescribeSettings
from residual.settings import MOST_SEEDS, called, check_settings, setting
from residual.spectral.geometry import GeometrySettings
from residual.spectral.similarity import SimilaritySettings

SEEDS = 5  # fitted at once, they cost little more than one
_ON_ERROR = ("raise", "skip")
_DTYPES = ("float16", "float32")
_DECODE = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class RunOptions:
    """What files and `--param` can set of `residual run`, as `run.dataset=letters`.

    Args:
        dataset: a name as `residual datasets` lists them.
        encoder: a name as `residual encoders` lists them.
        bases: where the principal components come from: "mixed", a dataset, or a file of bases.
        recipe: how adapters are fitted.
        hold_out: groups of the dataset, or patterns of sample ids, that are the val part.
        limit: at most so many pictures of each part; 0 for all.
        per_dataset: pictures of each dataset in the mixture.
        seed: of the first fit.
        seeds: so many fits, from `seed` on.
        batch_size: pictures encoded at a time.
        decode: where JPEG files are decoded: cpu, gpu, or auto for the GPU where that can be had.
        on_error: a picture that can't be read: raise, or skip and list.
    """

    dataset: str = "mnist"
    encoder: str = "picto"
    bases: str = "mixed"
    recipe: str = setting("gentle", choices=tuple(RECIPES))
    hold_out: tuple[str, ...] = ()
    limit: int = setting(0, least=0)
    per_dataset: int = setting(200, least=1, only={"bases": ("mixed",)})
    seed: int = setting(0, least=0, below=2**62)
    seeds: int = setting(SEEDS, least=1, most=MOST_SEEDS)
    batch_size: int = setting(64, least=1)
    decode: str = setting("auto", choices=_DECODE)
    on_error: str = setting("raise", choices=_ON_ERROR)

    def __post_init__(self):
        check_settings(self)


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """The same of `residual train`.

    Args:
        method: what is trained.
        seeds: so many fits, from `seed` on; 0 for 5, and for 1 of fine-tuning.
    """

    method: str = setting("residual", choices=tuple(METHODS))
    seeds: int = setting(0, least=0, most=MOST_SEEDS)


@dataclass(frozen=True)
class EncodeOptions:
    """The same of `residual encode`.

    Args:
        dataset: a name as `residual datasets` lists them.
        split: of it.
        encoder: a name as `residual encoders` lists them.
        pooling: which tokens are kept: own, cls, avg, avg:all, token:INDEX, all or patches.
        kinds: of unit, with commas between.
        dtype: that coordinates are kept in.
        batch_size: images at a time.
        workers: processes that read images; -1 for as many as suit the device.
        decode: where JPEG files are decoded: cpu, gpu, or auto for the GPU where that can be had.
        on_error: an image that can't be read: raise, or skip and list.
        limit: only the first so many images; 0 for all.
        stream: fetch images of the hub while they are read, and keep none.
    """

    dataset: str = "mnist"
    split: str = setting("train", choices=SPLITS)
    encoder: str = "picto"
    pooling: str = "own"
    kinds: str = "emb,mlp,head"
    dtype: str = setting("float16", choices=_DTYPES)
    batch_size: int = setting(64, least=1)
    workers: int = setting(-1, least=-1)
    decode: str = setting("auto", choices=_DECODE)
    on_error: str = setting("raise", choices=_ON_ERROR)
    limit: int = setting(0, least=0)
    stream: bool = False

    def __post_init__(self):
        check_settings(self)


@dataclass(frozen=True)
class ExperimentOptions:
    """The same of `residual experiment`: the embedded encoder and its suite.

    Args:
        encoders: names as `residual encoders` lists them.
        datasets: names as `residual datasets` lists them.
        reference: the dataset that the others are held against, and that bases are of.
        split: of all datasets.
        limit: at most so many images of each, chosen at random; 0 for all.
        reference_limit: the same of the reference alone.
        task_limit: the same of every split of the other datasets.
        stream: fetch images of the hub while they are read, and keep none.
        batch_size: images at a time.
        workers: processes that read images; -1 for as many as suit the device.
        decode: where JPEG files are decoded: cpu, gpu, or auto for the GPU where that can be had.
        on_error: an image that can't be read: raise, or skip and list.
        most_skipped: so many images of a split may be left out.
        most_skipped_share: such a part of a split may be left out.
    """

    encoders: list[str] = setting(["picto"])
    datasets: list[str] = setting([*dataset_names()])
    reference: str = "mixed"
    split: str = setting("train", choices=SPLITS)
    limit: int = setting(0, least=0)
    reference_limit: int = setting(0, least=0)
    task_limit: int = setting(0, least=0)
    stream: bool = False
    batch_size: int = setting(64, least=1)
    workers: int = setting(-1, least=-1)
    decode: str = setting("auto", choices=_DECODE)
    on_error: str = setting("skip", choices=_ON_ERROR)
    most_skipped: int = setting(100, least=0, only={"on_error": ("skip",)})
    most_skipped_share: float | int = setting(0.01, least=0, most=1, only={"on_error": ("skip",)})

    def __post_init__(self):
        check_settings(self)


# Of each command, what can be set: its own options first.
COMMANDS: dict[str, tuple[type, ...]] = {
    "run": (RunOptions, AdapterSettings, FitSettings),
    "train": (TrainOptions, AdapterSettings, FitSettings, TrainSettings),
    "encode": (EncodeOptions,),
    "analyze": (GeometrySettings, SimilaritySettings),
    "heads": (ScoreboardSettings,),
    "describe": (DescribeSettings,),
    **{f"experiment {name}": (ExperimentOptions, each.settings_of) for name, each in EXPERIMENTS.items()},
}
KINDS = {called(kind): kind for kinds in COMMANDS.values() for kind in kinds}
