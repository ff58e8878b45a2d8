"""Training on a GPU: where samples lie, half precision, going on after a break, what is left as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import tuned

from residual.adapters import fine_tune
from residual.adapters.fine_tuning import pictures

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def tune(settings=tuned.FAST, dropout=0.0, **how):
    encoder = tuned.encoder(dropout)
    data = tuned.pictures(160), tuned.pictures(48, "val")
    result = fine_tune(encoder, *data, tuned.classifier(), settings, workers=0, **how)
    return tuned.weights_of(encoder), result


def test_the_gpu_is_used_and_the_encoder_brought_back():
    before = torch.cuda.get_rng_state(), torch.cuda.current_device()
    torch.cuda.reset_peak_memory_stats()
    weights, result = tune(dropout=0.3)
    assert torch.cuda.max_memory_allocated() > 1_000_000
    assert all(not value.is_cuda for value in weights.values())
    assert result.val_accuracy > 0.6
    assert torch.equal(torch.cuda.get_rng_state(), before[0])
    assert torch.cuda.current_device() == before[1]


def test_like_on_a_cpu():
    """Not to the bit: convolutions round to TF32 there, and Adam amplifies what small gradients differ by."""
    settings = replace(tuned.FAST, epochs=1)
    (_, on_gpu), (_, on_cpu) = tune(settings), tune(settings, device="cpu")
    assert on_gpu.history[0].train_loss == pytest.approx(on_cpu.history[0].train_loss, rel=0.05)


def test_samples_that_do_not_fit_are_brought_batch_by_batch(monkeypatch):
    whole, _ = tune()
    monkeypatch.setattr(pictures, "_FREE", 0.0)
    by_batch, _ = tune()
    monkeypatch.setattr(pictures, "IN_MEMORY", 0)
    from_disk, _ = tune()
    assert tuned.same(whole, by_batch)
    assert tuned.same(whole, from_disk)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_goes_on_where_it_was_stopped(tmp_path, precision):
    settings = replace(tuned.FAST, precision=precision, clip=1.0)
    expected, result = tune(settings, dropout=0.2)
    assert result.val_accuracy > 0.6

    def progress(_, done, total):
        if done == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        tune(settings, dropout=0.2, folder=tmp_path, progress=progress)
    weights, again = tune(settings, dropout=0.2, folder=tmp_path)
    assert again.history == result.history
    assert tuned.same(weights, expected)
