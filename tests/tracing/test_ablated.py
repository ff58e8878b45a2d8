"""Encoders without some units, wherever encoders are taken; and what units make of logits."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from families import CASES
from tiny import TinyImages, random_pixels, tiny_encoder
from torch import nn

import residual
from residual import AdaptedEncoder, ResidualError, decompose, encode_dataset, fit_bases, wrap_encoder
from residual.adapters import LinearMap, ResiDual
from residual.adapters.fine_tuning.pictures import check_pictures
from residual.heads import ablate, mean_contributions
from residual.text import ZeroShotClassifier
from residual.tracing import Linearization

UNITS = ["1.2", "mlp.2", "emb"]
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


@pytest.fixture(scope="module")
def classifier():
    weights = torch.randn(4, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ZeroShotClassifier(weights, ["a", "b", "b", "c"], scale=7.0)


@pytest.mark.parametrize("name", ["clip", "siglip", "aimv2", "deit classifiers", "torchvision", "timm beit"])
@torch.no_grad()
def test_with_and_without_sum_to_the_output(name):
    whole, pixels = wrap_encoder(CASES[name].make().double()), random_pixels(3)
    kept, left = whole.keep(["1.2", "mlp.1", "emb"]), whole.without(["1.2", "mlp.1", "emb"])
    close = {"rtol": 1e-5, "atol": 1e-5} if CASES[name].allowed > 1e-9 else EXACT
    total = kept.encode_image(pixels) + left.encode_image(pixels)
    torch.testing.assert_close(total, whole.encode_image(pixels), **close)
    split = decompose(whole, pixels)
    for each in (kept, left):
        own = decompose(each, pixels)
        torch.testing.assert_close(own.output[:, 0], each.encode_image(pixels), **EXACT)
        torch.testing.assert_close(own.contributions.sum(2), own.output, **EXACT)
        torch.testing.assert_close(own[list(each.kept)], split[list(each.kept)], **EXACT)
        assert own.contributions.shape == split.contributions.shape
        assert not own.contributions.any(3).any(1).any(0)[[u for u in range(9) if u not in each.kept]].any()
    torch.testing.assert_close(
        decompose(kept, pixels, "patches")["1.2"], decompose(whole, pixels, "patches")["1.2"]
    )


@torch.no_grad()
def test_what_wraps_and_copies_an_encoder_keeps_what_is_left_out(encoder):
    pixels, kept = random_pixels(), encoder.keep(UNITS)
    expected = kept.encode_image(pixels)
    assert kept.kept == encoder.without(encoder.keep(UNITS).ablation.units).kept == (0, 3, 10)
    assert kept.without("emb").kept == encoder.keep(["1.2", "mlp.2"]).kept
    for other in (
        copy.deepcopy(kept),
        pickle.loads(pickle.dumps(kept)),
        kept.around(copy.deepcopy(kept.module)),
    ):
        assert torch.equal(other.encode_image(pixels), expected)
        assert (other.name, other.fingerprint) == (kept.name, kept.fingerprint)
    parallel = wrap_encoder(nn.DataParallel(encoder.module)).keep(UNITS)
    torch.testing.assert_close(parallel.encode_image(pixels), expected, **EXACT)
    compiled = encoder.keep(UNITS).compile(lambda function: function)
    torch.testing.assert_close(compiled.encode_image(pixels), expected, **EXACT)
    assert (kept.output_dim, kept.image_size, kept.logit_scale) == (12, (32, 32), encoder.logit_scale)
    image = TinyImages(1).load(0)
    assert torch.equal(kept.pixels([image]), encoder.pixels([image]))
    ids = torch.ones(2, 10).long()
    assert torch.equal(kept.run("text", ids), encoder.run("text", ids))
    assert torch.equal(
        decompose(kept, ids, tower="text").output, decompose(encoder, ids, tower="text").output
    )


def test_it_is_another_encoder(encoder):
    means = torch.ones(16, 12)
    others = [encoder, encoder.keep(UNITS), encoder.without(UNITS), encoder.keep(UNITS, "mean", means)]
    for which in ("fingerprint", "rounded_fingerprint", "name"):
        found = [getattr(each, which) for each in others]
        assert len(set(found)) == (3 if which == "name" else 4)
    assert encoder.keep("1.2").name == "tiny with 1 of 16 units"
    assert len({each.text_fingerprint for each in others}) == 1


def test_stores_bases_and_adapters_of_one(encoder, classifier, tmp_path):
    data, left = TinyImages(24), encoder.without(["2.1", "mlp.0"])
    store, whole = encode_dataset(left, data), encode_dataset(encoder, data)
    on_disk = encode_dataset(left, data, tmp_path / "store", dtype="float32")
    gone = [1, 13]
    for each in (store, residual.ResidualStore.open(tmp_path / "store")):
        assert each.fingerprint == left.fingerprint
        assert not each.contributions(units=gone).any()
        torch.testing.assert_close(
            each.output().double(), ablate(whole.contributions(), left.kept), rtol=1e-4, atol=1e-4
        )
    assert not on_disk.verify()
    with pytest.raises(residual.errors.OtherResultError, match=r"weights"):
        encode_dataset(encoder, data, tmp_path / "store", dtype="float32")
    bases = fit_bases(store, ("mlp", "head"))
    assert bases["2.1"].ranks == (0,)
    with pytest.raises(ResidualError, match="The bases are of tiny with 14 of 16 units"):
        bases.check_store(whole)
    pixels = random_pixels()
    for adapter in (ResiDual(bases, init="ones"), LinearMap(12), None):
        adapted = AdaptedEncoder(left, adapter)
        with torch.no_grad():
            split = decompose(left, pixels).contributions[:, 0]
            expected = split.sum(1) if not isinstance(adapter, ResiDual) else adapter.double()(split)
            torch.testing.assert_close(adapted(pixels), expected, rtol=1e-5, atol=1e-5)
        adapted.save_pretrained(tmp_path / "adapted", overwrite=True)
        with pytest.raises(residual.errors.AdapterEncoderError, match="tiny with 14 of 16 units"):
            AdaptedEncoder.from_pretrained(tmp_path / "adapted")
        with pytest.raises(ResidualError, match="tiny with 14 of 16 units"):
            AdaptedEncoder.from_pretrained(tmp_path / "adapted", encoder)
        again = AdaptedEncoder.from_pretrained(tmp_path / "adapted", left)
        torch.testing.assert_close(again(pixels), adapted(pixels), rtol=1e-6, atol=1e-6)
    with pytest.raises(ResidualError, match=r"Fine-tuning trains a whole encoder.* Fine-tune it first"):
        check_pictures(left, data, classifier, "training")


@torch.no_grad()
def test_at_means(encoder):
    store = encode_dataset(encoder, TinyImages(12))
    means, pixels = mean_contributions(store), random_pixels()
    kept = encoder.keep(UNITS, "mean", means)
    own = decompose(kept, pixels)
    torch.testing.assert_close(own["0.0"][:, 0], means[4].expand(5, -1))
    torch.testing.assert_close(
        own.output[:, 0],
        decompose(encoder, pixels)[UNITS][:, 0].sum(1) + means[4:].sum(0) - means[10] + means[1] + means[2],
    )
    again = Linearization.unpack(kept.linearization.pack(), "a file")
    assert torch.equal(again.contributions(own.coordinates), own.contributions[:, 0])
    further = kept.without("emb")
    torch.testing.assert_close(decompose(further, pixels)["0.0"][:, 0], means[4].expand(5, -1))
    with pytest.raises(ResidualError, match=r"what was found of the tokens that it pools.* got 'patches'"):
        decompose(kept, pixels, "patches")


@torch.no_grad()
def test_units_parts_of_logits_sum_to_them(encoder, classifier):
    split = decompose(encoder, random_pixels())
    parts = split.logits(classifier)
    assert parts.shape == (5, 1, 16, 4)
    torch.testing.assert_close(
        parts.sum(2)[:, 0], classifier.logits(split.output[:, 0]), rtol=1e-12, atol=1e-12
    )
    heads = decompose(encoder, random_pixels(), kinds="head")
    torch.testing.assert_close(heads.logits(classifier), parts[:, :, 4:], **EXACT)
    for label, number in (("c", 3), (1, 1), (np.int64(2), 2)):
        best = split.top(3, classifier, label)
        values = parts[:, 0, :, number].mean(0)
        assert best["unit"].tolist() == values.argsort(descending=True)[:3].tolist()
        torch.testing.assert_close(torch.tensor(best["value"]), values.sort(descending=True).values[:3])
    largest = parts.sum(2).argmax(-1)[:, 0]
    own = torch.stack([parts[n, 0, :, k] for n, k in enumerate(largest)]).mean(0)
    assert split.top(2, classifier)["unit"].tolist() == own.argsort(descending=True)[:2].tolist()


def test_rows_of_a_decomposition(encoder, classifier):
    split = decompose(encoder, random_pixels())
    heads = decompose(encoder, random_pixels(), kinds="head")
    assert repr(heads) == "Decomposition(5 samples of 1 token, 12 units (12 head) of width 12)"
    for one in ("1.2", 10, split.units.iloc[10], heads.units.iloc[6]):
        assert torch.equal(split[one], split.contributions[:, :, 10])
        assert torch.equal(heads[one], heads.contributions[:, :, 6])
    for several in (["1.2", "mlp.0"], split.units.iloc[[10, 1]], split.top(2)):
        assert split[several].shape == (5, 1, 2, 12)
    late = heads.units["layer"] == 2
    assert torch.equal(heads[late], heads.contributions[:, :, 8:])
    last = split.units["layer"] == 2  # which the embedding has none of
    assert encoder.keep(last).kept == (3, 12, 13, 14, 15)
    assert torch.equal(split[last], split.contributions[:, :, [3, 12, 13, 14, 15]])
    norms = split.contributions.norm(dim=-1).mean((0, 1))
    assert split.top(99)["unit"].tolist() == norms.argsort(descending=True, stable=True).tolist()
    wrongs = (
        (lambda: heads["mlp.1"], r"is of units of kind head: it holds no mlp\.1"),
        (lambda: split.top(0), "The best units are 1 or more, got 0"),
        (lambda: split.top(1, label="c"), "The logit of 'c' needs a classifier"),
        (lambda: split.top(1, classifier, "b"), "2 classes are called 'b': give the number"),
        (lambda: split.top(1, classifier, "d"), "Unknown class 'd'"),
        (lambda: split.top(1, classifier, 4), "Classes are 0 to 3, got 4"),
        (lambda: split.logits(ZeroShotClassifier(torch.eye(2), ["a", "b"])), "features of width 2, got 12"),
    )
    for wrong, message in wrongs:
        with pytest.raises(ResidualError, match=message):
            wrong()


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_encoder_says_how_it_becomes_one(encoder):
    model = encoder.module
    for ask in (
        lambda what: decompose(what, random_pixels()),
        lambda what: encode_dataset(what, TinyImages(2)),
    ):
        for wrong in (model, nn.DataParallel(model)):
            with pytest.raises(
                ResidualError, match=r"An Encoder is needed, got .*wrap_encoder\(model\) makes one"
            ):
                ask(wrong)
