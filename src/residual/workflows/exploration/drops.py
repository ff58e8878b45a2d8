"""A picture that someone drops on the page: what it is taken for, by which units, and its neighbours.

It is decoded within the bounds that all pictures have, goes through the encoder once, and is forgotten after
some others. Nothing of it is written anywhere.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from residual.data.decode import decode_image
from residual.errors import ResidualError, UnreadableImageError
from residual.report.pages import picture_uri
from residual.tracing.decompose import decompose
from residual.workflows.exploration.parts import Parts
from residual.workflows.exploration.pictures import SIDES, Pictures

MOST_BYTES = 2**25  # of a picture: 32 MB
MARK = "drop:"
_KEPT = 8
_CLASSES, _UNITS, _NEAR = 5, 10, 8


@dataclass(frozen=True)
class Dropped:
    """A picture that was dropped, made small; as pixels for its encoder; and what was told of it."""

    image: Image.Image
    pixels: Float[Tensor, "1 3 h w"]
    answer: dict[str, Any]


class Drops:
    """Pictures that were dropped, the last few by a digest of their bytes.

    Args:
        parts: of the exploration.
        pictures: of its store.
    """

    def __init__(self, parts: Parts, pictures: Pictures):
        self.parts, self.pictures = parts, pictures
        self._kept: OrderedDict[str, Dropped] = OrderedDict()
        self._lock, self._working = Lock(), Lock()

    def drop(self, content: bytes) -> dict[str, Any]:
        """See api/drop.

        `units` are the ten with the largest part of what the winning logit has before the runner-up's,
        `scale ⟨c_u, w_1 − w_2⟩ / ‖o‖` with `c_u` a unit's contribution, `o` their sum and `w` the rows of the
        two classes: over all units it sums to the difference of the two logits.

        Raises:
            ResidualError: no picture that can be decoded, or too large a one; or as `encoder_of`.
        """
        key = MARK + hashlib.sha256(content).hexdigest()[:24]
        with self._working:  # one large picture in memory at a time
            if (kept := self._found(key)) is None:
                kept = self._made(key, content)
                with self._lock:
                    self._kept[key] = kept
                    while len(self._kept) > _KEPT:
                        self._kept.popitem(last=False)
        return kept.answer

    def again(self, key: str) -> dict[str, Any]:
        """The same answer for a picture that was dropped, as `dropped` finds it."""
        return self.dropped(key).answer

    def dropped(self, key: str) -> Dropped:
        """A picture that was dropped, by its name "drop:…".

        Raises:
            ResidualError: it is none of the last few.
        """
        if (kept := self._found(key)) is None:
            raise ResidualError(f"That picture isn't kept any more (the last {_KEPT} are): drop it again.")
        return kept

    def _found(self, key: str) -> Dropped | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _made(self, key: str, content: bytes) -> Dropped:
        image = _decoded(content)
        encoder, classifier = self.parts.encoder, self.parts.classifier
        pixels = encoder.pixels([image])
        with self.parts.running, torch.no_grad():
            split = decompose(encoder, pixels, self.parts.store.pooling)
        output = split.output[:, 0].float().cpu()
        probabilities = classifier.logits(output)[0].softmax(0)
        if not probabilities.isfinite().all():
            raise ResidualError(f"{self.parts.store.encoder_name} gives no finite output for this picture.")
        order = probabilities.argsort(descending=True, stable=True)[: max(2, _CLASSES)].tolist()
        parts = split.logits(classifier)[0, 0].float().cpu()  # (u, c)
        first, second = order[0], order[1] if len(order) > 1 else None
        part = parts[:, first] if second is None else parts[:, first] - parts[:, second]
        best = part.argsort(descending=True, stable=True)[:_UNITS].tolist()
        names = self.parts.store.class_names
        near, note = self._near(output[0])
        small = smaller(image)
        answer = {
            "picture": key,
            "src": picture_uri(small, SIDES[-1]),
            "prediction": [
                {"class": place, "probability": probabilities[place].item()} for place in order[:_CLASSES]
            ],
            "units": [{"unit": self.parts.units.name(unit), "value": part[unit].item()} for unit in best],
            "what": _what(names[first], None if second is None else names[second], part.sum().item()),
            "near": near,
            "note": note,
        }
        return Dropped(small, pixels, answer)

    def _near(self, output: Float[Tensor, " d"]) -> tuple[list[dict[str, Any]], str | None]:
        """The nearest pictures of the store; or none, and why."""
        try:
            cosines = self.pictures.near_output(output)
        except ResidualError as error:  # a store of some kinds of unit doesn't hold the output
            return [], f"Its nearest pictures can't be told: {error}"
        return self.pictures.ends(cosines, min(_NEAR, len(cosines)), largest=True), None


def smaller(image: Image.Image) -> Image.Image:
    """A copy that is as large as pictures are shown at most."""
    small = image.copy()
    small.thumbnail((SIDES[-1], SIDES[-1]))
    return small


def _what(first: str, second: str | None, total: float) -> str:
    if second is None:
        return f"Each unit's part of the logit of “{first}”; all units together make {total:.2f}."
    return (
        f"Each unit's part of how far the logit of “{first}” is before that of the runner-up “{second}”; all "
        f"units together make {total:.2f}."
    )


def _decoded(content: bytes) -> Image.Image:
    if len(content) > MOST_BYTES:
        raise ResidualError(
            f"A dropped picture may have {MOST_BYTES >> 20} MB, got {len(content) / 2**20:.1f}: save it "
            "smaller."
        )
    try:
        return decode_image(content, "dropped", "dropped on the page")
    except UnreadableImageError as error:
        reason = error.reason.removesuffix("; dropped on the page")
        raise ResidualError(f"What was dropped can't be read as a picture: {reason}.") from error
