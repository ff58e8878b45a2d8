"""Save, load and share adapted encoders, in the manner of the Hugging Face libraries.

A folder, or a repository of the hub, holds `adapter.safetensors`, `adapter_config.json` and `README.md`, a
model card. The encoder's own weights aren't in it, but for one that was fine-tuned. Nothing is pickled; the
config holds the digest of the tensors, so that files of two different saves are never taken together.
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from residual.adapters.adapter import Adapter
from residual.adapters.card import TrainingRecord, model_card
from residual.adapters.methods import ADAPTERS, FINE_TUNING
from residual.encoders.encoder import Encoder
from residual.encoders.load import check_encoder_name, load_encoder
from residual.encoders.sources import hub_errors
from residual.errors import ResidualError
from residual.files import write_json, write_text, written_beside
from residual.libraries import first_line, version_of
from residual.spectral.bases import Origin
from residual.tensor_files import pack_tensors, unpack_tensors
from residual.text.classifier import ZeroShotClassifier

FORMAT = 1
TENSORS, CONFIG, CARD = "adapter.safetensors", "adapter_config.json", "README.md"
_KIND = "adapted encoder"
_WEIGHT_OF = "encoder."  # names of the image tower's own weights begin so


@dataclass(frozen=True)
class _EncoderFacts:
    """What a config says of the encoder; `original_fingerprint` is what it had before it was fine-tuned.

    `split` is the centering's older name, which files keep.
    """

    name: str
    fingerprint: str
    original_fingerprint: str | None
    split: str
    pooling: str
    output_dim: int

    def __post_init__(self):
        words = (self.name, self.fingerprint, self.original_fingerprint or "", self.split)
        if not all(isinstance(word, str) for word in words) or self.pooling != "own":
            raise ValueError(f"no encoder is like this: {self}")

    def check(self, place: str | Path, encoder: Encoder) -> None:
        """Refuse an encoder that it isn't for.

        Raises:
            ResidualError: the weights, the centering or the width are others.
        """
        wrong = encoder.fingerprint not in (self.fingerprint, self.original_fingerprint)
        if wrong or (encoder.centering, encoder.output_dim) != (self.split, self.output_dim):
            wanted = self.original_fingerprint or self.fingerprint
            raise ResidualError(
                f"{place} is for {self.name} (weights {wanted[:8]}, centering {self.split!r}, width "
                f"{self.output_dim}), not for {encoder.name} (weights {encoder.fingerprint[:8]}, centering "
                f"{encoder.centering!r}, width {encoder.output_dim})."
            )


@dataclass(frozen=True)
class AdaptedParts:
    """What an `AdaptedEncoder` is made of, in the order of its arguments."""

    encoder: Encoder
    adapter: Adapter | None
    classifier: ZeroShotClassifier | None
    record: TrainingRecord | None
    original: str | None

    @property
    def method(self) -> str:
        """The adapter's; without one "fine_tuning", or "none" for an encoder as it was."""
        if self.adapter is not None:
            return self.adapter.method
        return "none" if self.original is None else FINE_TUNING


def save_parts(parts: AdaptedParts, folder: str | Path, place: str | None = None) -> None:
    """See `AdaptedEncoder.save_pretrained`; `place` is where the card says to load it from.

    Raises:
        ResidualError: see there.
    """
    folder = Path(folder)
    encoder, adapter, classifier = parts.encoder, parts.adapter, parts.classifier
    tensors, choices, origin = {}, None, None
    if adapter is not None:
        tensors, choices = adapter.to_saved()
        origin = adapter.origin
    if classifier is not None:
        tensors["classes"] = classifier.weights
    trained = 0 if adapter is None else adapter.weights.numel()
    if parts.original is not None:
        tower = _image_weights(encoder)
        tensors |= {_WEIGHT_OF + name: value for name, value in tower.items()}
        trained += sum(value.numel() for value in tower.values())
    data = pack_tensors(_KIND, tensors, {"format": FORMAT})
    facts = _EncoderFacts(
        encoder.name, encoder.fingerprint, parts.original, encoder.centering, "own", encoder.output_dim
    )
    config = {
        "format": FORMAT,
        "method": parts.method,
        "encoder": asdict(facts),
        "adapter": choices,
        "trained_weights": trained,
        "bases": origin and origin.to_json(),
        "class_names": classifier and list(classifier.class_names),
        "classifier": classifier and {"scale": classifier.scale, "fingerprint": classifier.fingerprint},
        "training": parts.record and asdict(parts.record),
        "sha256": hashlib.sha256(data).hexdigest(),
        "versions": {name: version_of(name) for name in ("residual-vit", "torch", "transformers")},
    }
    with written_beside(folder / TENSORS) as beside:
        beside.write_bytes(data)
    write_text(folder / CARD, model_card(config, place or folder.name))
    write_json(folder / CONFIG, config)  # last: it names the digest of the tensors


def load_parts(
    place: str | Path,
    encoder: Encoder | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
) -> tuple[AdaptedParts, bool]:
    """See `AdaptedEncoder.from_pretrained`; and whether nobody else has the encoder.

    Raises:
        ResidualError: see there.
    """
    folder = _local_folder(place, revision)
    config = _config(folder / CONFIG)
    with _making_sense(folder / CONFIG):
        facts = _EncoderFacts(**config["encoder"])
    given = encoder
    encoder = _loaded_encoder(place, facts, device) if given is None else given
    facts.check(place, encoder)
    tensors = _tensors(folder / TENSORS, config)
    with _making_sense(folder / CONFIG):
        adapter = None if config["adapter"] is None else _adapter(config, tensors)
        classifier, known = None, config["classifier"]
        if known is not None:
            classifier = ZeroShotClassifier(
                tensors["classes"], config["class_names"], known["scale"], known["fingerprint"]
            )
        record = None if config["training"] is None else TrainingRecord.of_json(config["training"])
    share = given is None
    if facts.original_fingerprint is not None and encoder.fingerprint != facts.fingerprint:
        fresh = encoder.around(copy.deepcopy(encoder.module) if given is not None else encoder.module)
        encoder, share = _with_weights(place, fresh, tensors, facts.fingerprint), True
    return AdaptedParts(encoder, adapter, classifier, record, facts.original_fingerprint), share


def push_parts(parts: AdaptedParts, repo_id: str, private: bool = False, token: str | None = None) -> str:
    """See `AdaptedEncoder.push_to_hub`.

    Raises:
        ResidualError: see there.
    """
    import httpx
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save_parts(parts, folder, repo_id)
        api = HfApi(token=token)
        with hub_errors(repo_id, "it can't be put onto the hub"):
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                done = api.upload_folder(
                    repo_id=repo_id,
                    folder_path=folder,
                    commit_message="Upload an adapted encoder",
                    allow_patterns=[TENSORS, CONFIG, CARD],
                )
            except httpx.HTTPError as error:
                raise OSError(first_line(error)) from error
    return str(done.repo_url)


def _adapter(config: dict[str, Any], tensors: dict[str, Tensor]) -> Adapter:
    origin = None if config["bases"] is None else Origin.of_json(config["bases"])
    method = config["method"]
    if method == "residual" and set((config["training"] or {}).get("accuracy", ())) == _STAR_UNTIL_0_1:
        method = "residual_star"
    if method not in ADAPTERS:
        raise ResidualError(f"An adapter of method {method!r} isn't known to this version.")
    return ADAPTERS[method].from_saved(tensors, config["adapter"], origin)


# Version 0.1 saved a ResiDual* as "residual": what was measured of it is all that tells it.
_STAR_UNTIL_0_1 = {"zero_shot", "residual_star"}


def _local_folder(place: str | Path, revision: str | None) -> Path:
    """The folder, or the local copy of the hub's repository."""
    local = Path(place).expanduser()
    if local.is_dir():
        if revision is not None:
            raise ResidualError(f"{str(place)!r} is a folder, which has no revision {revision!r}.")
        return local
    from huggingface_hub import snapshot_download

    repo = str(place)
    with hub_errors(repo, "there is no such folder, and it can't be had from the hub"):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=[TENSORS, CONFIG]))


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ResidualError(f"{str(path.parent)!r} holds no {path.name}: save_pretrained writes one.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version = config["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResidualError(f"{path} can't be read ({first_line(error)}).") from error
    if version != FORMAT:
        versions = config.get("versions")
        writer = versions.get("residual-vit", "unknown") if isinstance(versions, dict) else "unknown"
        raise ResidualError(
            f"{path} is of format {version}, and this residual-vit ({version_of('residual-vit')}) reads "
            f"format {FORMAT}: take the version that wrote it, {writer}, or a newer one."
        )
    return config


def _tensors(path: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResidualError(f"{path} can't be read ({error.strerror}).") from error
    if hashlib.sha256(data).hexdigest() != config.get("sha256"):
        raise ResidualError(
            f"{path} is damaged, or of another save than {CONFIG} beside it: fetch or save both again."
        )
    return unpack_tensors(data, _KIND, path)[0]


@contextmanager
def _making_sense(path: Path) -> Generator[None]:
    """Turn what goes wrong with fields that are missing or of another kind into one sentence."""
    try:
        yield
    except ResidualError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else first_line(error)
        raise ResidualError(f"{path} and the tensors beside it make no adapter ({what}).") from error


def _loaded_encoder(place: str | Path, facts: _EncoderFacts, device: str | torch.device | None) -> Encoder:
    try:
        check_encoder_name(facts.name)
    except ResidualError as error:
        raise ResidualError(
            f"{place} is for an encoder called {facts.name!r}, which can't be loaded by that name: give it, "
            "from_pretrained(…, encoder=wrap_encoder(model))."
        ) from error
    return load_encoder(facts.name, device, centering=facts.split)


def _image_weights(encoder: Encoder) -> dict[str, Tensor]:
    """All that the image tower's output depends on, as in the fingerprint."""
    return {k: value for k, value in encoder.module.state_dict().items() if encoder.in_image_tower(k)}


def _with_weights(
    place: str | Path, encoder: Encoder, tensors: dict[str, Tensor], fingerprint: str
) -> Encoder:
    """Put the saved weights of an image tower in the place of the encoder's own."""
    saved = {k.removeprefix(_WEIGHT_OF): v for k, v in tensors.items() if k.startswith(_WEIGHT_OF)}
    own = _image_weights(encoder)
    if {name: value.shape for name, value in saved.items()} != {k: v.shape for k, v in own.items()}:
        raise ResidualError(f"{place} holds other weights than {encoder.name} has: it isn't of this model.")
    encoder.module.load_state_dict(saved, strict=False)
    if encoder.fingerprint != fingerprint:
        raise ResidualError(f"The weights in {place} aren't those that its {CONFIG} tells of.")
    return encoder
