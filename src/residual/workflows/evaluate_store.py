"""A store with units switched off or weighted: its accuracy beside that of the encoder as it is.

The same sums as the explorer's, so the same number; coordinates answer, and no picture is read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from residual.errors import ResidualError
from residual.files import local_path, shareable
from residual.products import STORE
from residual.workflows.evaluate import counted
from residual.workflows.exploration.parts import Parts, Sources
from residual.workflows.exploration.saving import read_mask
from residual.workflows.exploration.states import State
from residual.workflows.exploration.turning import Turning
from residual.workflows.task import versions


def is_store(place: str) -> bool:
    """Whether a place is one of a store: a folder that holds one, or an address."""
    return "://" in place or STORE.found(local_path(place))


def evaluate_store(
    address: str,
    *,
    off: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    lambdas: Mapping[str, Mapping[str, float]] | None = None,
    mode: str = "zero",
    mask: str | os.PathLike[str] | None = None,
    adapter: str | None = None,
    encoder: str | None = None,
    dataset: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Accuracy with some units turned: a summary, as `evaluate_encoder` has it, of "zero_shot" and "edited".

    Args:
        address: of the store.
        off: units that are switched off.
        weights: of whole units.
        lambdas: of single components of units; of the components of the store's own samples.
        mode: "zero", or "mean" to put what is taken off at its mean.
        mask: a file that the explorer saved, in place of those.
        adapter: a folder with one, which is applied before.
        encoder, dataset: see `encoder_of`, `dataset_of`.
        device: where to compute.

    Raises:
        ResidualError: an unknown unit, an adapter or a mask of another encoder; or as `Parts`.
    """
    parts = Parts(Sources([address], [adapter] if adapter else (), encoder, dataset, device=device))
    held: dict[str, Any] = {"off": list(off), "weights": dict(weights or {}), "lambdas": dict(lambdas or {})}
    held["mode"] = mode
    if mask is not None:
        if any(held[name] for name in ("off", "weights", "lambdas")):
            raise ResidualError("A mask says what is turned: give it, or units, but not both.")
        held = read_mask(mask, parts.store)
        if held.get("adapter") is not None and adapter is None:
            raise ResidualError(f"{mask} is on top of the adapter {held['adapter']!r:.60}: give that, too.")
    held["adapter"] = next(iter(parts.adapters), None)
    state, turning = State.of_json(parts.units, held), Turning(parts)
    labels = parts.labels.numpy()
    hits = {"zero_shot": turning.plain == labels}
    if state != State():
        hits["edited"] = turning.answers(state).numpy() == labels
    noted, _, split = parts.store.dataset.rpartition("/")
    return {
        "store": shareable(address, path=True),
        "encoder": parts.store.encoder_name,
        "adapter": adapter and shareable(adapter, path=Path(adapter).is_dir()),
        "method": [*hits][-1],
        "dataset": noted,
        "split": split,
        **counted(hits, labels, parts.store.class_names),
        "edits": state.to_json(parts.units),
        "notes": [*parts.origin.notes, *filter(None, [parts.directions().note])],
        "skipped": list(parts.store.skipped),
        "versions": versions(),
    }
