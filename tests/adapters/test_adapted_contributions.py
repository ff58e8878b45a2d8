"""An adapted encoder wherever encoders are taken: its units contribute what the adapter makes of theirs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from families import CASES
from kit import adapters_of, bases_of, residual_of, tiny
from tiny import TinyImages, random_pixels

from residual import (
    AdaptedEncoder,
    ResiDual,
    decompose,
    encode_dataset,
    fit_bases,
    trace,
    wrap_encoder,
)
from residual.adapters import LinearMap
from residual.errors import OtherPoolingError, OtherResultError, ResidualError
from residual.tracing import Linearization

EXACT = {"rtol": 1e-9, "atol": 1e-9}
UNITS = ["1.0", "mlp.1", "emb"]


@pytest.mark.parametrize("name", ["tiny", "siglip", "timm beit"])  # a class token, an attention pool, a mean
@torch.no_grad()
def test_adapted_units_sum_to_the_adapted_output(name):
    encoder = tiny() if name == "tiny" else wrap_encoder(CASES[name].make().double())
    pixels, double = random_pixels(3), LinearMap(encoder.output_dim, 2 * torch.eye(encoder.output_dim))
    whole = decompose(encoder, pixels)
    for adapter in adapters_of(encoder)[slice(7) if name == "tiny" else slice(1, 7, 4)]:
        adapted = AdaptedEncoder(encoder, adapter)
        split, output = decompose(adapted, pixels), adapted.encode_image(pixels)
        torch.testing.assert_close(split.output[:, 0], output, **EXACT)
        torch.testing.assert_close(split.contributions.sum(2), split.output, **EXACT)
        torch.testing.assert_close(trace(adapted, pixels)[1], output, **EXACT)
        parts = [adapted.keep(UNITS), adapted.without(UNITS)]
        torch.testing.assert_close(sum(part.encode_image(pixels) for part in parts), output, **EXACT)
        torch.testing.assert_close(decompose(parts[0], pixels)[UNITS], split[UNITS], **EXACT)
        twice = decompose(AdaptedEncoder(adapted, double), pixels)
        torch.testing.assert_close(twice.contributions, 2 * split.contributions, **EXACT)
        again = Linearization.unpack(adapted.as_encoder().linearization.pack(), "a file")
        assert torch.equal(again.contributions(split.coordinates), split.contributions[:, 0])
        if isinstance(adapter, ResiDual) and adapter.others == "keep":
            left = [unit for unit in range(len(whole.units)) if unit not in adapter.units]
            torch.testing.assert_close(split[left], whole[left], **EXACT)
    inside = decompose(adapted.encoder, pixels, "patches")  # whose model runs without the adapter's hooks
    torch.testing.assert_close(
        inside.contributions, decompose(encoder, pixels, "patches").contributions, **EXACT
    )


def test_stores_of_an_adapted_encoder(tmp_path):
    encoder, data, pixels = tiny(), TinyImages(24), random_pixels()
    adapted = AdaptedEncoder(encoder, residual_of(encoder))
    store, on_disk = encode_dataset(adapted, data), encode_dataset(adapted, data, tmp_path / "store")
    with torch.no_grad():
        torch.testing.assert_close(
            store.output(), adapted(torch.stack([encoder.preprocess(data.load(k)) for k in range(24)]))
        )
    assert not on_disk.verify()
    assert store.encoder_name == "tiny with residual"
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = AdaptedEncoder.from_pretrained(tmp_path / "adapter", encoder)
    for same in (loaded, copy.deepcopy(adapted), pickle.loads(pickle.dumps(loaded)), loaded.double()):
        assert same.as_encoder().fingerprint == store.fingerprint
    assert len(encode_dataset(loaded, data, tmp_path / "store")) == 24
    others = [encoder, AdaptedEncoder(encoder), AdaptedEncoder(encoder, residual_of(encoder, mean="keep"))]
    for other in others:
        with pytest.raises(OtherResultError, match="weights"):
            encode_dataset(other, data, tmp_path / "store")
    further = AdaptedEncoder(adapted, ResiDual(fit_bases(store), init="ones", mean="keep", tail="keep"))
    with torch.no_grad():
        torch.testing.assert_close(further(pixels), adapted(pixels), rtol=1e-5, atol=1e-5)
    with pytest.raises(ResidualError, match=r"The adapter is of tiny .*, not of tiny with residual"):
        AdaptedEncoder(adapted, ResiDual(fit_bases(encode_dataset(encoder, data))))
    with pytest.raises(OtherPoolingError, match=r"tokens that it pools.* got 'patches'"):
        decompose(adapted, pixels, "patches")
    adapted.load_state_dict(adapted.state_dict())
    with pytest.raises(ResidualError, match="Weights were loaded"):
        decompose(adapted, pixels)


def test_moved_and_cast_it_is_whole():
    adapted = AdaptedEncoder(tiny(), ResiDual(bases_of(tiny(), "head"))).float()
    held = dict(adapted.encoder.module.named_buffers())
    assert held
    assert all(held[name] is buffer for name, buffer in adapted.module.named_buffers())
    with torch.no_grad():
        split = decompose(adapted, random_pixels().float())
    assert split.output.dtype == torch.float32
