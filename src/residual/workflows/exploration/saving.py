"""What was turned, to be kept: as a mask, as an adapter's folder, and as a command that does the same."""

from __future__ import annotations

import io
import json
import os
import shlex
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from residual.adapters.adapted_encoder import AdaptedEncoder
from residual.errors import ResidualError
from residual.files import parse_json, read_regular, shareable
from residual.hashing import sha256
from residual.libraries import version_of
from residual.products import MADE_BY
from residual.store.base import Store
from residual.workflows.exploration.parts import Parts
from residual.workflows.exploration.states import State
from residual.workflows.exploration.turning import Turning

FORMAT = 1
_LARGEST = 2**26  # bytes of a mask
_LONGEST = 1500  # letters of a command; a mask holds what is more

Download = tuple[str, bytes, str]  # its type, its bytes, the name of the file


def saved_mask(parts: Parts, state: State, told: dict[str, Any]) -> Download:
    """A JSON object: what is turned, and of which encoder and store; `told` is what came of it."""
    adapter = None if state.adapter is None else parts.adapter(state.adapter)
    held = {
        "format": FORMAT,
        "made_by": f"{MADE_BY} {version_of('residual-vit')}",
        "mask": state.to_json(parts.units),
        "encoder": _encoder(parts.store),
        "samples": _samples(parts.store),
        "adapter": adapter and {"name": adapter.name, "method": adapter.adapter.method},
        **{name: told[name] for name in ("accuracy", "before", "changed")},
        "command": command(parts, state, shared=True),
    }
    return "application/json", (json.dumps(held, indent=1) + "\n").encode(), "mask.json"


def saved_adapter(parts: Parts, turning: Turning, state: State) -> Download:
    """The folder of an adapter, as a zip, with the classifier.

    Raises:
        ResidualError: the encoder isn't here, whose facts the folder notes.
    """
    adapter, classifier = turning.adapter(state), turning.base(state.adapter).classifier
    encoder = parts.encoder
    with parts.running:  # what is copied has no hooks of a pass
        adapted = AdaptedEncoder(encoder, adapter, classifier, share=True)
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "adapter"
        adapted.save_pretrained(folder)
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, f"adapter/{path.name}")
    return "application/zip", packed.getvalue(), "adapter.zip"


def command(parts: Parts, state: State, shared: bool = False) -> str:
    """The command line that measures the same on the same samples.

    Args:
        parts: of the exploration.
        state: what is turned.
        shared: without the paths of this machine.
    """

    def named(place: str) -> str:
        return shareable(place, path=True) if shared else place

    words = ["residual", "evaluate", *map(named, parts.sources.stores[:1])]
    held = state.to_json(parts.units)
    how = [f"--off={','.join(held['off'])}"] if held["off"] else []
    how += [f"--weight={unit}={value:.12g}" for unit, value in held["weights"].items()]
    how += [
        f"--lambda={unit}:{k}={value:.12g}"
        for unit, own in held["lambdas"].items()
        for k, value in own.items()
    ]
    how += ["--mode=mean"] if state.mode == "mean" and how else []
    if sum(map(len, how)) > _LONGEST:
        how = ["--mask=mask.json"]
    if state.adapter is not None:
        how.append(f"--adapter={named(parts.adapter(state.adapter).place)}")
    how += [
        f"--{name}={value}"
        for name in ("encoder", "dataset")
        if (value := getattr(parts.sources, name)) is not None
    ]
    return shlex.join([*words, *how])


def read_mask(path: str | os.PathLike[str], store: Store) -> dict[str, Any]:
    """What a mask holds, as `State.of_json` takes it, if it is of the store's encoder; where it weights
    single components, it has to be of the store's samples.

    Raises:
        ResidualError: there is none, or it is of something else.
    """
    try:
        held = parse_json(read_regular(Path(path), _LARGEST), Path(path))
    except OSError as error:
        raise ResidualError(f"{path} can't be read ({error.strerror}).") from error
    if not isinstance(held, dict) or held.get("format") != FORMAT or not isinstance(held.get("mask"), dict):
        raise ResidualError(f"{path} is no mask of units, as the explorer saves one.")
    encoder = held.get("encoder")
    if not isinstance(encoder, dict) or encoder.get("weights") != store.fingerprint:
        of = encoder.get("name") if isinstance(encoder, dict) else None
        raise ResidualError(f"{path} is of the encoder {of!r:.60}, and the store of {store.encoder_name}.")
    if held["mask"].get("lambdas") and held.get("samples") != _samples(store):
        raise ResidualError(
            f"{path} weights single components, which are those of the samples that it was made with, and "
            f"{store.dataset} has others.",
            "Save it as an adapter, which holds its components.",
        )
    return held["mask"]


def _encoder(store: Store) -> dict[str, str]:
    return {"name": store.encoder_name, "weights": store.fingerprint, "centering": store.centering}


def _samples(store: Store) -> dict[str, Any]:
    """What tells the samples of a store from others."""
    digest = sha256(store.digests.tobytes(), store.labels.tobytes())
    return {"dataset": shareable(store.dataset), "count": len(store), "digest": digest}
