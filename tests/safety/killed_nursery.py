"""Processes that write what is kept, for `kills.Nursery`: each kind of work, and where it is to be killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("", "adapters", "safety")]

import fine_tuning_nursery  # noqa: E402
import torch  # noqa: E402
import zarr.codecs  # noqa: E402 (so that the processes needn't)
import zarr.storage  # noqa: E402, F401
from kills import die_at, serve  # noqa: E402
from tiny import tiny_encoder  # noqa: E402

import residual.store.layout  # noqa: E402
from residual.adapters import AdaptedEncoder, LinearMap  # noqa: E402
from residual.experiments import EXPERIMENTS, Plan  # noqa: E402
from residual.experiments.running import run_experiment  # noqa: E402
from residual.experiments.similarity import SimilaritySettings  # noqa: E402
from residual.spectral import fit  # noqa: E402
from residual.text import ZeroShotClassifier  # noqa: E402
from residual.workflows.encode import encode_split  # noqa: E402

ENCODER = tiny_encoder(dtype=torch.float32)
CALLS = (
    "fsync",
    "replace",
    "rename",
    "mkdir",
    "unlink",
    "open",
    "rmdir",
)  # by which a file comes to its place


def work(place: str, kind: str, model: str = "", kill_at: int = 0, version: int = 0) -> None:
    """Do one kind of work; die before the call number `kill_at` by which files come and go."""
    if kill_at and kind != "fine-tuning":
        die_at(kill_at, *((os, name) for name in CALLS))
    {"bases": bases, "fine-tuning": tune, "adapter": save, "grid": grid}[kind](place, model, kill_at, version)


def bases(place: str, model: str, *_: int) -> None:
    """`--bases-only` with a checkpoint behind every batch."""
    fit.SECONDS_BETWEEN = -1.0
    residual.store.layout.MOST_ROWS = 8
    how = {"encoder": f"hf:{model}", "dataset": f"folder:{model}/a", "device": "cpu", "batch_size": 4}
    encode_split(f"{place}/bases.safetensors", bases_only=True, kinds="head,mlp", on_error="skip", **how)


def tune(place: str, model: str, kill_at: int, version: int) -> None:
    """Checkpoints behind every batch; killed before a step, or before a file comes or goes."""
    call = ("step", "replace", "fsync", "unlink")[version % 4]
    fine_tuning_nursery.tune(place, call=call if kill_at else "", kill_at=kill_at, in_memory=False)


def save(place: str, model: str, kill_at: int, version: int) -> None:
    """An adapter over the one that was there."""
    adapted(version).save_pretrained(place, overwrite=True)


def adapted(version: int) -> AdaptedEncoder:
    generator = torch.Generator().manual_seed(version)
    weights = torch.randn(12, 12, generator=generator)
    names = [f"class {number} of {version}" for number in range(3)]
    classifier = ZeroShotClassifier(torch.randn(3, 12, generator=generator), names)
    return AdaptedEncoder(ENCODER, LinearMap(12, weights), classifier)


def grid(place: str, model: str, *_: int) -> None:
    """Experiment 2 on three small datasets."""
    residual.store.layout.MOST_ROWS = 8
    experiment = EXPERIMENTS["2"](SimilaritySettings(anchors=8))
    experiment.figures = lambda tables: ()
    datasets = tuple(f"folder:{model}/{name}" for name in "bc")
    plan = Plan(
        Path(place),
        (f"hf:{model}",),
        datasets,
        f"folder:{model}/a",
        batch_size=4,
        on_error="skip",
        most_skipped_share=0.1,
        device="cpu",
    )
    run_experiment(experiment, plan, lambda *_: None)


if __name__ == "__main__":
    serve(work)
