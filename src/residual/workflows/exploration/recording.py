"""Answers recorded, so that a page can show them without a server: as many as fit into so many bytes.

What goes in first is what is asked for first: scores of all units, what turns them, the best of them
described, pictures, maps. What is left out is told in sentences.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
import torch

from residual.errors import ResidualError
from residual.files import plain_number
from residual.progress import Progress
from residual.report.pages import data_uri
from residual.workflows.exploration.bounded import tried
from residual.workflows.exploration.scores import values_of
from residual.workflows.exploration.states import State

if TYPE_CHECKING:
    from residual.workflows.exploration.exploration import Exploration

_SIDE = 96  # pixels of a thumbnail
_PAGE = 24  # pictures, as the page asks for them
_MAPPED = 6  # pictures with maps
_SAMPLES = 2000  # that are turned, at most
_LEAST = 30
_OF_TURN = 0.4  # of the bytes, at most
_NO = "An exported page has no encoder behind it: open the store itself in the explorer."


class Recording:
    """What an exported page holds: `about`, `answers` by what is asked, what turns units, and pictures.

    Args:
        exploration: that answers.
        most: bytes, all together.
        progress: told of units that are done.
    """

    def __init__(self, exploration: Exploration, most: int, progress: Progress | None = None):
        self.exploration, self.parts, self.left = exploration, exploration.parts, most
        self.answers: dict[str, Any] = {}
        self.pictures: dict[str, str] = {}
        self.cut: list[str] = []
        self._progress = progress or (lambda *_: None)
        about = exploration.about()
        self.can: dict[str, bool | str] = {
            what: why if what in ("turn", "pictures", "map") else _NO for what, why in about["can"].items()
        }
        self._score([each["key"] for each in about["scores"]])
        self.turn = self._turn()
        self._units()
        self._store()
        self._maps()
        self.about = {**about, "live": False, "can": self.can, "notes": [*about["notes"], *self.cut]}

    def to_json(self) -> str:
        """All of it."""
        held = {
            "about": self.about,
            "answers": self.answers,
            "turn": self.turn,
            "pictures": self.pictures,
        }
        return _json(held)

    def _add(self, path: str, query: dict[str, Any], answer: Any) -> bool:
        """Keep an answer with its pictures, if there is room for both."""
        positions = _positions(answer)
        new = {place: self._thumbnail(place) for place in positions if str(place) not in self.pictures}
        size = len(_json(answer).encode()) + sum(map(len, new.values())) + 16 * len(new)
        if size > self.left:
            return False
        self.left -= size
        self.pictures |= {str(place): uri for place, uri in new.items() if uri}
        self.answers[f"{path}?{urlencode(query)}" if query else path] = _without_sources(answer)
        return True

    def _thumbnail(self, position: int) -> str:
        try:
            media, data = self.exploration.picture(position, _SIDE)
        except ResidualError:  # the dataset isn't here
            return ""
        return data_uri(media, data)

    def _score(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._try("api/heads", {"score": key}, lambda key=key: self.exploration.heads(key))
        self._try("api/words", {}, self.exploration.words)
        if len(self.parts.stores) > 1:
            self._try("api/moves", {}, self.exploration.moves)

    def _try(self, path: str, query: dict[str, Any], make: Callable[[], Any]) -> None:
        """An answer that may not be had."""
        what = " ".join([path.removeprefix("api/"), *query.values()])
        try:
            if not self._add(path, query, make()):
                self.cut.append(f"Not in this page, for its size: {what}.")
        except ResidualError as error:
            self.cut.append(f"Not in this page: {what} ({error.message})")

    def _turn(self) -> dict[str, Any] | None:
        """Parts of each unit in the logits of some samples, see `recorded_turn`."""
        if self.can["turn"] is not True:
            return None
        classes, units = len(self.parts.store.class_names), len(self.parts.kept_units)
        each = 4 / 3 * classes * (units + 4)
        room, count = int(min(_OF_TURN * self.left, self.left) / each), len(self.parts.store)
        samples = min(count, room, _SAMPLES)
        if samples < min(_LEAST, count):
            self.can["turn"] = (
                f"{classes:,} classes and {units} units are more than an exported page holds: open the store "
                "itself in the explorer."
            )
            return None
        positions = np.unique(np.linspace(0, count - 1, samples).round().astype(int)).tolist()
        note = None
        if len(positions) < count:
            note = f"{len(positions):,} of the {count:,} samples, evenly spread"
            self.cut.append(f"In this page accuracies of turned units are of {note}.")
        wide = 2 * each * len(positions) <= _OF_TURN * self.left
        made = recorded_turn(self.exploration, positions, "float16" if wide else "int8", note)
        self.left -= len(_json(made))
        return made

    def _units(self) -> None:
        """Described units, the best by their accuracy alone first."""
        values = tried(lambda: values_of(self.parts, "accuracy"))
        order = self.parts.kept_units
        if not isinstance(values, ResidualError):
            order = sorted(order, key=lambda unit: -(values[unit] or 0))
        done, why = 0, "for its size"
        for number, unit in enumerate(order):
            name = self.parts.units.name(unit)
            try:
                answer = self.exploration.unit(name)
            except ResidualError as error:
                why = error.message
                break
            if not self._add("api/unit", {"unit": name}, answer):
                break
            done = number + 1
            self._progress("record units", done, len(order))
        if done < len(order):
            self.cut.append(
                f"In this page {done} of {len(order)} units are described, the best ones ({why})."
            )

    def _store(self) -> None:
        """Pictures in the order of the store."""
        shown, total = 0, len(self.parts.store)
        for start in range(0, min(total, _SAMPLES), _PAGE):
            query = {"order": "store", "limit": _PAGE, "offset": start}
            if not self._add(
                "api/pictures", query, self.exploration.pictures(order="store", limit=_PAGE, offset=start)
            ):
                break
            shown = min(start + _PAGE, total)
        if shown < total:
            self.cut.append(f"In this page the first {shown:,} of {total:,} pictures are listed.")

    def _maps(self) -> None:
        """Of some pictures, each of another class, where in it their class is."""
        if self.can["map"] is not True:
            return
        self.can["map"] = _NO
        labels = self.parts.labels.tolist()
        firsts = {label: place for place, label in reversed([*enumerate(labels)])}
        for label, place in sorted(firsts.items(), key=lambda each: each[1])[:_MAPPED]:
            query = {"picture": str(place), "class": label}
            try:
                answer = self.exploration.map(picture=str(place), class_=label)
            except ResidualError:
                return
            if not self._add("api/map", query, answer):
                return
            self.can["map"] = True


def recorded_turn(
    exploration: Exploration, positions: Sequence[int], encoding: str = "float16", note: str | None = None
) -> dict[str, Any]:
    """What a page needs to switch units off by itself: `logits = rest + Σ_u w_u part_u`, for some samples.

    Args:
        exploration: of a store with all kinds of unit.
        positions: of the samples.
        encoding: of the parts: "float16", or "int8" with a scale for each unit.
        note: what to say of the samples.

    Parts are rounded, and `rest` is what they leave of the sum: with all units as they are, it is exact.
    """
    parts, turning = exploration.parts, exploration.turning
    base = turning.base(None)
    weights, rows = base.classifier.weights.double().T.cpu(), torch.tensor(list(positions))
    each, scales, means = [], [], []
    left = turning.sums(State())[rows].double()
    for unit in parts.kept_units:
        matrix, offset, mean = (part @ weights for part in turning.map_of(base, unit))
        own = (parts.features(unit, positions).double() @ matrix + offset).numpy()  # (n, c)
        scale = 1.0
        if encoding == "int8":
            scale = float(np.abs(own).max()) / 127 or 1.0
            rounded = np.round(own / scale).astype("<i1")
        else:
            rounded = own.astype("<f2")
        left = left - torch.from_numpy(rounded.astype(np.float64) * scale)
        each.append(rounded)
        scales.append(scale)
        means.append(mean.tolist())
    groups = parts.store.groups
    return {
        "samples": len(positions),
        "note": note,
        "labels": _base64(parts.store.labels[rows.numpy()].astype("<i2")),
        "groups": None if groups is None else _base64(groups[rows.numpy()].astype("<i2")),
        "units": [parts.units.name(unit) for unit in parts.kept_units],
        "encoding": encoding,
        "scale": scales,
        "parts": _base64(np.stack(each, axis=1)),
        "rest": _base64(left.numpy().astype("<f4")),
        "means": means,
        "pictures": {},
        "positions": list(positions),
    }


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _json(value: Any) -> str:
    return json.dumps(value, default=plain_number, ensure_ascii=False, separators=(",", ":"))


def _positions(answer: Any) -> list[int]:
    """Of all pictures in an answer, without those that aren't there."""
    if isinstance(answer, list):
        return [place for each in answer for place in _positions(each)]
    if not isinstance(answer, dict):
        return []
    own = [answer["position"]] if answer.get("src") and isinstance(answer.get("position"), int) else []
    return own + [place for each in answer.values() for place in _positions(each)]


def _without_sources(answer: Any) -> Any:
    """Pictures by their positions alone: each is held once."""
    if isinstance(answer, list):
        return [_without_sources(each) for each in answer]
    if not isinstance(answer, dict):
        return answer
    return {
        name: None if name == "src" and "position" in answer else _without_sources(each)
        for name, each in answer.items()
    }
