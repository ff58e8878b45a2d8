"""Maps over pictures: what `residual map` shows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from residual.adapters.adapted_encoder import AdaptedEncoder
from residual.data import load_dataset
from residual.data.dataset import file_content
from residual.data.decode import decode_image
from residual.data.load import dataset_name
from residual.devices import find_device
from residual.encoders.changes import EncoderLike, checked_encoder
from residual.encoders.encoder import Encoder
from residual.encoders.load import load_encoder
from residual.encoders.names import encoder_name
from residual.errors import ResidualError
from residual.files import local_path, safe_name, shareable
from residual.heads.by_name import checked_heads
from residual.maps.colours import box_of
from residual.maps.making import NEUTRAL, class_maps, component_maps, text_maps
from residual.maps.maps import Maps
from residual.progress import Progress, named
from residual.report.maps import MappedPicture, signed
from residual.spectral.bases import SpectralBases
from residual.store.encode import encode_dataset
from residual.text.classifier import ZeroShotClassifier
from residual.text.dictionary import read_texts
from residual.tracing.decompose import class_number
from residual.tracing.units import Units

_AT_ONCE = 32  # pictures
_OF_MEANS = 2000  # train pictures, where an encoder has no text


@dataclass(frozen=True)
class MapRequest:
    """What maps are to be of: texts, classes or components.

    Args:
        texts: one map each.
        classes: likewise, of those of `dataset` or of the adapter; where there are no texts and components
            either, the class that each picture is taken for.
        against: of texts or of classes: others, whose mean is taken off.
        components: heads and numbers, as "11.4:0".
        bases: the file that those are in.
        dataset: whose classes these are.
        heads: their sum; None for all.
        top: that many heads apart, those that add or take most.
        signed: with what each head finds against, too.

    Raises:
        ResidualError: they don't go together.
    """

    texts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    bases: str | None = None
    dataset: str | None = None
    heads: tuple[str, ...] = ()
    top: int | None = None
    signed: bool = True

    def __post_init__(self):
        asked = [name for name in ("texts", "classes", "components") if getattr(self, name)]
        if len(asked) > 1:
            raise ResidualError(f"Maps of one kind at a time: got {' and '.join(asked)}.")
        if bool(self.components) != (self.bases is not None):
            raise ResidualError(
                "Maps of components need the bases that these are in, and no others need any."
            )
        if self.components and (self.heads or self.top or self.against or not self.signed):
            raise ResidualError(
                "A component is of one head and has two ends: no heads, nothing against it and no sign are "
                "chosen beside it."
            )
        if self.against and not (self.texts or self.classes):
            raise ResidualError("What is against it needs a text or a class that it is against.")
        if self.heads and self.top:
            raise ResidualError("Heads are named, or the best are taken: not both.")
        if self.top and max(len(self.texts), len(self.classes)) > 1:
            count = max(len(self.texts), len(self.classes))
            raise ResidualError(f"The best heads are those of one text or class, got {count}.")
        if self.dataset and (self.texts or self.components):
            raise ResidualError("A dataset is for its classes, and has no effect beside texts or components.")


@dataclass(frozen=True)
class PictureMaps:
    """Pictures with their maps and one scale of colours for all; by which encoder, and less what (in words);
    what else there is to say; and `result` for JSON.
    """

    pictures: tuple[MappedPicture, ...]
    scale: float
    encoder: str
    less: str
    notes: tuple[str, ...]
    result: dict[str, Any]


def map_pictures(
    paths: Sequence[str | Path],
    request: MapRequest,
    *,
    encoder: str | None = None,
    adapter: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> PictureMaps:
    """Maps of some files of pictures.

    Args:
        paths: of the files.
        request: what of.
        encoder: its name; by default Picto, or the adapter's.
        adapter: a folder or a repository, as `AdaptedEncoder.from_pretrained` takes it: maps are then of its
            output, and classes are its own.
        device: where to compute.
        progress: told of the pictures that are done.

    Raises:
        ResidualError: a picture that can't be read; a name that isn't known; as `text_maps`, `class_maps` and
            `component_maps`.
    """
    start = time.perf_counter()
    read = [_read(path) for path in paths]
    dataset = None if request.dataset is None else dataset_name(request.dataset)
    called = None if encoder is None else encoder_name(encoder)
    adapted = None if adapter is None else AdaptedEncoder.from_pretrained(adapter, called, device)
    model: EncoderLike = adapted or load_encoder(called or "picto", device=find_device(device))
    plain = checked_encoder(model)
    heads = list(request.heads) or None
    if heads:
        checked_heads(heads, Units.of(plain.parts))
    of_bases = None if request.bases is None else SpectralBases.load(request.bases)
    classifier, notes = None, ()
    if not (request.texts or request.components):
        classifier, notes = _classifier(plain, adapted, dataset, progress)
        for label in (*request.classes, *request.against):
            class_number(label, classifier.class_names)
    done: list[MappedPicture] = []
    for first in range(0, len(read), _AT_ONCE):
        some = read[first : first + _AT_ONCE]
        pixels = plain.pixels([picture for _, picture in some])
        made = _maps(plain, pixels, request, heads, of_bases, classifier)
        for (name, picture), (maps, about) in zip(some, made, strict=True):
            done.append(MappedPicture(name, picture, box_of(plain, picture), maps, about))
        if progress is not None:
            progress("map", len(done), len(read))
    scale = max(each.maps.scale for each in done)
    less = _less(request, classifier)
    return PictureMaps(
        tuple(done),
        scale,
        shareable(plain.name),
        less,
        notes,
        {
            "encoder": shareable(plain.name),
            "adapter": None if adapter is None else shareable(adapter, path=True),
            "of": done[0].maps.of,
            "less": less,
            "signed": request.signed,
            "notes": list(notes),
            "scale": scale,
            "mapped": [_json_of(each) for each in done],
            "seconds": round(time.perf_counter() - start, 3),
        },
    )


def figure_names(paths: Sequence[str | Path]) -> list[str]:
    """Of the figures of some files of pictures, no two alike: "map-cat" of "pictures/cat.jpg"."""
    names: dict[str, str] = {}  # by what disks that don't tell capitals take for the same
    for path in paths:
        stem = name = f"map-{safe_name(_shown(path).rpartition('.')[0] or _shown(path))}"
        for number in count(2):
            if name.casefold() not in names:
                break
            name = f"{stem}-{number}"
        names[name.casefold()] = name
    return list(names.values())


def _shown(path: str | Path) -> str:
    return shareable(str(path), path=True)


def _read(path: str | Path) -> tuple[str, Image.Image]:
    name, place = _shown(path), local_path(path)
    if place.is_dir():
        raise ResidualError(f"{name!r} is a folder, and pictures are files: name those in it.")
    return name, decode_image(file_content(place, name, f"'{place.parent}'"), name, f"'{place.parent}'")


def _classifier(
    encoder: Encoder,
    adapted: AdaptedEncoder | None,
    dataset: str | None,
    progress: Progress | None,
) -> tuple[ZeroShotClassifier, tuple[str, ...]]:
    """Of an adapter's classes; or of a dataset's, by texts or by means of its train pictures (noted)."""
    if adapted is not None and adapted.classifier is not None:
        if dataset is not None:
            raise ResidualError("The adapter has classes of its own: a dataset has no effect beside it.")
        return adapted.classifier, ()
    if dataset is None:
        raise ResidualError(
            "What to look for isn't said: a text, a component, or the classes of a dataset or of an adapter."
        )
    images = load_dataset(dataset, "test" if encoder.has_text else "train")
    names = images.class_names
    if encoder.has_text:
        embedding = named(progress, "embed classes")
        return ZeroShotClassifier.from_text(encoder, names, images.templates, embedding), ()
    some = images.sample(_OF_MEANS, every_class=True)
    store = encode_dataset(encoder, some, progress=named(progress, "encode for class means"))
    note = (
        f"{shareable(encoder.name)} has no text tower: classes are means of {len(some):,} pictures of train."
    )
    return ZeroShotClassifier.from_class_means(store.output(), store.labels, names), (note,)


def _maps(
    encoder: Encoder,
    pixels: Float[Tensor, "n 3 h w"],
    request: MapRequest,
    heads: list[str] | None,
    bases: SpectralBases | None,
    classifier: ZeroShotClassifier | None,
) -> list[tuple[Maps, str]]:
    """Of each picture its own maps, and what else there is to say of it."""
    rows, against = range(len(pixels)), request.against or None
    how: dict[str, Any] = {"separate": request.top is not None, "signed": request.signed}
    if bases is not None:
        made = component_maps(encoder, pixels, bases, request.components)
    elif classifier is None:
        made = text_maps(encoder, pixels, request.texts, heads, against, **how)
    else:
        with torch.inference_mode():
            answers = classifier.answers(encoder.encode_image(pixels).float()).tolist()
        asked = [class_number(label, classifier.class_names) for label in request.classes]
        wanted = asked or sorted(set(answers))
        made = class_maps(encoder, pixels, classifier, wanted, against, heads, **how)
        if not asked:
            each = len(made.names) // len(wanted)  # maps of a class
            found = []
            for row, answer in zip(rows, answers, strict=True):
                first = wanted.index(answer) * each
                own = made.take([row], range(first, first + each))
                found.append(_best(own, request.top, f"taken for {classifier.class_names[answer]!r}"))
            return found
    return [_best(made.take([row]), request.top) for row in rows]


def _less(request: MapRequest, classifier: ZeroShotClassifier | None) -> str:
    """What is taken off every score, where that isn't in the maps' names."""
    if request.against or request.components:
        return ""
    if classifier is None:
        return f"the mean of {len(read_texts(NEUTRAL))} texts"
    return f"the mean of all {len(classifier)} classes"


def _best(maps: Maps, top: int | None, about: str = "") -> tuple[Maps, str]:
    """Of maps of all heads apart those that are asked for; and what all do together."""
    if top is None:
        return maps, about
    adds = maps.shown[0]
    told = f"{len(adds)} heads add {signed(float(adds.sum()), maps.of)}: {int((adds > 0).sum())} for it"
    return maps.take(maps=maps.largest(top)), "\n".join(filter(None, (about, told)))


def _json_of(each: MappedPicture) -> dict[str, Any]:
    rows, cols = each.maps.values.shape[-2:]
    return {
        "picture": each.name,
        "about": each.about,
        "box": list(each.box),
        "rows": rows,
        "cols": cols,
        "maps": each.maps.to_json()[0],
    }
