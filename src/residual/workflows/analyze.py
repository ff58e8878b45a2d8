"""One store looked at: what `residual analyze` shows."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from residual.errors import ResidualError, printable
from residual.files import shareable
from residual.progress import Progress
from residual.report import records
from residual.spectral.bases import SpectralBases
from residual.spectral.fit import fit_bases
from residual.spectral.geometry import GeometrySettings, unit_geometry
from residual.spectral.published import published_similarity
from residual.spectral.similarity import SimilaritySettings, compare_bases
from residual.store.disk import ResidualStore
from residual.workflows.encode import split_kinds


@dataclass(frozen=True)
class Analysis:
    """What was found: `shapes` by `unit_geometry`, `similar` by `compare_bases`, `result` for JSON."""

    title: str
    title_similar: str
    shapes: pd.DataFrame
    similar: pd.DataFrame | None
    result: dict[str, Any]


def analyze_store(
    address: str,
    against: str | None,
    kinds: str | None,
    geometry: GeometrySettings,
    similarity: SimilaritySettings,
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Measure the units of a store, and compare their bases with those of another.

    Args:
        address: of the store.
        against: another store of the same encoder, or a file by `SpectralBases.save`; None compares nothing.
        kinds: of unit, with commas between; None for all that are kept.
        geometry, similarity: settings.
        device: where to compute.
        progress: called with the number of units done and their total.

    Raises:
        ResidualError: as `ResidualStore.open`, `unit_geometry` and `compare_bases`; or anchors that published
            measures need, and no samples to take them of.
    """
    store = ResidualStore.open(address)
    chosen = store.kinds if kinds is None else split_kinds(kinds)
    start = time.perf_counter()
    similar, pooling = None, store.pooling  # before what takes longer, as it may be refused
    if against is not None:
        found, pooling = _similar(store, chosen, against, similarity, device, progress)
        similar = store.units.merge(found, on="unit")
    compared = time.perf_counter()
    shapes = unit_geometry(store, chosen, geometry, device=device, progress=progress)
    done = time.perf_counter()
    result = {
        "store": shareable(address, path=True),
        "encoder": store.encoder_name,
        "dataset": store.dataset,
        "pooling": store.pooling,
        "samples": len(store),
        "settings": asdict(geometry),
        "units": records(shapes),
        "seconds": {"compare": round(compared - start, 3), "measure": round(done - compared, 3)},
    }
    title = printable(f"{result['encoder']} on {result['dataset']}, {len(store):,} samples")
    title_similar = ""
    if similar is not None and against is not None:
        bases = shareable(against, path=True)
        compared_with = {"bases": bases, "pooling": pooling, "settings": asdict(similarity)}
        result["against"] = compared_with | {"units": records(similar)}
        title_similar = printable(f"{result['encoder']}: {result['dataset']} and {bases}")
        if pooling != store.pooling:  # a study of tokens, which the title has to tell
            title_similar += f" (pooling {store.pooling!r} and {pooling!r})"
    return Analysis(title, title_similar, shapes, similar, result)


def _similar(
    store: ResidualStore,
    kinds: tuple[str, ...],
    against: str,
    settings: SimilaritySettings,
    device: str | None,
    progress: Progress | None,
) -> tuple[pd.DataFrame, str]:
    """One row for each unit that has a basis in both, and the pooling of the other."""
    kept = against.endswith(".safetensors")
    if kept and settings.published_anchors:
        raise ResidualError(
            "published_anchors sees units from samples, and a file of bases holds no samples.",
            "Compare with the store that it was made of, or leave published_anchors at 0.",
        )
    other = None if kept else ResidualStore.open(against)
    how: dict[str, Any] = {"device": device, "progress": progress}
    theirs = SpectralBases.load(against) if other is None else fit_bases(other, kinds, **how)
    pooling = store.pooling if theirs.origin is None else theirs.origin.pooling
    similar = compare_bases(fit_bases(store, kinds, **how), theirs, settings.explained)
    if other is None or not settings.published_anchors:
        return similar, pooling
    units, anchors = similar["unit"].tolist(), settings.published_anchors
    published = published_similarity(store, other, units, anchors, settings.seed, **how)
    return similar.merge(published, on="unit"), pooling
