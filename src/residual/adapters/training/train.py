"""Train the baselines on Lightning: all of an encoder, or an adapter on its scores.

`fit` is the fast way to train an adapter; here it goes the way of the baselines, in mixed precision if need
be, with loggers, and with checkpoints that a killed run goes on from. Lightning (`pip install
'residual-vit[training]'`) is loaded by the first call.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from residual.adapters.adapter import Adapter, check_choice
from residual.adapters.fit import FitResult
from residual.adapters.matching import check_classes, check_finite, check_match
from residual.adapters.scores import Scores
from residual.adapters.training.data import (
    Samples,
    check_images,
    digest,
    digest_of_classifier,
    digest_of_images,
    digest_of_scores,
    images,
    scores,
)
from residual.adapters.training.log import LOGGERS
from residual.adapters.training.train_settings import TrainSettings
from residual.data import ImageDataset
from residual.devices import find_device
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.libraries import library
from residual.progress import Progress
from residual.text.classifier import ZeroShotClassifier


def fine_tune(
    encoder: Encoder,
    train: ImageDataset,
    val: ImageDataset,
    classifier: ZeroShotClassifier,
    settings: TrainSettings | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    logger: str | None = None,
    device: str | torch.device | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Minimise the cross-entropy of the classifier's logits over all weights of the image tower, in place.

    The text tower, the logit scale and the classifier stay as they are. After every epoch the weights
    (averaged, for "schedule_free") are tried on the validation pictures; those of the epoch with the best
    accuracy, among equals with the lowest loss, are what the encoder has in the end. If anything raises, it
    has the weights that it came with. The same seed gives the same weights (on a CPU to the last bit).

    With a `folder`, the same call after whatever stopped it goes on from the last checkpoint, made after
    every epoch and every two minutes, and ends with the same weights as a run that nothing stopped. A call
    after the end gives the result without training.

    Args:
        encoder: from `load_encoder`. Weights are trained in single precision: an encoder in bfloat16 or
            float16 is in float32 afterwards.
        train: pictures to train on, as they are (no augmentation). Up to 2 GB of pixels, those of `val`
            included, are kept in memory, and on the GPU if they fit there; more are read in every epoch.
            A `PixelDataset` is kept as it is: pixels that several trainings share.
        val: pictures that choose the epoch.
        classifier: frozen; its classes are those of both datasets.
        settings: by default `TrainSettings.of("fine_tuning")`.
        folder: for checkpoints (`checkpoint.safetensors`, in the end `finished.safetensors`) and the log.
        logger: "csv", "tensorboard" or "wandb", into the folder; None for none.
        device: by default the GPU if there is one, else the CPU; the encoder is brought back afterwards.
        workers: processes that read pictures, see `encode_dataset`.
        progress: called with the number of epochs done and their greatest number, after every epoch.

    Raises:
        UnreadableImageError: names the sample.
        ResidualError: Lightning or the logger isn't installed; encoder, classifier, classes and labels don't
            belong together, or a class has no training sample, before any work; pixels that aren't finite; a
            checkpoint of something else in the folder; or the loss stops being finite.
    """
    settings = settings or TrainSettings.of("fine_tuning")
    loop, where, place = _ready("fine_tune", settings, folder, logger, device)
    for dataset, what in ((train, "training"), (val, "validation")):
        check_images(encoder, dataset, classifier, what)
    if settings.missing == "raise":
        check_classes(torch.from_numpy(train.labels), classifier)
    identity = {
        "encoder": encoder.fingerprint,
        "training dataset": digest_of_images(train),
        "validation dataset": digest_of_images(val),
    }
    with _borrowed(encoder, where) as (trained, buffers):

        def samples() -> tuple[Samples, Samples]:
            first, second = images(encoder, [(train, "training"), (val, "validation")], workers)
            return first, second

        work = loop.Work(
            forward=lambda pixels: encoder.run("image", encoder.checked_pixels(pixels)),
            trained=trained,
            buffers=buffers,
            mode=encoder.module.train,
            penalty=lambda: 0.0,
            samples=samples,
            classifier=classifier.to(where),
            identity=_identity("fine-tuning", settings, classifier) | identity,
        )
        return loop.run(work, settings, where, place, logger, progress)


def train(
    adapter: Adapter,
    train: Scores,
    val: Scores,
    classifier: ZeroShotClassifier,
    settings: TrainSettings | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    logger: str | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Train an adapter's weights on scores, in place, as `fit` does and with its result to rounding.

    Args:
        adapter: its weights are the start and the result.
        train: scores of the training samples, of the adapter's components or of more.
        val: scores of the validation samples.
        classifier: from outputs to logits; frozen.
        settings: by default `TrainSettings.of(adapter.method)`.
        folder, logger, device, progress: as in `fine_tune`.

    Raises:
        ResidualError: as `fine_tune`; scores, labels, adapter and classifier don't belong together; or scores
            hold NaN.
    """
    settings = settings or TrainSettings.of(adapter.method)
    loop, where, place = _ready("train", settings, folder, logger, device)
    for given, what in ((train, "training"), (val, "validation")):
        check_match(adapter, given, classifier, what)
        check_finite(given, what)
    if settings.missing == "raise":
        check_classes(train.labels, classifier)
    first, shaped = adapter.weights.detach(), adapter.at_ranks(train.ranks)
    weights = nn.Parameter(first.to(where, train.scores.dtype, copy=True))
    directions = train.directions.to(where)

    def forward(own: Tensor, rest: Tensor) -> Tensor:
        wide = weights if shaped is adapter else adapter.widened(weights, train.ranks)[0]
        return shaped.outputs(wide[None], own[None], directions, rest[None])[0]

    def penalty(of: Tensor = weights) -> Tensor | float:
        added = adapter.penalty(of.flatten()[None])
        return added.sum() if isinstance(added, Tensor) else added

    told = f"{adapter.method} {adapter.ranks} {adapter.choices()[1:]} {float(penalty(first))}"
    work = loop.Work(
        forward=forward,
        trained={"weights": weights},
        buffers={},
        mode=lambda training: None,
        penalty=penalty,
        samples=lambda: (scores(train, train.labels, where), scores(val, val.labels, where)),
        classifier=classifier.to(where),
        identity=_identity("training of an adapter", settings, classifier)
        | {
            "adapter": digest(told, first),
            "set of training scores": digest_of_scores(train, train.labels),
            "set of validation scores": digest_of_scores(val, val.labels),
        },
    )
    result = loop.run(work, settings, where, place, logger, progress)
    with torch.no_grad():
        adapter.weights.copy_(weights)
    return result


def check_installed(name: str, logger: str | None = None) -> None:
    """Find out before any work whether Lightning is there, and what a logger needs.

    Raises:
        ResidualError: it isn't, and how to install it; or an unknown logger.
    """
    library("lightning", name, extra="training")
    if logger is not None:
        check_choice("logger", logger, LOGGERS)
        if logger != "csv":
            library(logger, f'logger="{logger}"', extra="logging")


def _ready(
    name: str,
    settings: TrainSettings,
    folder: str | os.PathLike[str] | None,
    logger: str | None,
    device: str | torch.device | None,
) -> tuple[Any, torch.device, Path | None]:
    """The loop, the device and the folder, once all that is asked for can be."""
    check_installed(name, logger)
    if logger is not None and folder is None:
        raise ResidualError(f"A logger writes into the folder of the training: say folder=, got {logger!r}.")
    where = find_device(device)
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", torch.cuda.current_device())
    if settings.precision == "16-mixed" and where.type == "cpu":
        raise ResidualError('A CPU doesn\'t train in "16-mixed": say precision="bf16-mixed" there.')
    from residual.adapters.training import loop

    return loop, where, None if folder is None else Path(folder)


def _identity(what: str, settings: TrainSettings, classifier: ZeroShotClassifier) -> dict[str, str]:
    """What is told apart in any training; a name a thing."""
    own = {name: str(value) for name, value in asdict(settings).items()}
    return {"kind of training": what} | own | {"classifier": digest_of_classifier(classifier)}


@contextmanager
def _borrowed(
    encoder: Encoder, device: torch.device
) -> Generator[tuple[dict[str, nn.Parameter], dict[str, Tensor]]]:
    """The weights and buffers of the image tower, ready to be trained; all else is given back as it came."""
    module, trained = encoder.module, encoder.image_parameters()
    buffers = {
        name: each
        for name, each in module.named_buffers()
        if encoder.in_image_tower(name) and each.is_floating_point()
    }
    asked = [(each, each.requires_grad) for each in module.parameters()]
    place, dtype = encoder.device, encoder.dtype
    came = {name: each.detach().to("cpu", copy=True) for name, each in (trained | buffers).items()}
    try:
        wide = torch.promote_types(dtype, torch.float32)
        if (place, dtype) != (device, wide):  # else what was compiled is kept
            encoder.to(device, wide)
        for each in module.parameters():
            each.requires_grad_(False)
        for each in trained.values():
            each.requires_grad_()
        yield trained, buffers
    except BaseException:
        if encoder.dtype != dtype:
            encoder.to(dtype=dtype)
        with torch.no_grad():
            for name, value in came.items():
                (trained | buffers)[name].copy_(value)
        raise
    finally:
        for each, before in asked:
            each.grad = None
            each.requires_grad_(before)
        module.eval()
        if encoder.device != place:
            encoder.to(place)
