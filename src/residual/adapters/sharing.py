"""Save, load and share adapted encoders, in the manner of the Hugging Face libraries.

A folder, or a repository of the hub, holds `adapter.safetensors`, `adapter_config.json` and `README.md`, a
model card. The encoder's own weights aren't in it, but for one that was fine-tuned. Nothing is pickled.

The tensors come to their place first and hold a copy of the config, whose own file holds their digest. So a
save that is cut off leaves the old adapter or the new one, and files of two saves are never taken together.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from residual.adapters.adapter import Adapter
from residual.adapters.card import TrainingRecord, model_card
from residual.adapters.config import EncoderFacts, check_config, format_of, making_sense, read_config
from residual.adapters.methods import FINE_TUNING, kept_method
from residual.encoders.encoder import Encoder
from residual.encoders.sources import hub_errors
from residual.errors import ExistingError, ForeignError, ResidualError
from residual.files import local_path, read_regular, shareable, write_json, write_text
from residual.finite import check_finite
from residual.hashing import sha256
from residual.libraries import version_of
from residual.outputs import check_folder, listed
from residual.products import ADAPTER
from residual.repositories import hub_bars
from residual.spectral.bases import Origin
from residual.tensor_files import MOST_OF_WEIGHTS, packed_parts, unpack_tensors, write_parts
from residual.text.classifier import ZeroShotClassifier
from residual.versions import told_by_version

FILES = TENSORS, CONFIG, CARD = "adapter.safetensors", "adapter_config.json", "README.md"
_KIND = "adapted encoder"
_WEIGHT_OF = "encoder."  # names of the image tower's own weights begin so


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


def save_parts(
    parts: AdaptedParts, folder: str | Path, place: str | None = None, overwrite: bool = False
) -> None:
    """See `AdaptedEncoder.save_pretrained`; `place` is where the card says to load it from.

    Raises:
        ResidualError: see there.
    """
    # A training beside it is of this one, or has come to its end.
    folder = check_folder(folder, ADAPTER, overwrite, FILES, going_on=parts.method == FINE_TUNING)
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
    facts = EncoderFacts(
        shareable(encoder.name), encoder.fingerprint, parts.original, encoder.centering, "own",
        encoder.output_dim,
    )  # fmt: skip
    record = parts.record and replace(parts.record, dataset=shareable(parts.record.dataset))
    of_classes = None if classifier is None else _classifier_facts(classifier)
    config = {
        "format": format_of(choices, of_classes),
        "method": parts.method,
        "encoder": asdict(facts),
        "rounded_fingerprint": encoder.rounded_fingerprint,
        "adapter": choices,
        "trained_weights": trained,
        "bases": origin and origin.to_json(),
        "class_names": classifier and list(classifier.class_names),
        "classifier": of_classes,
        "training": record and asdict(record),
        "versions": {name: version_of(name) for name in ("residual-vit", "torch", "transformers")},
    }
    data = packed_parts(_KIND, tensors, {"format": config["format"], "config": config})
    card = model_card(config, place or folder.resolve().name, facts.name == encoder.name)
    write_parts(folder / TENSORS, data)
    write_json(folder / CONFIG, config | {"sha256": sha256(*data)})
    write_text(folder / CARD, card)


def load_parts(
    place: str | Path,
    encoder: Encoder | str | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
) -> tuple[AdaptedParts, bool]:
    """See `AdaptedEncoder.from_pretrained`; and whether nobody else has the encoder.

    Raises:
        ResidualError: see there.
    """
    folder = _local_folder(place, revision)
    with told_by_version(folder / CONFIG):
        tensors, config = _saved(folder)
    with making_sense(folder / CONFIG):
        facts = EncoderFacts(**config["encoder"])
    given, encoder = encoder, facts.encoder(place, encoder, device, config.get("rounded_fingerprint"))
    # One that is known by its weights in another precision: what is of it is of the one that is here.
    elsewhere = encoder.fingerprint not in (facts.fingerprint, facts.original_fingerprint)
    prints = {facts.fingerprint: encoder.fingerprint} if elsewhere else {}
    with making_sense(folder / CONFIG):
        adapter, classifier = _parts_of(config, tensors, prints, folder / CONFIG)
        record = None if config["training"] is None else TrainingRecord.of_json(config["training"])
    share = given is not encoder
    if encoder.fingerprint == facts.original_fingerprint != facts.fingerprint:
        fresh = encoder.around(encoder.module if share else copy.deepcopy(encoder.module))
        with making_sense(folder / CONFIG):
            encoder, share = _with_weights(place, fresh, tensors, facts.fingerprint), True
    return AdaptedParts(encoder, adapter, classifier, record, facts.original_fingerprint), share


@dataclass(frozen=True)
class KeptAdapter:
    """What a folder keeps, without the encoder: an adapter (None of a fine-tuned encoder), a classifier, and
    what is said of the encoder.
    """

    adapter: Adapter | None
    classifier: ZeroShotClassifier | None
    facts: EncoderFacts


def read_adapter(place: str | Path, revision: str | None = None) -> KeptAdapter:
    """What `save_pretrained` wrote, as it is: nothing is known of the encoder but what it says.

    Raises:
        ResidualError: as `AdaptedEncoder.from_pretrained`, but for the encoder.
    """
    folder = _local_folder(place, revision)
    with told_by_version(folder / CONFIG):
        tensors, config = _saved(folder)
    with making_sense(folder / CONFIG):
        facts = EncoderFacts(**config["encoder"])
        return KeptAdapter(*_parts_of(config, tensors, {}, folder / CONFIG), facts)


def push_parts(
    parts: AdaptedParts,
    repo_id: str,
    private: bool = False,
    token: str | None = None,
    overwrite: bool = False,
) -> str:
    """See `AdaptedEncoder.push_to_hub`.

    Raises:
        ResidualError: see there.
    """
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save_parts(parts, folder, repo_id)
        api = HfApi(token=token)
        with hub_errors(repo_id, "it can't be put onto the hub"):
            if api.repo_exists(repo_id):
                _check_repository(repo_id, api.list_repo_files(repo_id), overwrite)
            api.create_repo(repo_id, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message="Upload an adapted encoder",
                allow_patterns=[*FILES],
            )
    return str(done.repo_url)


def _check_repository(repo_id: str, names: Sequence[str], overwrite: bool) -> None:
    """As `check_folder`, of names alone: the hub keeps what was there as an earlier commit."""
    own = {TENSORS, CONFIG} <= set(names)
    if own and not overwrite:
        raise ExistingError(f"The repository {repo_id!r} holds an adapter already.")
    if not own and (others := [name for name in names if name != ".gitattributes"]):
        raise ForeignError(
            f"The repository {repo_id!r} holds {listed(others)}: it is no place for an adapter."
        )


def _classifier_facts(classifier: ZeroShotClassifier) -> dict[str, Any]:
    """What a config says of it."""
    known = {"scale": classifier.scale, "fingerprint": classifier.fingerprint}
    return known if classifier.normalized else known | {"normalized": False}


def _parts_of(
    config: dict[str, Any], tensors: dict[str, Tensor], prints: dict[str, str], where: Path
) -> tuple[Adapter | None, ZeroShotClassifier | None]:
    adapter = None if config["adapter"] is None else _adapter(config, tensors, prints, where)
    if (known := config["classifier"]) is None:
        return adapter, None
    fingerprint = prints.get(known["fingerprint"], known["fingerprint"])
    about = (known["scale"], fingerprint, known.get("normalized", True))
    return adapter, ZeroShotClassifier(tensors["classes"], config["class_names"], *about)


def _adapter(
    config: dict[str, Any], tensors: dict[str, Tensor], prints: dict[str, str], where: Path
) -> Adapter:
    origin = None if config["bases"] is None else Origin.of_json(config["bases"], where)
    if origin is not None:
        origin = replace(origin, fingerprint=prints.get(origin.fingerprint, origin.fingerprint))
    method = config["method"]
    if method == "residual" and set((config["training"] or {}).get("accuracy", ())) == _STAR_UNTIL_0_1:
        method = "residual_star"
    kind = kept_method(method)
    if kind is None or not issubclass(kind, Adapter):
        raise ResidualError(f"An adapter of method {method!r} isn't known to this version.")
    return kind.from_saved(tensors, config["adapter"], origin)


# Version 0.1 saved a ResiDual* as "residual": what was measured of it is all that tells it.
_STAR_UNTIL_0_1 = {"zero_shot", "residual_star"}


def _local_folder(place: str | Path, revision: str | None) -> Path:
    """The folder, or the local copy of the hub's repository."""
    local = local_path(place)
    if local.is_dir():
        if revision is not None:
            raise ResidualError(f"{str(place)!r} is a folder, which has no revision {revision!r}.")
        return local
    from huggingface_hub import snapshot_download

    repo = str(place)
    with hub_errors(repo, "there is no such folder, and it can't be had from the hub"):
        return Path(
            snapshot_download(
                repo, revision=revision, allow_patterns=[TENSORS, CONFIG], tqdm_class=hub_bars(repo)
            )
        )


def _saved(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and the config that was saved with them.

    Where a save was cut off between its files, the tensors are new and the config beside them isn't, or there
    is none: they hold their own.
    """
    path = folder / TENSORS
    alone = path.exists() and not (folder / CONFIG).exists()
    config = {} if alone else read_config(folder / CONFIG)
    try:
        data = read_regular(path, MOST_OF_WEIGHTS)
    except OSError as error:
        raise ResidualError(f"{path} can't be read ({error.strerror}).") from error
    belong = sha256(data) == config.pop("sha256", None)
    try:
        tensors, note = unpack_tensors(data, _KIND, path, belong, ("format", "config"))
    except ResidualError as error:
        if belong or alone:
            raise
        raise _of_another_save(path) from error
    own = note.get("config")
    if own is None:  # until 0.1
        if alone:
            read_config(folder / CONFIG)  # says that there is none
        if not belong:
            raise _of_another_save(path)
        return tensors, config
    if belong and own != config:
        raise ResidualError(
            f"{folder / CONFIG} isn't what was saved with {TENSORS}: it is damaged, or was changed."
        )
    check_config(own, path)
    return tensors, own


def _of_another_save(path: Path) -> ResidualError:
    return ResidualError(
        f"{path} is damaged, or of another save than {CONFIG} beside it: fetch or save both again."
    )


def _image_weights(encoder: Encoder) -> dict[str, Tensor]:
    """All that the image tower's output depends on, as in the fingerprint."""
    return {k: value for k, value in encoder.module.state_dict().items() if encoder.in_image_tower(k)}


def _with_weights(
    place: str | Path, encoder: Encoder, tensors: dict[str, Tensor], fingerprint: str
) -> Encoder:
    """Put the saved weights of an image tower in the place of the encoder's own."""
    saved = {k.removeprefix(_WEIGHT_OF): v for k, v in tensors.items() if k.startswith(_WEIGHT_OF)}
    own, trained = _image_weights(encoder), encoder.image_parameters()
    if {name: value.shape for name, value in saved.items()} != {k: v.shape for k, v in own.items()}:
        raise ResidualError(f"{place} holds other weights than {encoder.name} has: it isn't of this model.")
    for name, value in saved.items():
        if name in trained or not torch.equal(value, own[name].to(value)):  # a mask is of -inf
            check_finite(value, f"The weights {name!r} in {place}")
    encoder.module.load_state_dict(saved, strict=False)
    if encoder.fingerprint != fingerprint:
        raise ResidualError(f"The weights in {place} aren't those that its {CONFIG} tells of.")
    return encoder
