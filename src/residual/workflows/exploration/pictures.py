"""Pictures of a store: each as a small file, and lists of them in an order that someone asks for."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from residual.errors import ResidualError, UnreadableImageError
from residual.report.pages import picture_file
from residual.workflows.exploration.asked import class_of, one_of, position_of, text_of, unit_of, within
from residual.workflows.exploration.bounded import Bounded, once
from residual.workflows.exploration.parts import Parts
from residual.workflows.exploration.texts import Texts

ORDERS = ("store", "text", "near", "component", "wrong")
ENDS = ("largest", "smallest")
SIDES = (64, 96, 160, 256, 384, 512)  # pixels: a few, so that what is asked for is often there
_FILES, _ORDERED = 2**26, 2**26  # bytes that are kept
_PAGE = 200  # pictures that are listed at once
UNREADABLE = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
    b'<rect width="64" height="64" fill="#888" fill-opacity=".25"/>'
    b'<path d="M20 20l24 24m0-24l-24 24" stroke="#888" stroke-width="3"/></svg>'
)
_Order = tuple[Tensor, Tensor | None]  # places of samples, and a value of each


class Pictures:
    """Pictures by their samples' places in the store.

    Args:
        parts: of the exploration.
        texts: directions of those that are typed.
    """

    def __init__(self, parts: Parts, texts: Texts):
        self.parts, self.texts = parts, texts
        self._files: Bounded[bytes] = Bounded(_FILES)
        self._orders: Bounded[_Order] = Bounded(_ORDERED, _bytes)
        self._reading = Lock()

    @once
    def _places(self) -> dict[str, int]:
        """Where the store's samples are in the dataset; none where there is no dataset."""
        images = self.parts.origin.images
        if images is None:
            return {}
        wanted = set(self.parts.store.sample_ids)
        return {sample: place for place, sample in enumerate(images.sample_ids) if sample in wanted}

    def of(self, position: int, value: float | None = None) -> dict[str, Any]:
        """What the page is told of a picture: `src` is None where the dataset has it no more."""
        store = self.parts.store
        sample = store.sample_ids[position]
        told = {
            "position": position,
            "id": sample,
            "class": int(store.labels[position]),
            "src": f"api/picture?position={position}" if sample in self._places else None,
        }
        return told if value is None else told | {"value": value}

    def file(self, position: int, side: int = 160) -> tuple[str, bytes]:
        """Media type and bytes of a picture, its longer side at most so long (one of a few `SIDES`); a cross
        where it can't be read any more.

        Raises:
            ResidualError: there is no such sample, or the dataset isn't here.
        """
        at, wanted = position_of(self.parts, position), within(side, "The side of a picture", 1, 4096)
        size = next((each for each in SIDES if each >= wanted), SIDES[-1])
        kept = self._files.get((at, size), lambda: self._made(at, size))
        media, _, data = kept.partition(b"\n")
        return media.decode(), data

    def _made(self, position: int, side: int) -> bytes:
        try:
            form, data = picture_file(self.image(position), side)
        except UnreadableImageError:
            form, data = "svg+xml", UNREADABLE
        return f"image/{form}\n".encode() + data

    def image(self, position: int) -> Any:
        """The picture itself.

        Raises:
            UnreadableImageError: it can't be read any more.
            ResidualError: the dataset isn't here, or has it no more.
        """
        images, sample = self.parts.origin.images, self.parts.store.sample_ids[position]
        if images is None or sample not in self._places:
            raise ResidualError(self.missing or f"The dataset has no picture {sample!r} any more.")
        with self._reading:  # datasets keep one file open at a time
            return images[self._places[sample]][0]

    @property
    def missing(self) -> str:
        """Why there are no pictures, in a sentence; "" where there are."""
        origin = self.parts.origin
        if origin.images is not None:
            return ""
        return " ".join(origin.notes) or "The dataset of the store isn't here."

    def along(self, unit: int, components: Sequence[int]) -> Float[Tensor, "n k"]:
        """Scores of all samples on some components of a unit, `⟨c − m, φ⟩`.

        Raises:
            ResidualError: the unit has no such component.
        """
        own, linearization = self.parts.bases.select([unit]), self.parts.store.linearization
        count = own.ranks[0]
        if not count or not 0 <= max(components) < count:
            raise ResidualError(
                f"Unit {self.parts.units.name(unit)} has {count} components, 0 to {count - 1}: there is no "
                f"component {max(components)}."
            )
        rows = own.components[0][list(components)].T  # (d, k)
        return self._mapped(
            unit, linearization.matrix(unit) @ rows, (linearization.offset(unit) - own.means[0]) @ rows
        )

    def _mapped(
        self, unit: int, matrix: Float[Tensor, "f k"], offset: Float[Tensor, " k"]
    ) -> Float[Tensor, "n k"]:
        offset, matrix = offset.float(), matrix.float()
        found = torch.cat([torch.addmm(offset, block, matrix) for _, block in self.parts.blocks(unit)])
        if not found.isfinite().all():
            raise ResidualError(
                f"The store holds NaN or infinity in unit {self.parts.units.name(unit)}: encode it again."
            )
        return found

    def ends(self, scores: Float[Tensor, " n"], count: int, largest: bool) -> list[dict[str, Any]]:
        """The pictures with the largest scores, the largest first; or with the smallest."""
        order = scores.argsort(descending=largest, stable=True)[:count].tolist()
        return [self.of(position, scores[position].item()) for position in order]

    def listed(
        self,
        order: str = "store",
        limit: int = 24,
        offset: int = 0,
        *,
        of_class: int | None = None,
        text: str = "",
        unit: str = "",
        position: int = 0,
        component: int = 0,
        end: str = "largest",
        predicted: int | None = None,
        answers: Int[Tensor, " n"] | None = None,
    ) -> dict[str, Any]:
        """See api/pictures: a page of them. The order is the same each time, and pages don't overlap.

        Args:
            order: one of `ORDERS`.
            limit, offset: of the page.
            of_class: only pictures of this class.
            text: for "text".
            unit: for "text" and "near": through this unit alone; for "component" whose.
            position: for "near": whose neighbours.
            component, end: for "component".
            predicted: for "wrong": those that are taken for this class; the right ones if `of_class` is too.
            answers: for "wrong": the class that each picture is taken for; by default by the plain encoder.

        Raises:
            ResidualError: something that is asked for isn't there.
        """
        one_of(order, "order", ORDERS)
        start, count = within(offset, "offset", 0, 10**9), within(limit, "limit", 1, _PAGE)
        if order == "text":
            places, values, about = self._by_text(text, unit)
        elif order == "near":
            places, values, about = self._near(position_of(self.parts, position), unit)
        elif order == "component":
            places, values, about = self._by_component(unit, component, one_of(end, "end", ENDS))
        elif order == "wrong":
            places, values, about = self._wrong(answers, predicted, of_class)
        else:
            places, values, about = torch.arange(len(self.parts.store)), None, "In the order of the store."
        if of_class is not None:
            own = class_of(self.parts, of_class)
            kept = self.parts.labels[places] == own
            places, values = places[kept], None if values is None else values[kept]
            if order != "wrong":
                about = f"{about[:-1]}; only of class “{self.parts.store.class_names[own]}”."
        shown = slice(start, start + count)
        each = [None] * len(places[shown]) if values is None else values[shown].tolist()
        pictures = [self.of(at, value) for at, value in zip(places[shown].tolist(), each, strict=True)]
        return {"total": len(places), "pictures": pictures, "about": about}

    def _by_text(self, text: str, unit: str) -> tuple[Tensor, Tensor | None, str]:
        text, of = text_of(text), unit_of(self.parts, unit) if unit else None

        def order() -> _Order:
            if of is None:
                return _descending(self.cosines(self.texts.embedding(text)[:, None])[:, 0])
            along = self.texts.direction(text).double()
            mean = self.parts.bases.select([of]).means[0]
            linearization = self.parts.store.linearization
            values = self._mapped(
                of,
                (linearization.matrix(of) @ along)[:, None],
                ((linearization.offset(of) - mean) @ along)[None],
            )
            return _descending(values[:, 0])

        places, values = self._orders.get(("text", text, of), order)
        if of is None:
            return places, values, f"By the cosine of the encoder's output with “{text}”."
        return places, values, f"By how far {self._called(of)} writes along “{text}”, about its mean."

    def _near(self, position: int, unit: str) -> tuple[Tensor, Tensor | None, str]:
        of = unit_of(self.parts, unit) if unit else None
        own = f"picture {position}"
        if of is None:
            about = (
                f"The nearest to {own} by the encoder's output: by cosine, about the mean of all pictures."
            )
        else:
            about = f"The nearest to {own} by what {self._called(of)} writes: by cosine, about its mean."

        def order() -> _Order:
            if of is None:
                cosines = self.near_output(self.outputs([position])[0])
            else:
                cosines = self._near_by(of, position)
            cosines[position] = -torch.inf
            return _descending(cosines, len(cosines) - 1)  # but itself

        return *self._orders.get(("near", position, of), order), about

    def _near_by(self, unit: int, position: int) -> Float[Tensor, " n"]:
        """Cosines of what a unit writes with what it writes of one picture, about its mean; in the fewest
        coordinates that keep angles.
        """
        root, mean = self.parts.store.linearization.root(unit), self.parts.mean(unit)

        def space(features: Tensor) -> Tensor:
            return normalize((features.double() - mean) @ root, dim=1)

        own = space(self.parts.features(unit, [position]))[0]
        return torch.cat([space(block) @ own for _, block in self.parts.blocks(unit)]).float()

    def _by_component(self, unit: str, component: int, end: str) -> tuple[Tensor, Tensor | None, str]:
        of = unit_of(self.parts, unit)
        index = within(component, "The number of a component", 0, 10**6)
        places, values = self._orders.get(
            ("component", of, index), lambda: _descending(self.along(of, [index])[:, 0])
        )
        if end == "smallest":
            places, values = places.flip(0), None if values is None else values.flip(0)
        return places, values, f"The {end} scores on component {index + 1} of {self._called(of)} first."

    def _wrong(
        self, answers: Tensor | None, predicted: int | None, of_class: int | None
    ) -> tuple[Tensor, Tensor | None, str]:
        names = self.parts.store.class_names
        found = self.answers if answers is None else answers.cpu()
        who = "the encoder as it is" if answers is None else "what is set here"
        if predicted is None:
            of = "" if of_class is None else f" of “{names[class_of(self.parts, of_class)]}”"
            return (found != self.parts.labels).nonzero()[:, 0], None, f"Pictures{of} that {who} gets wrong."
        taken = class_of(self.parts, predicted)
        chosen = found == taken
        if of_class is None:
            return chosen.nonzero()[:, 0], None, f"Pictures that {who} takes for “{names[taken]}”."
        own = class_of(self.parts, of_class)
        if own == taken:
            about = f"Pictures of “{names[own]}” that {who} gets right."
        else:
            about = f"Pictures of “{names[own]}” that {who} takes for “{names[taken]}”."
        return chosen.nonzero()[:, 0], None, about

    @once
    def answers(self) -> Int[Tensor, " n"]:
        """The class that the plain encoder takes each picture for."""
        return torch.cat([self.parts.classifier.answers(part).cpu() for part in self._outputs()])

    def outputs(self, positions: Sequence[int]) -> Float[Tensor, "m d"]:
        """The encoder's output for some samples."""
        store = self.parts.store
        everything = store.coordinates_of(list(range(len(self.parts.units))), np.asarray(positions, np.int64))
        return store.linearization.output(everything.to(dtype=torch.float32))

    def _outputs(self) -> Any:
        store = self.parts.store
        return (store.linearization.output(part.to(dtype=torch.float32)) for part in store.batches())

    @once
    def _mean_output(self) -> Float[Tensor, " d"]:
        total = torch.zeros(self.parts.store.linearization.output_dim, dtype=torch.float64)
        for part in self._outputs():
            total += part.double().sum(0)
        return (total / len(self.parts.store)).float()

    def near_output(self, output: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
        """Cosines of all samples' outputs with another, about the mean of all."""
        mean = self._mean_output
        return self.cosines(normalize(output.float() - mean, dim=0)[:, None], mean)[:, 0]

    def cosines(
        self, directions: Float[Tensor, "d m"], about: Float[Tensor, " d"] | None = None
    ) -> Float[Tensor, "n m"]:
        """Of all samples' outputs with unit directions; batch by batch, so that no more is kept."""
        parts = (part if about is None else part - about for part in self._outputs())
        found = torch.cat([normalize(part, dim=1) @ directions for part in parts])
        if not found.isfinite().all():
            raise ResidualError("The store holds NaN or infinity: encode it again.")
        return found

    def _called(self, unit: int) -> str:
        kind, name = self.parts.units.kind(unit), self.parts.units.name(unit)
        return {"head": f"head {name}", "mlp": f"MLP {name[4:]}", "emb": "the embedding"}[kind]


def _descending(values: Float[Tensor, " n"], count: int | None = None) -> _Order:
    """The largest first, all or so many; equal ones in the order of the store."""
    places = values.argsort(descending=True, stable=True)[:count]
    return places, values[places]


def _bytes(order: _Order) -> int:
    return sum(each.nbytes for each in order if each is not None)
