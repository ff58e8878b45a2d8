"""Experiments 1 to 4 on real weights and real photographs, and what separates ResiDual from fine-tuning.

    python experiments/real/prepare.py    # first: makes real/dinov2 and real/cifar10
    python experiments/real/run.py        # second: results, tables and figures in real/results

On one H200 it takes about a quarter of an hour. Stopped by anything and called again, it goes on. Each
experiment is that of `residual experiment`, with the settings beside this script; all that is found is in
real/results/real.json.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import figures
import limits
import prepare
import torch

from residual.cli.console import stages
from residual.cli.settings import read_experiment_settings
from residual.data import SPLITS
from residual.devices import find_device
from residual.experiments import EXPERIMENTS, Plan, run_experiment
from residual.experiments.plan import Work
from residual.experiments.results import shown
from residual.workflows.task import versions

HERE = Path(__file__).parent
SETTINGS = {"1": "dimension.gin", "2": "similarity.gin", "3": "heads.gin", "4": "adapters.gin"}
QUICK, ALL, OWN, AVG = "4 without fine-tuning", "4", "limits", "limits, mean of patches"
STEPS = (QUICK, ALL, OWN, "3", "2", "1", AVG)  # what matters most comes first


def main(words: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, default=Path("real/dinov2"))
    parser.add_argument("--pictures", type=Path, default=Path("real/cifar10"))
    parser.add_argument("--out", type=Path, default=Path("real/results"))
    parser.add_argument("--device", help="by default the GPU if there is one")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--param", action="append", default=[], help="as of `residual experiment`")
    parser.add_argument("--quick", action="store_true", help="few steps on all pictures, to see that it runs")
    given = parser.parse_args(words)
    for folder in (given.weights, given.pictures):
        if not folder.is_dir():
            parser.error(f"there is no folder '{folder}': experiments/real/prepare.py makes it")
    given.out.mkdir(parents=True, exist_ok=True)
    kept = Kept(given.out / "real.json")
    kept.note(about=about(given))
    for step in given.steps:
        with kept.timed(step):
            number = step[0]
            if number in SETTINGS:
                kept.note(**{f"experiment {number}": experiment(number, given, fine_tuning=step != QUICK)})
            else:
                poolings = ("own",) if step == OWN else ("own", "avg")
                kept.note(limits=limits_of(given, poolings))
    for path in figures.draw(kept.found, given.out / "figures"):
        print(path)
    return kept.found


class Kept:
    """What is found, in one file after every step.

    Args:
        file: read if it is there.
    """

    def __init__(self, file: Path):
        self.file = file
        self.found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def note(self, **found: Any) -> None:
        self.found |= found
        self.file.write_text(json.dumps(self.found, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Seconds of a step, all calls together."""
        start = time.perf_counter()
        yield
        seconds = self.found.setdefault("seconds", {})
        seconds[step] = round(seconds.get(step, 0) + time.perf_counter() - start, 1)
        self.note()
        print(f"{step}: {seconds[step]} s", flush=True)


def planned(number: str, given: argparse.Namespace) -> tuple[Plan, Any]:
    """An experiment's plan, on the weights and pictures given, and its settings."""
    kind = EXPERIMENTS[number].settings_of
    params = [each for each in given.param if each.startswith(("experiment.", f"{kind.__name__}."))]
    plan, settings = read_experiment_settings(
        number, [HERE / SETTINGS[number]], params, out=given.out, device=given.device
    )
    pictures = f"folder:{given.pictures}"
    datasets = tuple(pictures if name == plan.reference else name for name in plan.datasets)
    return replace(plan, encoders=(f"hf:{given.weights}",), reference=pictures, datasets=datasets), settings


def experiment(number: str, given: argparse.Namespace, fine_tuning: bool = True) -> dict[str, Any]:
    """Run one; what it tells, without names of folders."""
    plan, settings = planned(number, given)
    if number == "4" and given.quick:
        settings = replace(settings, epochs=2, tuning_epochs=1, seeds=2, tuning_seeds=1)
    if number == "4" and not fine_tuning:
        settings = replace(settings, methods=tuple(m for m in settings.methods if m != "fine_tuning"))
    with stages() as show:
        told = run_experiment(EXPERIMENTS[number](settings), plan, show)
    for cell in told["failed"]:
        print(f"failed: {cell['dataset']}: {cell['reason']}", flush=True)
    (summary,), (details,) = told["summary"].values(), told["details"].values()
    details.pop("seeds", None)  # of every fit: what is kept beside has them
    text = json.dumps({"settings": told["settings"], "summary": summary, "details": details})
    return json.loads(text.replace(shown(plan.reference), "cifar10"))


def limits_of(given: argparse.Namespace, poolings: tuple[str, ...]) -> list[dict[str, Any]]:
    plan, _ = planned("4", given)
    settings = limits.LimitsSettings()
    if given.quick:
        settings = limits.LimitsSettings(seeds=2, ranks=(2, 4), epochs=2, decays=(1e-3, 1e-2), steps=10)
    with stages() as show:
        work = Work(plan, plan.encoders[0], show)
        return limits.study(
            lambda pooling: {split: work.store(plan.reference, pooling, split) for split in SPLITS},
            poolings, given.out / "limits.json", find_device(given.device), settings,
        )  # fmt: skip


def about(given: argparse.Namespace) -> dict[str, Any]:
    """What all of it is of."""
    plan, _ = planned("4", given)
    work = Work(plan, plan.encoders[0], lambda *_: None)
    splits = {split: prepare.split_digest(given.pictures, split) for split in SPLITS}
    pinned = splits == prepare.SPLIT
    if not pinned:
        warnings.warn(
            "These aren't the pinned pictures: numbers won't compare with those of docs/real.md.",
            stacklevel=2,
        )
    device = find_device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "fingerprint": work.encoder.fingerprint,
        "precision": str(next(work.encoder.module.parameters()).dtype).removeprefix("torch."),
        "splits": {split: list(each) for split, each in splits.items()},
        "pinned": pinned,
        "endings": sorted({path.suffix for path in given.pictures.rglob("*.*")}),
        "limit": plan.limit,
        "device": name,
        "versions": versions(),
    }


if __name__ == "__main__":
    main()
