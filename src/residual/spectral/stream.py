"""Fit bases as an encoder makes coordinates, with nothing stored: for all tokens, or for many images."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from residual.data import ImageDataset, Manifest
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.progress import Progress
from residual.spectral.bases import Origin
from residual.spectral.unit_moments import UnitMoments
from residual.store.forward import Encoding, Part, encode_batches
from residual.tracing.linearization import Linearization

SECONDS_BETWEEN = 60.0  # that a kill loses at most


def stream_moments(
    encoder: Encoder,
    dataset: ImageDataset,
    settings: Encoding,
    *,
    part: tuple[int, int] = (1, 1),
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> UnitMoments:
    """Moments of the units of `settings.kinds` over `dataset`; `.compute()` gives their bases.

    Args:
        encoder: from `load_encoder` or `wrap_encoder`.
        dataset: what to encode.
        settings: how; several tokens of an image (`pooling="patches"`) count as so many samples.
        part: `(number, of)`: only that of so many equal parts of the dataset; the parts' moments merge.
        checkpoint: a file in which the state is kept once a minute. If it is there already, the run goes on
            from it.
        progress: called with the number of images done and their total, after every batch.

    Raises:
        UnreadableImageError: with `on_error="raise"`; names the sample.
        ResidualError: the checkpoint is of something else; or see `encode_dataset`.
    """
    samples = Part(*part).share(len(dataset))
    linearization = Linearization.of(encoder, pooling=settings.pooling)
    origin = Origin(
        encoder.name, encoder.fingerprint, encoder.centering, (dataset.full_name,), 0, settings.pooling
    )
    moments = UnitMoments(linearization, settings.kinds, settings.kinds, origin, encoder.device)
    moments.progress = {"split": Manifest.of(dataset).checksum, "part": list(part), "done": 0, "skipped": {}}
    if checkpoint is not None and Path(checkpoint).is_file():
        moments = _gone_on(moments, checkpoint)
    if progress is not None:
        progress("encode", moments.progress["done"], len(samples))
    saved = time.monotonic()
    batches = settings.batches(samples[moments.progress["done"] :])
    wide, here = torch.promote_types(encoder.dtype, torch.float32), str(encoder.device)
    for encoded in encode_batches(encoder, dataset, batches, settings, linearization, wide, here):
        if encoded.coordinates is not None:
            moments.update(encoded.coordinates)
        moments.progress["done"] += len(encoded.read.positions) + len(encoded.read.skipped)
        for position, reason in encoded.read.skipped.items():
            moments.progress["skipped"][dataset.sample_ids[position]] = reason
        if progress is not None:
            progress("encode", moments.progress["done"], len(samples))
        if checkpoint is not None and time.monotonic() - saved > SECONDS_BETWEEN:
            moments.save(checkpoint)
            saved = time.monotonic()
    return moments


def _gone_on(fresh: UnitMoments, checkpoint: str | Path) -> UnitMoments:
    """The state in a checkpoint, if it is one of the same run."""
    kept = UnitMoments.load(checkpoint, fresh.device)
    fresh.check(kept)
    same = [kept.progress.get(name) == fresh.progress[name] for name in ("split", "part")]
    if not all(same) or kept.origin.datasets != fresh.origin.datasets:
        of = ", ".join(kept.origin.datasets)
        raise ResidualError(
            f"{str(checkpoint)!r} is of another run (of {of}, or of another part): choose another place, or "
            "remove it."
        )
    return kept
