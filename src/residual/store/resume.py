"""Whether what is gone on with is of the same images as before, and which of those left out can be read now.

Ids and labels are compared whole (`check_identity`); images are looked at again, some of them or all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from residual.data import ImageDataset, PixelDataset
from residual.encoders.encoder import Encoder
from residual.errors import OtherResultError, ResidualError, UnreadableImageError
from residual.hashing import row_sums
from residual.store.encoding import Encoding
from residual.store.positions import Positions
from residual.store.reading import read_pixels

SAMPLE = 64
CHECKS = ("some", "all")
_AT_ONCE = 64  # pixels that are moved to the encoder's device


def spread(positions: Sequence[int] | np.ndarray | Positions, count: int = SAMPLE) -> np.ndarray:
    """`count` of some positions, evenly over them and the same every time; all where there are no more."""
    last = len(positions) - 1
    places = np.unique(np.linspace(0, last, min(count, last + 1)).round().astype(np.int64))
    if isinstance(positions, np.ndarray | Positions):
        return positions[places]
    return np.array([positions[place] for place in places.tolist()], np.int64)


def check_images(
    encoder: Encoder, dataset: ImageDataset, digests: Mapping[int, int], on_error: str, where: str
) -> None:
    """Refuse to go on with what other images were encoded to.

    Args:
        encoder: tells in which precision pixels are encoded.
        dataset: at hand.
        digests: what is known of images of that time, by position; 0 says nothing.
        on_error: "raise", or "skip" one that can't be read now.
        where: names what is gone on with.

    Raises:
        OtherResultError: an image is another; names the sample.
        UnreadableImageError: with `on_error="raise"`, one can't be read any more.
    """
    known = {position: digest for position, digest in digests.items() if digest}
    for position, digest in _digests(encoder, dataset, list(known), on_error == "skip").items():
        if digest != known[position]:
            raise OtherResultError(
                f"{where!r} holds something else: {dataset.sample_ids[position]!r} is another image than the "
                "one that was encoded there."
            )


def readable_again(
    encoder: Encoder, dataset: ImageDataset, positions: Sequence[int], settings: Encoding
) -> list[int]:
    """Those of some samples that couldn't be read which can be read now.

    Raises:
        UnreadableImageError: with `settings.on_error="raise"`, one still can't.
    """
    each = [range(position, position + 1) for position in positions]
    workers = settings.workers if len(each) > SAMPLE else 0  # which take seconds to begin
    reading = read_pixels(encoder, dataset, each, workers, settings.on_error == "skip") if each else ()
    return [position for read in reading for position in read.positions]


def check_choice(check: str) -> None:
    """Refuse what isn't in `CHECKS`.

    Raises:
        ResidualError: it isn't.
    """
    if check not in CHECKS:
        raise ResidualError(f"check is {' or '.join(map(repr, CHECKS))}, got {check!r}.")


def _digests(encoder: Encoder, dataset: ImageDataset, positions: list[int], skip: bool) -> dict[int, int]:
    found = {}
    if isinstance(dataset, PixelDataset):
        for start in range(0, len(positions), _AT_ONCE):
            some = positions[start : start + _AT_ONCE]
            pixels = dataset.pixels[some].to(encoder.device, encoder.dtype)
            found |= dict(zip(some, row_sums(pixels).cpu().numpy().view(np.uint64).tolist(), strict=True))
        return found
    for position in positions:
        try:
            found[position] = dataset.digest(position)
        except UnreadableImageError:
            if not skip:
                raise
    return found


def check_weights(encoder: Encoder, before: str) -> None:
    """Refuse weights that changed while images went through: some would be of another model than others.

    Args:
        encoder: as it is now.
        before: its `rounded_fingerprint` when it began, which costs no more than to look at each weight.

    Raises:
        ResidualError: it has another one.
    """
    weights_checked(encoder, before)()


def weights_checked(encoder: Encoder, before: str) -> Callable[[], None]:
    """`check_weights` of the weights as they are now, which refuses when it is called."""
    now = encoder.rounded_fingerprint_begun()

    def check() -> None:
        if now() != before:
            raise ResidualError(
                f"The weights of {encoder.name} changed while it encoded: what it gave is of two models.",
                "Train a copy, copy.deepcopy(encoder.module), or wait until it is trained, and encode again.",
            )

    return check
