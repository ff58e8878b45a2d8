"""Batches in portions, and blocks that are run again, give the same numbers in the memory that there is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import tuned
from families import CASES
from torch import nn

from residual.adapters import TrainSettings, fine_tune
from residual.adapters.fine_tuning import gradients
from residual.adapters.fine_tuning.memory import Cost, Gauge, Portions, choose, kept_bytes, run_again
from residual.data import PixelDataset
from residual.devices import free_memory
from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError
from residual.tensor_files import load_tensors, save_tensors

COSTS = {False: Cost(100, 10), True: Cost(50, 1)}
SMALL = replace(tuned.FAST, epochs=2, batch_size=10)  # of 24 pictures: the last batch is short


@pytest.fixture
def memory(monkeypatch):
    """Sets how many bytes are free."""
    return lambda free: monkeypatch.setattr(gradients, "free_memory", lambda device: free)


def tune(encoder=None, settings=SMALL, n=24, **how):
    encoder = encoder or tuned.encoder(dtype=torch.float64)
    data = tuned.pictures(n), tuned.pictures(12, "val")
    result = fine_tune(encoder, *data, tuned.classifier(), settings, device="cpu", **how)
    return tuned.weights_of(encoder), result


def near(weights, others):
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("room", "how", "expected"),
    [
        (1380, {}, Portions(128, False, 1380)),
        (1379, {}, Portions(64, False, 740)),  # twice 64, not 127 and 1
        (180, {}, Portions(8, False, 180)),
        (179, {}, Portions(128, True, 178)),
        (100, {}, Portions(43, True, 93)),
        (0, {}, Portions(1, True, 51)),
        (1379, {"whole": True}, Portions(128, True, 178)),
        (179, {"whole": True, "micro_batch": 5}, Portions(5, False, 150)),
        (177, {"whole": True}, Portions(64, True, 114)),
        (9999, {"micro_batch": 500}, Portions(128, False, 1380)),
        (9999, {"micro_batch": 48}, Portions(48, False, 580)),
        (570, {"micro_batch": 48}, Portions(48, True, 98)),
        (0, {"micro_batch": 48}, Portions(48, True, 98)),
        (9999, {"before": Portions(12)}, Portions(12, False, 220)),
        (9999, {"before": Portions(12, True)}, Portions(12, True, 62)),
        (200, {"before": Portions(12)}, Portions(10, False, 200)),
        (9999, {"before": Portions(12), "micro_batch": 16}, Portions(16, False, 260)),
    ],
)
def test_the_choice_follows_from_bytes(room, how, expected):
    assert choose(128, room, COSTS.__getitem__, **how) == expected


def test_smaller_portions_go_down_to_one_picture_whose_blocks_are_run_again():
    def way(portions, whole=False):
        while portions is not None:
            yield portions.micro_batch, portions.checkpointing
            portions = portions.smaller(whole)

    assert list(way(Portions(30))) == [
        *[(30, False), (15, False), (8, False)],
        *[(8, True), (4, True), (2, True), (1, True)],
    ]
    assert list(way(Portions(3), whole=True)) == [(3, False), (3, True), (2, True), (1, True)]


def test_what_is_kept_for_the_way_back_is_counted():
    x = torch.randn(5, 4, dtype=torch.float64)
    block = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2), nn.ReLU()).double()
    own = {each.data_ptr() for each in block.parameters()}
    assert kept_bytes(lambda: block(x).sum(), own) == 8 * 5 * (4 + 8 + 2)  # the ReLU's is the layer's, once
    with run_again([block]):
        assert kept_bytes(lambda: block(x).sum(), own) == 8 * 5 * 4
    assert "forward" not in vars(block)


def test_a_few_pictures_tell_of_many():
    encoder = tuned.encoder()
    blocks = [each.block for each in encoder.parts.blocks]
    weights = list(encoder.image_parameters().values())
    pixels = torch.randn(1, 3, 32, 32)

    def loss(pictures):
        return encoder.run("image", pixels.expand(pictures, -1, -1, -1)).sum()

    gauge = Gauge(encoder.module, blocks, weights, loss)
    plain, again = gauge.cost(False), gauge.cost(True)
    assert not gauge.draws()
    own = {each.untyped_storage().data_ptr() for each in encoder.module.parameters()}
    kept = kept_bytes(lambda: loss(16), own)
    assert kept < plain.of(16) < 1.6 * kept  # and what one block of two keeps
    with run_again(blocks):
        kept = kept_bytes(lambda: loss(16), own)
    assert kept < again.of(16)
    assert kept < plain.of(16) / 4
    assert all(each.grad is None for each in weights)


@pytest.mark.parametrize("name", ["blip", "clip", "open_clip", "vit"])
def test_portions_and_blocks_run_again_change_no_number(name, memory):
    def run(free, micro_batch=None):
        memory(free)
        encoder = wrap_encoder(CASES[name].make().double(), name="tiny")
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(21, 3, *encoder.image_size, generator=generator, dtype=torch.float64)
        data = PixelDataset(pixels, np.arange(21) % 3, list("abc"))
        directions = torch.randn(3, encoder.output_dim, generator=generator)
        classifier = tuned.ZeroShotClassifier(directions, data.class_names)
        settings = TrainSettings(1e-3, 8, epochs=2, micro_batch=micro_batch)
        result = fine_tune(encoder, data, data, classifier, settings, device="cpu")
        return tuned.weights_of(encoder), result.portions

    whole, portions = run(10**12)
    assert (portions["micro_batch"], portions["checkpointing"]) == (8, False)
    for free, micro_batch, size, again in ((10**12, 3, 3, False), (1, 8, 8, True), (1, None, 1, True)):
        weights, portions = run(free, micro_batch)
        assert (portions["micro_batch"], portions["checkpointing"]) == (size, again)
        near(weights, whole)


def test_dropout_is_the_same_in_blocks_run_again(memory):
    settings = replace(SMALL, micro_batch=10)
    whole, _ = tune(tuned.encoder(dropout=0.3), settings)
    memory(1)
    encoder, told = tuned.encoder(dropout=0.3).compile(lambda function: function), []
    again, result = tune(encoder, settings, progress=lambda stage, *_: told.append(stage))
    assert result.portions["checkpointing"]
    assert told[0] == "fine-tune, 10 at a time, blocks run again, not compiled"
    assert tuned.same(again, whole)


def test_mixed_precision_in_portions(memory):
    settings = replace(SMALL, precision="bf16-mixed", epochs=1)
    _, whole = tune(tuned.encoder(), settings)
    memory(1)
    _, result = tune(tuned.encoder(), replace(settings, micro_batch=5))
    assert result.portions == {**result.portions, "micro_batch": 5, "checkpointing": True}
    assert result.history[0].val_loss == pytest.approx(whole.history[0].val_loss, rel=0.02)


class Machine:
    """Has memory for so many pictures at a time."""

    def __init__(self, encoder, pictures):
        self.pictures, self.asked = pictures, []
        encoder.module.vision_model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module, args, kwargs):
        self.asked.append(len(kwargs["pixel_values"]))
        if torch.is_grad_enabled() and self.asked[-1] > self.pictures:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_where_memory_runs_out_the_same_batch_is_tried_in_smaller_portions():
    whole, _ = tune()
    encoder, seen = tuned.encoder(dtype=torch.float64), []
    machine = Machine(encoder, 3)
    weights, result = tune(encoder, progress=lambda *told: seen.append(told))
    near(weights, whole)
    assert result.portions == {"micro_batch": 3, "checkpointing": True, "estimated_bytes": 0}
    assert machine.asked[2:8] == [10, 5, 5, 3, 3, 3]  # after two that were measured
    assert seen == [
        ("fine-tune, 5 at a time", 0, 2),
        ("fine-tune, 5 at a time, blocks run again", 0, 2),
        ("fine-tune, 3 at a time, blocks run again", 0, 2),
        ("fine-tune, 3 at a time, blocks run again", 1, 2),
        ("fine-tune, 3 at a time, blocks run again", 2, 2),
    ]


def test_where_one_picture_is_too_many_nothing_is_lost(tmp_path):
    whole, _ = tune(settings=replace(SMALL, epochs=3))
    encoder = tuned.encoder(dtype=torch.float64)
    machine, before = Machine(encoder, 99), tuned.weights_of(encoder)

    def smaller(*_):
        machine.pictures = 0

    with pytest.raises(
        ResidualError,
        match=r"with 1 at a time, blocks run again \(CUDA out .* last checkpoint",
    ):
        tune(encoder, replace(SMALL, epochs=3), folder=tmp_path, progress=smaller)
    assert tuned.same(tuned.weights_of(encoder), before)
    weights, result = tune(settings=replace(SMALL, epochs=3), folder=tmp_path)
    assert len(result.history) == 3
    near(weights, whole)


@pytest.mark.parametrize(("micro_batch", "told"), [(None, ""), (6, "(4 at a time before)")])
def test_goes_on_in_the_portions_that_it_began_with_or_in_others_that_are_asked_for(
    tmp_path, micro_batch, told
):
    settings = replace(SMALL, epochs=3, micro_batch=4)
    whole, _ = tune(settings=settings)

    def stop(_, done, total):
        if done == 1:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        tune(settings=settings, folder=tmp_path, progress=stop)
    seen = []
    weights, result = tune(
        settings=replace(settings, micro_batch=micro_batch),
        folder=tmp_path,
        progress=lambda stage, *_: seen.append(stage),
    )
    near(weights, whole)
    assert result.portions["micro_batch"] == (micro_batch or 4)
    assert tuned.same(weights, whole) == (micro_batch is None)
    assert all(stage.endswith(told) and stage.startswith("fine-tune, ") for stage in seen)
    assert tune(folder=tmp_path, settings=settings)[1].portions == result.portions  # it was finished


def test_a_checkpoint_without_portions_opens(tmp_path):
    whole, _ = tune()

    def stop(*_):
        raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        tune(folder=tmp_path, progress=stop)
    path = tmp_path / "checkpoint.safetensors"
    tensors, note = load_tensors(path, "checkpoint")
    save_tensors(path, "checkpoint", tensors, note | {"portions": {"micro_batch": "x"}})
    with pytest.raises(ResidualError, match=r"isn't whole \(its portions.*\): remove it to start anew"):
        tune(folder=tmp_path)
    save_tensors(path, "checkpoint", tensors, {key: each for key, each in note.items() if key != "portions"})
    assert tuned.same(tune(folder=tmp_path)[0], whole)


def test_where_batches_are_normed_there_are_no_portions(memory):
    memory(1)
    encoder = tuned.encoder()
    encoder.module.vision_model.extra = nn.BatchNorm1d(3)
    with pytest.raises(ResidualError, match=r"norms whole batches \(in 'vision_model.extra'\)"):
        tune(encoder, replace(SMALL, micro_batch=5))
    assert tune(encoder)[1].portions["micro_batch"] == 10
    Machine(encoder, 1)
    with pytest.raises(ResidualError, match=r"Memory ran out in fine-tuning tiny with 10 at a time \("):
        tune(encoder)


def test_batches_are_the_papers():
    assert TrainSettings().batch_of(wrap_encoder(CASES["blip"].make())) == 32
    assert TrainSettings().batch_of(tuned.encoder()) == 128
    assert TrainSettings(batch_size=7).batch_of(tuned.encoder()) == 7


def test_free_memory_is_told():
    assert (free_memory(torch.device("cpu")) or 1) > 0
    assert free_memory(torch.device("meta")) is None
