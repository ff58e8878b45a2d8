"""What an experiment needs, looked up before any work: encoders, datasets, disk and memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from residual.data.lookup import DatasetFacts, look_up_dataset
from residual.data.splits import SPLITS
from residual.encoders.lookup import EncoderFiles, look_up_encoder
from residual.errors import ResidualError, UnreachableHubError
from residual.experiments.base import Experiment
from residual.experiments.plan import Plan, Work
from residual.experiments.results import shown
from residual.files import shareable
from residual.report.preflight import in_bytes
from residual.repositories import Hub
from residual.store.manifest import MANIFEST
from residual.store.storage import Storage

_BYTES = 2  # of a coordinate that is stored
_HELD = 4  # of one in memory


@dataclass(frozen=True)
class Preflight:
    """What was found.

    Args:
        encoders, datasets: each of the plan's.
        stores: bytes of the coordinates that are still to be stored, where sizes are known.
        memory: bytes, about, that the largest cell takes, where sizes are known.
        place: the folder that stores go to, results with them by default; None where it is an address.
    """

    encoders: tuple[EncoderFiles, ...]
    datasets: tuple[DatasetFacts, ...]
    stores: int
    memory: int
    place: Path | None

    @property
    def errors(self) -> dict[str, ResidualError]:
        """Why the encoders and datasets that can't be had can't, by their names."""
        return {each.name: each.error for each in (*self.encoders, *self.datasets) if each.error}

    @property
    def lacking(self) -> dict[str, ResidualError]:
        """The same without what merely couldn't be looked up, since the hub is out of reach."""
        return {
            name: error for name, error in self.errors.items() if not isinstance(error, UnreachableHubError)
        }

    @property
    def absent(self) -> int:
        """Bytes that have to be fetched of what can be had."""
        return sum(each.absent for each in (*self.encoders, *self.datasets) if not each.error)

    def problems(self) -> list[str]:
        """Everything that is in the way, a sentence each; a hub that is out of reach is one."""
        lines, waiting = [], []
        for name, error in self.errors.items():
            if isinstance(error, UnreachableHubError):
                waiting.append((shareable(name), error))
            else:
                lines.append(f"{shown(name)}: {error.message} {error.hint}".rstrip())
        if waiting:
            names = ", ".join(name for name, _ in waiting)
            lines.insert(0, f"{waiting[0][1].message} It holds what is needed of {names}.")
        return lines + list(self._shortages())

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON; names are without paths of this machine."""
        return {
            "encoders": [_facts_of(each) for each in self.encoders],
            "datasets": [_facts_of(each) for each in self.datasets],
            "bytes": {"fetched": self.absent, "stores": self.stores, "memory": self.memory},
            "problems": self.problems(),
        }

    def _shortages(self) -> Iterator[str]:
        for what, needed, free in (
            ("disk for results and stores", self.stores, _free_disk(self.place) if self.place else None),
            ("disk for what is fetched", self.absent, _free_disk(_cache()) if self.absent else None),
            ("memory", self.memory, _memory()),
        ):
            if free is not None and needed > free:
                yield f"About {in_bytes(needed)} of {what} are needed, and there are {in_bytes(free)}."


def look_up(experiment: Experiment, plan: Plan) -> Preflight:
    """Look up all that an experiment needs, without loading or fetching it.

    Raises:
        ResidualError: a name of a form that isn't known.
    """
    hub, parts = Hub(), needed_parts(experiment, plan)
    encoders = tuple(look_up_encoder(name, hub) for name in plan.encoders)
    datasets = tuple(look_up_dataset(name, splits, hub) for name, splits in parts.items())
    if plan.stream:  # pictures are fetched while they are read, and none is kept
        datasets = tuple(replace(each, absent=0) for each in datasets)
    stores, memory = 0, 0
    for encoder in encoders:
        work = Work(plan, encoder.name, lambda *_: None)
        for facts in datasets:
            for split in parts[facts.name]:
                samples = facts.sizes.get(split, 0)
                limit = plan.limit_of(facts.name)
                samples = min(samples, limit) if limit else samples
                layer = samples * 2 * (encoder.width or 0)  # numbers of its heads and of its MLP
                if not _is_there(work.place(facts.name, split=split)):
                    stores += _BYTES * layer * (encoder.layers or 0)
                layers = experiment.layers_held(encoder.layers or 0)
                memory = max(memory, (encoder.size or 0) + _HELD * layer * layers)
    place = Storage(plan.place_of_stores).local
    return Preflight(encoders, datasets, stores, memory, place)


def _is_there(store: str | Path) -> bool:
    """Whether a store is begun."""
    storage = Storage(store)
    return storage.local.exists() if storage.local else storage.size(MANIFEST) is not None


def needed_parts(experiment: Experiment, plan: Plan) -> dict[str, tuple[str, ...]]:
    """The splits of every dataset that an experiment goes over."""
    parts: dict[str, set[str]] = {}
    for cell in experiment.cells(plan):
        for name, split in experiment.depends_on(plan, cell):
            parts.setdefault(name, set()).add(split)
    return {name: tuple(split for split in SPLITS if split in own) for name, own in parts.items()}


def _facts_of(facts: EncoderFiles | DatasetFacts) -> dict[str, Any]:
    told = dict(vars(facts))
    return told | {
        "name": shown(facts.name),
        "source": shareable(facts.source, path=True),
        "error": facts.error and str(facts.error),
    }


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME)


def _free_disk(place: Path) -> int | None:
    """Bytes free where a folder is or will be; None where that can't be told."""
    with suppress(OSError):
        there = next(each for each in (place.absolute(), *place.absolute().parents) if each.exists())
        return shutil.disk_usage(there).free
    return None


def _memory() -> int | None:
    """Bytes of this machine's memory; None where that can't be told."""
    with suppress(AttributeError, OSError, ValueError):  # another system has no such thing
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
