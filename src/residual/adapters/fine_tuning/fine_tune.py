"""Fine-tuning, the baseline that changes all weights of an encoder's image tower; on Lightning, which
(`pip install 'residual-vit[training]'`) the first call loads.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from residual.adapters.adapter import check_choice
from residual.adapters.early_stopping import FitResult
from residual.adapters.fine_tuning.log import LOGGERS
from residual.adapters.fine_tuning.pictures import (
    check_pictures,
    digest_of_classifier,
    digest_of_pictures,
    read_pictures,
)
from residual.adapters.fit_settings import TrainSettings
from residual.adapters.matching import check_classes
from residual.data import ImageDataset
from residual.devices import find_device
from residual.encoders.changes import EncoderLike, checked_encoder
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.libraries import library
from residual.outputs import check_folder
from residual.products import TRAINING
from residual.progress import Progress
from residual.text.classifier import ZeroShotClassifier


def fine_tune(
    encoder: EncoderLike,
    train: ImageDataset,
    val: ImageDataset,
    classifier: ZeroShotClassifier,
    settings: TrainSettings | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    logger: str | None = None,
    overwrite: bool = False,
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
        settings: by default the paper's.
        folder: for checkpoints (`checkpoint.safetensors`, in the end `finished.safetensors`) and the log.
        logger: "csv", "tensorboard" or "wandb", into the folder; None for none.
        overwrite: whether checkpoints of another training in the folder are replaced.
        device: by default the GPU if there is one, else the CPU; the encoder is brought back afterwards.
        workers: processes that read pictures, see `encode_dataset`.
        progress: called with the number of epochs done and their greatest number, after every epoch.

    Raises:
        UnreadableImageError: names the sample.
        ForeignError: the folder holds something else.
        ResidualError: Lightning or the logger isn't installed; encoder, classifier, classes and labels don't
            belong together, or a class has no training sample, before any work; pixels that aren't finite; a
            checkpoint of something else in the folder; or the loss stops being finite.
    """
    settings, encoder = settings or TrainSettings(), checked_encoder(encoder)
    place = None if folder is None else check_folder(Path(folder), TRAINING)
    check_installed("fine_tune", logger)
    if logger is not None and folder is None:
        raise ResidualError(f"A logger writes into the folder of the training: say folder=, got {logger!r}.")
    where = find_device(device)
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", torch.cuda.current_device())
    if settings.precision == "16-mixed" and where.type == "cpu":
        raise ResidualError('A CPU doesn\'t train in "16-mixed": say precision="bf16-mixed" there.')
    datasets = [(train, "training"), (val, "validation")]
    for dataset, what in datasets:
        check_pictures(encoder, dataset, classifier, what)
    if settings.missing == "raise":
        check_classes(train.labels, classifier.class_names)
    identity = {name: str(value) for name, value in settings.noted(encoder).items()} | {
        "classifier": digest_of_classifier(classifier),
        "encoder": encoder.fingerprint,
        "training dataset": digest_of_pictures(train),
        "validation dataset": digest_of_pictures(val),
    }
    from residual.adapters.fine_tuning import loop

    with _borrowed(encoder, where) as (trained, buffers):
        pictures = partial(read_pictures, encoder, datasets, workers)
        work = loop.Work(encoder, trained, buffers, pictures, classifier.to(where), identity)
        return loop.run(work, settings, place, logger, progress, overwrite)


def check_installed(name: str, logger: str | None = None) -> None:
    """Find out before any work whether Lightning and schedulefree are there, and what a logger needs.

    Raises:
        ResidualError: it isn't, and how to install it; or an unknown logger.
    """
    for needed in ("lightning", "schedulefree"):
        library(needed, name, extra="training")
    if logger is not None:
        check_choice("logger", logger, LOGGERS)
        if logger != "csv":
            library(logger, f'logger="{logger}"', extra="logging")


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
