"""All answers of the explorer, as plain values: what its page asks for by path (no HTTP in here)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any

from jaxtyping import Int
from torch import Tensor

from residual.encoders.encoder import Encoder
from residual.encoders.names import encoder_name
from residual.errors import ResidualError
from residual.store.base import Store
from residual.text.dictionary import checked_texts, read_texts
from residual.workflows.exploration import overview, saving, scores
from residual.workflows.exploration.bounded import once, tried
from residual.workflows.exploration.describing import Descriptions
from residual.workflows.exploration.drops import Drops
from residual.workflows.exploration.mapping import PictureMaps
from residual.workflows.exploration.parts import Parts, Sources
from residual.workflows.exploration.pictures import Pictures
from residual.workflows.exploration.states import State
from residual.workflows.exploration.texts import Texts
from residual.workflows.exploration.turned import turned
from residual.workflows.exploration.turning import Turning


class Exploration:
    """One store, or two side by side, with adapters: what it answers is JSON.

    Args:
        sources: what is explored, by the names that a user gives.
        stores, encoder: themselves, where they are open or loaded already.

    Attributes:
        parts: what answers are made of, each made when it is first needed.
        texts: directions of texts that are typed.
        pictures_of_store: one by one and in lists.
        descriptions: of units.
        drops: pictures that someone dropped.
        maps: of both.

    Raises:
        ResidualError: as `Parts`.
    """

    def __init__(
        self, sources: Sources, stores: Sequence[Store] | None = None, encoder: Encoder | None = None
    ):
        self.parts = Parts(sources, stores, encoder)
        self.texts = Texts(self.parts)
        self.pictures_of_store = Pictures(self.parts, self.texts)
        self.descriptions = Descriptions(self.parts, self.pictures_of_store)
        self.drops = Drops(self.parts, self.pictures_of_store)
        self.maps = PictureMaps(self.parts, self.pictures_of_store, self.drops)

    def check(self) -> None:
        """Refuse what can be told to be wrong before anything is computed.

        Raises:
            ResidualError: an adapter, a list of texts or a dataset that was named and isn't there, or an
                encoder's name that is none.
        """
        sources = self.parts.sources
        if sources.adapters:
            _ = self.parts.adapters
        checked_texts(read_texts(sources.dictionary))
        if sources.encoder is not None:
            encoder_name(sources.encoder)
        if sources.dataset is not None:
            _ = self.parts.origin

    def warm(self, then: Callable[[], object] = lambda: None) -> None:
        """Make in the background what the first view needs, and then what is likely to be asked for; what
        fails is told when it is asked for.

        Args:
            then: called when the first view is ready.
        """

        def work() -> None:
            for make in (self.about, self.heads):
                with suppress(Exception):
                    make()
            then()
            with suppress(Exception):
                for score in ("dimension", "norm", "correlation"):
                    self.heads(score)

        Thread(target=work, name="warming", daemon=True).start()

    def about(self) -> dict[str, Any]:
        """What there is: encoder, stores, classes, scores, adapters, and what can be done."""
        return overview.about(self.parts, tried(lambda: self.turning))

    def heads(self, score: str = "accuracy") -> dict[str, Any]:
        """A score of every unit."""
        return scores.heads(self.parts, score)

    def moves(self) -> dict[str, Any]:
        """Which units are others in the second store."""
        return overview.moves(self.parts)

    @once
    def turning(self) -> Turning:
        """What turns units."""
        return Turning(self.parts)

    def turn(self, state: dict[str, Any]) -> dict[str, Any]:
        """What a state of units switched off, weights and λ is worth."""
        pictures = state.get("pictures") or []
        if not isinstance(pictures, list) or not all(type(place) is int for place in pictures):
            raise ResidualError("Pictures are told by their positions, a list of whole numbers.")
        chosen = self.state(state)
        told = turned(self.parts, self.turning, chosen, pictures)
        return {**told, "command": saving.command(self.parts, chosen)}

    def save(self, state: dict[str, Any]) -> saving.Download:
        """What is turned, as a file: a mask, or the folder of an adapter (`as`)."""
        chosen, kind = self.state(state), state.get("as", "mask")
        if kind == "adapter":
            return saving.saved_adapter(self.parts, self.turning, chosen)
        if kind != "mask":
            raise ResidualError(f"What is turned is saved as a mask or an adapter, not as {kind!r:.40}.")
        return saving.saved_mask(self.parts, chosen, self.turn(state))

    def state(self, held: dict[str, Any]) -> State:
        """What is turned, from JSON.

        Raises:
            ResidualError: as `State.of_json`.
        """
        return State.of_json(self.parts.units, held)

    def answers(self, held: dict[str, Any]) -> Int[Tensor, " n"]:
        """The class that each sample is taken for, in a state as JSON."""
        return self.turning.answers(self.state(held))

    def unit(self, unit: str) -> dict[str, Any]:
        """One unit described, with its scores and its place by each among all."""
        return self.descriptions.unit(unit)

    def spectrum(self, unit: str) -> dict[str, Any]:
        """How a unit's variance falls over its components: known long before its texts are."""
        return self.descriptions.spectrum(unit)

    def text(self, text: str) -> dict[str, Any]:
        """How far units and components speak a text."""
        return self.texts.text(text)

    def words(self) -> dict[str, Any]:
        """The text that each unit speaks most; and why none does, where that is so of all."""
        return {**self.texts.words(), "note": scores.unsuited(self.parts) or None}

    def picture(self, position: int, side: int = 160) -> tuple[str, bytes]:
        """A picture of the store as a small file: its media type, and its bytes."""
        return self.pictures_of_store.file(position, side)

    def pictures(
        self,
        state: dict[str, Any] | None = None,
        order: str = "store",
        limit: int = 24,
        offset: int = 0,
        class_: int | None = None,
        text: str = "",
        unit: str = "",
        position: int = 0,
        component: int = 0,
        end: str = "largest",
        as_: int | None = None,
    ) -> dict[str, Any]:
        """Pictures of the store in an order, a page of them; see `Pictures.listed`."""
        return self.pictures_of_store.listed(
            order,
            limit,
            offset,
            of_class=class_,
            text=text,
            unit=unit,
            position=position,
            component=component,
            end=end,
            predicted=as_,
            answers=self.answers(state) if state else None,
        )

    def drop(self, content: bytes = b"", picture: str = "") -> dict[str, Any]:
        """What a dropped picture is taken for, and by which units; or the same again, by the name it got."""
        return self.drops.again(picture) if picture else self.drops.drop(content)

    def map(
        self,
        picture: str,
        class_: int | None = None,
        against: int | None = None,
        text: str = "",
        unit: str = "",
        component: int = 0,
        heads: str = "",
        separate: bool = False,
        adapter: str = "",
    ) -> dict[str, Any]:
        """Where in a picture heads find a class, a text or a component; see `PictureMaps.map`."""
        return self.maps.map(
            picture,
            of_class=class_,
            against=against,
            text=text,
            unit=unit,
            component=component,
            heads=heads,
            separate=separate,
            adapter=adapter,
        )
