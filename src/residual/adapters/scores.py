"""Samples in the space of their scores: all that training an adapter needs, computed once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from residual.adapters.adapter import Adapter, Reweighted
from residual.devices import find_device
from residual.errors import ResidualError
from residual.files import write_errors
from residual.progress import Progress
from residual.store.base import Store
from residual.store.shared import Seen

_ROWS = {"cpu": 1024, "cuda": 4096}  # of a store read at a time
_FREE = 0.7  # of a GPU's free memory, that scores may take


@dataclass(frozen=True)
class Scores:
    """Scores of `n` samples on the `K` kept components of an adapter, and the samples' labels.

    Args:
        scores: `S`, of each sample's centred contributions.
        directions: `Φ`, the components.
        rest: what does not depend on the weights: units left alone, tails.
        labels: class numbers.
        fingerprint: of the encoder.
        ranks: how many of the components are of each unit, in turn; by default all of one.
        seen: what the samples are known by, if anything.

    Raises:
        ResidualError: `ranks` don't sum to the number of components, there isn't a label or a rest a sample,
            or a direction a component, labels aren't whole numbers, or numbers aren't finite.
    """

    scores: Float[Tensor, "n K"]
    directions: Float[Tensor, "K d"]
    rest: Float[Tensor, "n d"]
    labels: Int[Tensor, " _"]
    fingerprint: str
    ranks: tuple[int, ...] = ()
    seen: Seen | None = None

    def __post_init__(self):
        if not self.ranks:
            object.__setattr__(self, "ranks", (self.scores.shape[1],))
        if sum(self.ranks) != self.scores.shape[1]:
            raise ResidualError(
                f"Ranks {self.ranks} are of {sum(self.ranks)} components, the scores of "
                f"{self.scores.shape[1]}."
            )
        if self.labels.shape != self.scores.shape[:1]:
            raise ResidualError(
                f"{len(self.scores)} samples need as many labels in a row; got the shape "
                f"{tuple(self.labels.shape)}."
            )
        shapes = (len(self.scores), self.directions.shape[1]), (self.scores.shape[1], self.rest.shape[1])
        found = (self.rest.shape, self.directions.shape)
        if found != shapes or self.labels.is_floating_point():
            raise ResidualError(
                f"Scores {tuple(self.scores.shape)} go with a rest (n, d), directions (K, d) and whole "
                f"labels; got {', '.join(str(tuple(shape)) for shape in found)} and {self.labels.dtype}."
            )
        if not all(part.sum().isfinite() for part in (self.scores, self.rest, self.directions)):
            raise ResidualError("The scores hold NaN or infinity: so do the samples, or the adapter's bases.")

    def __len__(self) -> int:
        return len(self.scores)

    def output(self, lambdas: Float[Tensor, " K"]) -> Float[Tensor, "n d"]:
        """`(S ⊙ λ) Φ + rest`, for every sample."""
        return torch.addmm(self.rest, self.scores, lambdas[:, None] * self.directions)

    def take(self, rows: Int[np.ndarray, " m"]) -> Scores:
        """Those of some of the samples."""
        at = torch.from_numpy(rows).to(self.scores.device)
        seen = self.seen and self.seen.take(rows)
        parts = self.scores[at], self.rest[at], self.labels[at]
        return replace(self, scores=parts[0], rest=parts[1], labels=parts[2], seen=seen)


def compute_scores(
    adapter: Adapter | Sequence[Adapter],
    store: Store,
    batch_size: int | None = None,
    *,
    device: str | torch.device | None = None,
    file: str | Path | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Scores of all samples of `store` on the components that `adapter` keeps, with the store's labels.

    Equal to what `adapter(store.contributions())` works with.

    Args:
        adapter: one, or several that differ in their rank: then those of the widest, which serve all.
        store: coordinates.
        batch_size: samples at a time, which changes no result; None for what suits the device.
        device: where they are computed, and kept if they fit there; by default the GPU if there is one, else
            the CPU.
        file: scores that don't fit into memory are written here (as `.npy`) and mapped; `fit` reads the rows
            of each batch as it comes to them. The file isn't needed afterwards.
        progress: told of the samples that are done.

    Raises:
        ResidualError: the adapter's bases are of another encoder, centering, width or number of units; or the
            file can't be written.
    """
    widest = adapter if isinstance(adapter, Adapter) else widest_of(adapter)
    check_origin(widest, store)
    where = find_device(device)
    linearization = store.linearization.to(where) if where.type == "cuda" else store.linearization
    score, scores, rests, start = widest.scorer(linearization), None, [], 0
    for batch in store.batches(batch_size or _ROWS.get(where.type, 1024)):
        own, rest = score(batch.to(where))
        if scores is None:
            scores = _room(len(store), own, file)
        scores[start : start + len(own)] = own
        rests.append(rest)
        start += len(own)
        if progress is not None:
            progress("compute scores", start, len(store))
    if scores is None:
        raise ResidualError(f"{store.dataset} has no samples.")
    return Scores(
        scores=scores,
        directions=widest.directions.detach().to(rests[0]),
        rest=torch.cat(rests).to(scores.device),
        labels=torch.tensor(store.labels, dtype=torch.long, device=scores.device),
        fingerprint=store.fingerprint,
        ranks=widest.ranks,
        seen=Seen.of(store),
    )


def scores_of(
    adapter: Adapter | Sequence[Adapter], samples: Store | Scores, device: str | torch.device | None = None
) -> Scores:
    """The scores themselves, or those of a store, see `compute_scores`.

    Raises:
        ResidualError: see `compute_scores`.
    """
    return samples if isinstance(samples, Scores) else compute_scores(adapter, samples, device=device)


def seen_of(samples: Store | Scores) -> Seen | None:
    """What some samples are known by; None where nothing is."""
    return samples.seen if isinstance(samples, Scores) else Seen.of(samples)


def widest_of(adapters: Sequence[Adapter]) -> Adapter:
    """One whose scores serve all of these: with the most components that any of them keeps of each unit.

    Raises:
        ResidualError: there are none, or they differ in more than rank and weights.
    """
    if not adapters:
        raise ResidualError("At least one adapter is needed, got none.")
    first = adapters[0]
    if any(each.choices() != first.choices() for each in adapters):
        raise ResidualError("Fits at once need adapters of one kind, which differ in rank and weights only.")
    widest = first.at_ranks([max(ranks) for ranks in zip(*(each.ranks for each in adapters), strict=True)])
    for each in adapters:
        own, whole = (_scored_on(of, each.ranks) for of in (each, widest))
        if not all(map(torch.equal, own, whole)):
            raise ResidualError("Fits at once need adapters with the same components and means.")
    return widest


def _scored_on(adapter: Adapter, ranks: Sequence[int]) -> list[Tensor]:
    """So many components of each unit, what they are written along, and what is subtracted before."""
    if not isinstance(adapter, Reweighted):
        return [adapter.directions]
    tables = (table.split(list(adapter.ranks)) for table in (adapter.rows, adapter.directions))
    return [adapter.means, *(own[:k] for of in tables for own, k in zip(of, ranks, strict=True))]


def check_origin(adapter: Adapter, store: Store) -> None:
    """Refuse a store that the adapter doesn't belong to.

    Raises:
        ResidualError: it is of another encoder, or of another centering of its norm's mean.
    """
    if adapter.origin is not None:
        adapter.origin.check_store(store)


def _room(n: int, like: Tensor, file: str | Path | None) -> Tensor:
    """An array for the scores of `n` samples: where they are made, in memory, or in a file that is mapped."""
    if file is None:
        fits = not like.is_cuda or n * like[0].nbytes < _FREE * torch.cuda.mem_get_info(like.device)[0]
        return like.new_empty(n, like.shape[1], device=like.device if fits else "cpu")
    kept = like.cpu().numpy().dtype
    with write_errors(file):
        mapped = np.lib.format.open_memmap(file, mode="w+", dtype=kept, shape=(n, like.shape[1]))
        if hasattr(os, "posix_fallocate"):  # a full disk is told now; in a mapped file it ends the process
            with open(file, "r+b") as room:
                os.posix_fallocate(room.fileno(), 0, Path(file).stat().st_size)
    return torch.from_numpy(mapped)
