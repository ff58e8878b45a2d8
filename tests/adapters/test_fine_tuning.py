"""Fine-tuning beats its start, changes only what it should, goes on after a break, and refuses mismatches."""

from __future__ import annotations

import csv
import logging
import math
import os
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import tuned
from families import CASES, IMAGE
from schedulefree import AdamWScheduleFree
from tiny import TinyImages
from torch.nn.functional import cross_entropy

from residual.adapters import AdaptedEncoder, TrainSettings, fine_tune
from residual.adapters.fine_tuning import loop, pictures
from residual.data import PixelDataset
from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError, UnreadableImageError
from residual.tensor_files import load_tensors, save_tensors


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny models gain nothing by more, and these tests may run beside others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tune(encoder=None, settings=tuned.FAST, n=64, **how):
    """Fine-tune a tiny CLIP on the planted task; the encoder and the result."""
    encoder = encoder or tuned.encoder()
    given = {"train": tuned.pictures(n), "val": tuned.pictures(48, "val"), "classifier": tuned.classifier()}
    given |= {name: how.pop(name) for name in list(given) if name in how}
    return encoder, fine_tune(encoder, *given.values(), settings, device="cpu", **how)


# Fine-tuning


def test_fine_tuning_beats_its_start_and_changes_the_image_tower_only():
    encoder, test = tuned.encoder(), tuned.pictures(100, "test")
    asked = [parameter.requires_grad for parameter in encoder.module.parameters()]
    encoder.module.logit_scale.requires_grad_(False)
    asked = [parameter.requires_grad for parameter in encoder.module.parameters()]
    before, print_before = tuned.weights_of(encoder), encoder.fingerprint
    text = encoder.module.get_text_features(input_ids=torch.arange(6)[None]).pooler_output
    zero_shot, seen = tuned.accuracy(encoder, test), []
    tune(encoder, n=160, progress=lambda _, *done: seen.append(done))
    after = tuned.weights_of(encoder)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    image = {name for name in after if name.startswith(("vision_model.", "visual_projection."))}
    assert changed == image - {"vision_model.embeddings.position_ids"}
    assert torch.equal(encoder.module.get_text_features(input_ids=torch.arange(6)[None]).pooler_output, text)
    assert tuned.accuracy(encoder, test) > zero_shot + 0.3
    assert seen == [(number, 6) for number in range(1, 7)]
    assert not any(module.training for module in encoder.module.modules())
    assert [parameter.requires_grad for parameter in encoder.module.parameters()] == asked
    assert all(parameter.grad is None for parameter in encoder.module.parameters())
    assert encoder.fingerprint != print_before


def test_the_encoder_holds_the_best_epoch():
    encoder, result = tune(settings=replace(tuned.FAST, learning_rate=0.02))
    best = max(result.history, key=lambda epoch: (epoch.val_accuracy, -epoch.val_loss))
    assert (result.best_epoch, result.val_accuracy) == (best.epoch, best.val_accuracy)
    val = tuned.pictures(48, "val")
    assert tuned.accuracy(encoder, val) == best.val_accuracy
    with torch.no_grad():
        logits = tuned.classifier().logits(encoder.encode_image(tuned.pixels(val, encoder).pixels))
    loss = cross_entropy(logits, torch.from_numpy(val.labels)).item()
    assert loss == pytest.approx(best.val_loss, rel=1e-5)


def test_stops_when_validation_gets_no_better():
    val = tuned.shuffled(tuned.pictures(48, "val"))
    encoder, result = tune(settings=replace(tuned.FAST, patience=2, epochs=30), val=val)
    first = [epoch.val_accuracy for epoch in result.history].index(result.val_accuracy) + 1
    assert len(result.history) == first + 2
    assert tuned.accuracy(encoder, val) == result.val_accuracy


def test_the_same_steps_as_a_plain_loop():
    settings = replace(tuned.FAST, epochs=2, clip=0.5)
    encoder, _ = tune(settings=settings)
    plain, data = tuned.encoder(), tuned.pictures()
    val = tuned.pixels(tuned.pictures(48, "val"), plain).pixels
    pixels, labels = tuned.pixels(data, plain).pixels, torch.from_numpy(data.labels)
    image = [
        value
        for name, value in plain.module.named_parameters()
        if name.startswith(("vision_model.", "visual_projection."))
    ]
    optimizer, order = AdamWScheduleFree(image, lr=settings.learning_rate), torch.Generator().manual_seed(0)
    for _ in range(2):
        optimizer.train()
        for picked in torch.randperm(64, generator=order).split(16):
            optimizer.zero_grad()
            output = plain.encode_image(pixels[picked])
            cross_entropy(tuned.classifier().logits(output), labels[picked]).backward()
            torch.nn.utils.clip_grad_norm_(image, 0.5)
            optimizer.step()
        optimizer.eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode_image(val), plain.encode_image(val), rtol=1e-3, atol=1e-4)


def test_one_seed_gives_one_result_and_leaves_random_numbers_alone():
    results, weights = [], []
    for seed in (0, 0, 1):
        encoder = tuned.encoder(dropout=0.3)
        torch.manual_seed(5 + len(results))
        expected = torch.random.get_rng_state()
        _, result = tune(encoder, replace(tuned.FAST, seed=seed, epochs=2))
        assert torch.equal(torch.random.get_rng_state(), expected)
        results.append(result.history)
        weights.append(tuned.weights_of(encoder))
    assert tuned.same(weights[0], weights[1])
    assert results[0] == results[1]
    assert not tuned.same(weights[0], weights[2])


def test_gradients_are_clipped(monkeypatch):
    norms = []
    step = AdamWScheduleFree.step

    def watched(self, *args):
        gradients = [each.grad.norm() for group in self.param_groups for each in group["params"]]
        norms.append(torch.stack(gradients).norm().item())
        return step(self, *args)

    monkeypatch.setattr(AdamWScheduleFree, "step", watched)
    for clip in (0.0, 0.25):
        tune(settings=replace(tuned.FAST, clip=clip, epochs=1))
    assert min(norms[:4]) > 0.3
    assert max(norms[4:]) == pytest.approx(0.25, rel=1e-3)


def test_mixed_precision_on_a_cpu():
    dtypes = set()
    encoder = tuned.encoder()
    encoder.module.visual_projection.register_forward_hook(
        lambda module, given, output: dtypes.add((module.weight.dtype, output.dtype))
    )
    start = tuned.accuracy(encoder, tuned.pictures(48, "val"))
    dtypes.clear()
    _, result = tune(encoder, replace(tuned.FAST, precision="bf16-mixed"))
    assert dtypes == {(torch.float32, torch.bfloat16)}
    assert result.val_accuracy > start + 0.2
    with pytest.raises(ResidualError, match='CPU doesn\'t train in "16-mixed": say precision="bf16-mixed"'):
        tune(encoder, replace(tuned.FAST, precision="16-mixed"))


def test_an_encoder_in_half_precision_is_trained_in_single():
    encoder = tuned.encoder(dtype=torch.bfloat16)
    text = encoder.module.text_projection.weight.clone()
    _, result = tune(encoder)
    assert encoder.dtype == torch.float32
    assert tuned.accuracy(encoder, tuned.pictures(48, "val")) == result.val_accuracy
    assert torch.equal(encoder.module.text_projection.weight, text.float())


def test_adamw_with_warm_up_and_cosine(monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def watched(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    tune(settings=replace(tuned.FAST, optimizer="adamw", epochs=5, warmup=0.2))
    assert rates[:4] == pytest.approx([0.25 * 2e-3 * step for step in (1, 2, 3, 4)])
    falling = [1e-3 * (1 + math.cos(math.pi * step / 16)) for step in range(16)]
    assert rates[4:] == pytest.approx(falling)


def test_pixels_images_and_pictures_read_in_every_epoch_are_the_same(monkeypatch):
    settings = replace(tuned.FAST, epochs=2)
    in_memory, _ = tune(settings=settings)
    like = tuned.encoder()
    given = {
        "train": tuned.pixels(tuned.pictures(), like),
        "val": tuned.pixels(tuned.pictures(48, "val"), like),
    }
    from_pixels, _ = tune(settings=settings, **given)
    monkeypatch.setattr(pictures, "IN_MEMORY", 0)
    from_disk, _ = tune(settings=settings)
    with_workers, _ = tune(settings=settings, workers=1)
    for other in (from_pixels, from_disk, with_workers):
        assert tuned.same(tuned.weights_of(in_memory), tuned.weights_of(other))


def test_a_compiled_encoder_is_compiled_once():
    encoder, made = tuned.encoder(), []

    def compiler(function):
        made.append(function)
        return function

    encoder.compile(compiler)
    tune(encoder, replace(tuned.FAST, epochs=1))
    tune(encoder, replace(tuned.FAST, epochs=1))
    assert len(made) == 1


def test_a_second_training_goes_on_from_the_first():
    encoder, one = tune(settings=replace(tuned.FAST, epochs=2))
    _, other = tune(encoder, replace(tuned.FAST, epochs=2))
    assert other.history[0].train_loss < one.history[-1].train_loss


# Checkpoints


class StopError(Exception):
    pass


def stopping(after):
    def progress(_, done, total):
        if done == after:
            raise StopError("enough")

    return progress


def test_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    whole, expected = tune(tuned.encoder(dropout=0.3))
    seen = []
    for module, name in ((torch, "load"), (torch, "save")):
        monkeypatch.setattr(module, name, lambda *args, **kwargs: pytest.fail("pickle"))
    for after in (1, 2, 4):
        encoder = tuned.encoder(dropout=0.3)
        before = tuned.weights_of(encoder)
        with pytest.raises(StopError, match="enough"):
            tune(encoder, folder=tmp_path, progress=stopping(after))
        assert tuned.same(tuned.weights_of(encoder), before)
        assert not any(module.training for module in encoder.module.modules())
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    encoder, result = tune(
        tuned.encoder(dropout=0.3), folder=tmp_path, progress=lambda _, done, total: seen.append(done)
    )
    assert seen == [5, 6]
    assert result.history == expected.history
    assert tuned.same(tuned.weights_of(encoder), tuned.weights_of(whole))
    assert [path.name for path in tmp_path.iterdir()] == ["finished.safetensors"]


def test_a_finished_training_is_only_read(tmp_path, monkeypatch):
    _, expected = tune(folder=tmp_path)
    monkeypatch.setattr(loop.Training, "epoch", lambda *args: pytest.fail("trained again"))
    monkeypatch.setattr(TinyImages, "load", lambda *args: pytest.fail("read again"))
    monkeypatch.setattr(os, "replace", lambda *args: pytest.fail("written again"))
    encoder, result = tune(folder=tmp_path)
    assert (result.history, result.best_epoch) == (expected.history, expected.best_epoch)
    monkeypatch.undo()
    assert tuned.accuracy(encoder, tuned.pictures(48, "val")) == result.val_accuracy


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("optimizer", ["schedule_free", "adamw"])
def test_goes_on_inside_of_an_epoch(tmp_path, monkeypatch, where, optimizer):
    """Stopped in the middle of a pass, at another batch each time."""
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    if where == "disk":
        monkeypatch.setattr(pictures, "IN_MEMORY", 0)
    settings = replace(tuned.FAST, epochs=2, optimizer=optimizer)
    whole, expected = tune(tuned.encoder(dropout=0.3), settings)
    step = loop.Training._step
    for after in (3, 2, 1):
        done = []

        def breaking(self, pixels, labels, done=done, after=after):
            if len(done) == after:
                raise StopError("in the middle")
            done.append(step(self, pixels, labels))

        monkeypatch.setattr(loop.Training, "_step", breaking)
        with pytest.raises(StopError, match="in the middle"):
            tune(tuned.encoder(dropout=0.3), settings, folder=tmp_path)
    monkeypatch.setattr(loop.Training, "_step", step)
    encoder, result = tune(tuned.encoder(dropout=0.3), settings, folder=tmp_path)
    assert result.history == expected.history
    assert tuned.same(tuned.weights_of(encoder), tuned.weights_of(whole))


@pytest.mark.parametrize("end", [True, False])
def test_a_checkpoint_of_something_else_is_refused_by_name(tmp_path, end):
    try:
        tune(folder=tmp_path, progress=None if end else stopping(1))
    except StopError:
        assert not end

    def refused(message, **change):
        with pytest.raises(ResidualError, match=rf"is of another {message}: give another folder, or remove"):
            tune(folder=tmp_path, **change)

    refused(r"epochs \(6, not 7\)", settings=replace(tuned.FAST, epochs=7))
    refused(
        r"learning_rate \(0.002, not 0.001\), another seed \(0, not 1\)",
        settings=replace(tuned.FAST, learning_rate=1e-3, seed=1),
    )
    refused("training dataset", n=63)
    refused("validation dataset", val=tuned.shuffled(tuned.pictures(48, "val")))
    mine = tuned.classifier()
    refused("classifier", classifier=tuned.ZeroShotClassifier(mine.weights, mine.class_names, 50))
    refused("encoder", encoder=tuned.tiny_encoder(seed=1, dtype=torch.float32, layers=2))


def test_what_is_no_checkpoint_of_today_is_named(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ResidualError, match=r"checkpoint.safetensors.: it is no place for a training"):
        tune(folder=tmp_path)
    save_tensors(path, "adapter", {}, {})
    with pytest.raises(ResidualError, match=r"checkpoint.safetensors.: it is no place for a training"):
        tune(folder=tmp_path)
    for note in ({"holds": {"dict": []}}, {"identity": "x"}):  # the first as 0.1.0 wrote them
        save_tensors(path, "checkpoint", {}, note)
        with pytest.raises(
            ResidualError, match=r"is of an older kind: remove it to start anew, or go on with"
        ):
            tune(folder=tmp_path)
    path.unlink()
    with pytest.raises(StopError, match="enough"):
        tune(folder=tmp_path, progress=stopping(1))
    tensors, note = load_tensors(path, "checkpoint")
    for wrong in (
        {"step": "x"},
        {"number": 1.5},
        {"history": [{"epoch": 1}]},
        {"groups": 3},
        {"groups": [{**note["groups"][0], "betas": [0.9]}]},
        {"precision": []},
    ):
        save_tensors(path, "checkpoint", tensors, note | wrong)
        with pytest.raises(ResidualError, match=r"checkpoint.safetensors' isn't whole \(.*\): remove it to"):
            tune(folder=tmp_path)
    for lacks in ("state/vision_model.pre_layrnorm.bias", "total", "history", "groups"):
        few = {name: value for name, value in tensors.items() if not name.startswith(lacks)}
        save_tensors(path, "checkpoint", few, {name: each for name, each in note.items() if name != lacks})
        with pytest.raises(ResidualError, match=r"checkpoint.safetensors' isn't whole \(.*\): remove it to"):
            tune(folder=tmp_path)
    path.unlink()
    (tmp_path / "file").write_text("")
    with pytest.raises(ResidualError, match=r"file' can't be written: it is a file"):
        tune(folder=tmp_path / "file")


def test_a_checkpoint_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    encoder = tuned.encoder()
    before = tuned.weights_of(encoder)
    with pytest.raises(ResidualError, match=r"checkpoint.safetensors' can't be written: the disk is full"):
        tune(encoder, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert tuned.same(tuned.weights_of(encoder), before)


def test_what_a_killed_process_began_to_write_is_swept(tmp_path):
    settings = replace(tuned.FAST, epochs=2)
    with pytest.raises(StopError, match="enough"):
        tune(folder=tmp_path, settings=settings, progress=stopping(1))
    (tmp_path / ".checkpoint.safetensors.abc123.partial").write_bytes(b"half")
    (tmp_path / "mine.txt").write_text("stays")
    tune(folder=tmp_path, settings=settings)
    assert {path.name for path in tmp_path.iterdir()} == {"finished.safetensors", "mine.txt"}


# Loggers


def test_csv_has_every_epoch_also_after_a_break(tmp_path):
    with pytest.raises(StopError, match="enough"):
        tune(folder=tmp_path, logger="csv", progress=stopping(2))
    _, result = tune(folder=tmp_path, logger="csv")
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    for row, epoch in zip(rows, result.history, strict=True):
        assert float(row["val_accuracy"]) == epoch.val_accuracy
        assert float(row["train_loss"]) == epoch.train_loss


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, result = tune(folder=tmp_path, logger="tensorboard")
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    told = {event.step: event.value for event in read.Scalars("val_accuracy")}
    assert told == pytest.approx({epoch.epoch: epoch.val_accuracy for epoch in result.history})
    assert read.Scalars("best/val_accuracy")[0].value == pytest.approx(result.val_accuracy)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert ".safetensors" in kinds
    assert not kinds & {".ckpt", ".pt", ".pth", ".pkl"}


def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    tune(folder=tmp_path / "run", logger="wandb", settings=replace(tuned.FAST, epochs=2))
    assert wandb.run is None
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))


def test_nothing_of_lightning_outlasts_the_call(tmp_path, capfd):
    names = ("lightning", "lightning.fabric", "lightning.pytorch")
    tune(settings=replace(tuned.FAST, epochs=1))  # importing Lightning sets its own levels
    capfd.readouterr()
    before = [logging.getLogger(name).level for name in names], list(warnings.filters)
    tune(settings=replace(tuned.FAST, epochs=1, precision="bf16-mixed"), folder=tmp_path, logger="csv")
    assert ([logging.getLogger(name).level for name in names], list(warnings.filters)) == before
    assert "".join(capfd.readouterr()) == ""


# What is refused


def test_mismatches_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(TinyImages, "load", lambda *args: pytest.fail("read"))
    encoder = tuned.encoder()
    before = tuned.weights_of(encoder)

    def refused(message, **change):
        with pytest.raises(ResidualError, match=message):
            tune(encoder, **change)

    refused("There are no training samples", train=tuned.pictures(0))
    refused("There are no validation samples", val=tuned.pictures(0, "val"))
    five = tuned.pictures(classes=5)
    refused("classes of tiny/train aren't the classifier's: 5 against 4. Make the classifier", train=five)
    named = tuned.pictures(48, "val")
    named.class_names = ("class 0", "other", "class 2", "class 3")
    refused("classes of tiny/val aren't .* class 1 is 'other' against 'class 1'", val=named)
    wrong = tuned.pictures()
    wrong.labels = wrong.labels + 1
    refused("training labels go from 1 to 4, the classifier has 4 classes", train=wrong)
    few = tuned.pictures()
    few.labels = np.where(few.labels == 2, 1, few.labels)
    refused("No training samples of class 2", train=few)
    mine = tuned.classifier()
    wide = tuned.ZeroShotClassifier(torch.eye(13)[:4], mine.class_names)
    refused("output of tiny has width 12, the classifier 13", classifier=wide)
    other = tuned.ZeroShotClassifier(mine.weights, mine.class_names, fingerprint="f" * 64)
    refused(r"classifier is of another encoder \(weights ffffffff\) than tiny", classifier=other)
    refused("logger is 'csv' or 'tensorboard' or 'wandb', got 'mlflow'", logger="mlflow")
    refused("A logger writes into the folder of the training: say folder=", logger="csv")
    assert tuned.same(tuned.weights_of(encoder), before)
    monkeypatch.undo()
    tune(encoder, replace(tuned.FAST, epochs=1, missing="ignore"), train=few)


@pytest.mark.parametrize("in_memory", [True, False])
def test_pixels_must_be_finite_and_pictures_readable(in_memory, monkeypatch):
    if not in_memory:
        monkeypatch.setattr(pictures, "IN_MEMORY", 0)
    encoder = tuned.encoder()
    before = tuned.weights_of(encoder)
    with pytest.raises(UnreadableImageError, match="'tiny/7' can't be read"):
        tune(encoder, train=tuned.pictures(broken=(7,)))
    preprocess = encoder.preprocess
    dark = np.asarray(tuned.pictures().images[9])
    encoder.preprocess = lambda image: (
        preprocess(image) * (float("nan") if np.array_equal(np.asarray(image), dark) else 1)
    )
    with pytest.raises(ResidualError, match="pixels of 'tiny/9' in tiny/train hold NaN"):
        tune(encoder)
    assert tuned.same(tuned.weights_of(encoder), before)


def test_pixel_datasets_are_checked(unchecked):
    encoder = tuned.encoder()
    good = tuned.pixels(tuned.pictures(), encoder)
    names, labels = good.class_names, good.labels
    broken = good.pixels.clone()
    broken[5, 0, 0, 0] = torch.inf
    with pytest.raises(ResidualError, match="pixels of '000005' in pixels/train hold NaN or infinity"):
        tune(encoder, train=PixelDataset(broken, labels, names))
    with pytest.raises(ResidualError, match="tiny takes images of 32 by 32 pixels, got 16 by 16"):
        tune(encoder, train=PixelDataset(good.pixels[:, :, :16, :16], labels, names))
    good.pixels = good.pixels[:63]
    with pytest.raises(ResidualError, match=r"64 labels but pixels of the shape \(63, 3"):
        tune(encoder, train=good)


def test_a_loss_that_is_not_finite_leaves_the_encoder_as_it_was():
    encoder = tuned.encoder()
    before = tuned.weights_of(encoder)
    with pytest.raises(ResidualError, match="no longer finite in epoch 1: try a smaller learning_rate"):
        tune(encoder, replace(tuned.FAST, learning_rate=1e38))
    assert tuned.same(tuned.weights_of(encoder), before)
    assert not any(module.training for module in encoder.module.modules())


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)  # after every step

    def spoil(stage, done, total):
        with torch.no_grad():
            encoder.module.visual_projection.weight[0, 0] = torch.inf

    encoder = tuned.encoder()
    with pytest.raises(ResidualError, match="no longer finite in epoch 2: try a smaller learning_rate"):
        tune(encoder, folder=tmp_path, progress=spoil)
    tensors, note = load_tensors(tmp_path / "checkpoint.safetensors", "checkpoint")
    assert (note["number"], note["step"]) == (2, 0)
    assert all(value.isfinite().all() for value in tensors.values())


def test_a_buffer_may_hold_infinity(tmp_path, monkeypatch):
    """As a mask of attention does; it is saved, and loaded, as it is."""
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    encoder, other = tuned.encoder(), tuned.encoder()
    for each in (encoder, other):
        each.module.vision_model.register_buffer("mask", torch.full((2, 2), -torch.inf))
    tune(encoder, replace(tuned.FAST, epochs=1), folder=tmp_path / "run")
    kept = load_tensors(tmp_path / "run" / "finished.safetensors", "checkpoint")[0]
    assert kept["best/vision_model.mask"].isinf().all()
    AdaptedEncoder(encoder, original=other.fingerprint).save_pretrained(tmp_path / "saved")
    loaded = AdaptedEncoder.from_pretrained(tmp_path / "saved", other)
    assert tuned.same(loaded.encoder.module.state_dict(), encoder.module.state_dict())


def test_settings_are_checked_where_they_are_made():
    for name in ("learning_rate", "batch_size", "epochs", "patience", "micro_batch"):
        with pytest.raises(ResidualError, match=rf"{name} takes a .* got 0\."):
            TrainSettings(**{name: 0})
    for name in ("clip", "weight_decay", "seed"):
        with pytest.raises(ResidualError, match=rf"{name} takes a .*, at least 0.* got -1\."):
            TrainSettings(**{name: -1})
    with pytest.raises(ResidualError, match="warmup takes a number, at least 0 and below 1; got 1"):
        TrainSettings(warmup=1)
    with pytest.raises(ResidualError, match=r"precision takes '32-true', .*; got '64-true'"):
        TrainSettings(precision="64-true")
    with pytest.raises(ResidualError, match="optimizer takes 'schedule_free' or 'adamw'; got 'sgd'"):
        TrainSettings(optimizer="sgd")
    assert TrainSettings() == TrainSettings(1e-5, None, 30, 5, 0, 1, "32-true")


def test_without_lightning_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(
        ResidualError, match=r"fine_tune needs lightning.*pip install 'residual-vit\[training\]'"
    ):
        tune()


@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_without_a_logger_the_way_out_is_said(monkeypatch, tmp_path, logger):
    monkeypatch.setitem(sys.modules, logger, None)
    with pytest.raises(ResidualError, match=rf"needs {logger}, .*pip install 'residual-vit\[logging\]'"):
        tune(folder=tmp_path, logger=logger)


def test_importing_loads_no_lightning():
    code = (
        "import sys, residual.adapters.fine_tuning as _; "
        "print([name for name in ('lightning', 'wandb', 'tensorboard', 'transformers', 'torchvision', "
        "'torch._dynamo', 'matplotlib') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("name", list(CASES))
def test_every_family_of_encoders_is_tuned(name, tmp_path):
    """All that its image output depends on, and nothing else; of every third, a break changes nothing."""

    def run(folder=None, progress=None):
        encoder = wrap_encoder(CASES[name].make().float(), name="tiny")
        size = encoder.image_size or (IMAGE, IMAGE)
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(24, 3, *size, generator=generator)
        data = PixelDataset(pixels, np.arange(24) % 3, list("abc"))
        classifier = tuned.ZeroShotClassifier(
            torch.randn(3, encoder.output_dim, generator=generator), data.class_names
        )
        before = dict(encoder.module.named_parameters())
        before = {key: value.detach().clone() for key, value in before.items()}
        settings = TrainSettings(learning_rate=1e-3, batch_size=8, epochs=2)
        fine_tune(encoder, data, data, classifier, settings, device="cpu", folder=folder, progress=progress)
        return encoder, before, pixels

    encoder, before, pixels = run()
    after = dict(encoder.module.named_parameters())
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    pixels = pixels[:1].clone().requires_grad_()
    encoder.encode_image(pixels).square().sum().backward()
    assert changed == {key for key, value in after.items() if value.grad is not None}
    if list(CASES).index(name) % 3 == 0:
        with pytest.raises(StopError, match="enough"):
            run(tmp_path, stopping(1))
        again, _, _ = run(tmp_path)
        assert tuned.same(tuned.weights_of(encoder), tuned.weights_of(again))
