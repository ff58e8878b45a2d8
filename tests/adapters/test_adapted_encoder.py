"""The encoder and its adapter as one module: its numbers, its casts, its copies, its exports."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from families import CASES
from kit import NAMES, case, classifier_of, pixels_of, plain, residual_of
from tiny import TinyImages, random_pixels, tiny_encoder

from residual import AdaptedEncoder, decompose, encode_dataset, fit_bases, load_encoder, wrap_encoder
from residual.adapters import (
    Coarse,
    LinearMap,
    ResiDual,
    ResiDualStar,
    SpectralMap,
    compute_scores,
    onnx_files,
)
from residual.errors import ExistingError, ResidualError
from residual.spectral.pca import pca
from residual.text import ZeroShotClassifier

CLOSE = {"atol": 1e-4, "rtol": 1e-3}


def test_it_gives_what_the_adapter_gives_of_contributions():
    for name in CASES:
        encoder = case(name)
        pixels, classifier = pixels_of(encoder, 3), classifier_of(encoder)
        for adapter in (residual_of(encoder), residual_of(encoder, "head", others="zero")):
            adapted = AdaptedEncoder(encoder, adapter, classifier)
            wanted = plain(adapter, encoder, pixels)
            torch.testing.assert_close(adapted.encode_image(pixels), wanted, **CLOSE)
            torch.testing.assert_close(adapted(pixels), classifier.logits(wanted), **CLOSE)
            torch.testing.assert_close(adapted(pixels, logits=False), wanted, **CLOSE)
        with torch.no_grad():
            torch.testing.assert_close(AdaptedEncoder(encoder)(pixels), encoder.encode_image(pixels))


def test_every_adapter_by_the_scores_that_it_was_fitted_on():
    encoder = tiny_encoder()
    dataset = TinyImages(30)
    store = encode_dataset(encoder, dataset)
    heads = fit_bases(store, ("head",))
    adapters = [
        ResiDual(fit_bases(store, ("head", "mlp"))),
        ResiDualStar(heads),
        ResiDual(heads, 2, "mean", "keep", mean="keep"),
        Coarse(heads),
        LinearMap(12, torch.randn(12, 12)),
        SpectralMap(pca(store.output()), 5),
    ]
    pixels = encoder.pixels([dataset.load(k) for k in range(30)])
    for adapter in adapters:
        scores = compute_scores(adapter, store)
        of = [scores.scores.float()[None], scores.directions.float(), scores.rest.float()[None]]
        with torch.no_grad():
            (wanted,) = adapter.outputs(adapter.weights.float()[None], *of)
            got = AdaptedEncoder(encoder, adapter)(pixels).float()
        torch.testing.assert_close(got, wanted, atol=2e-2, rtol=2e-3)  # the store is in half precision


def test_it_is_an_encoder_too():
    encoder = load_encoder("picto", device="cpu")
    adapted = AdaptedEncoder(encoder, residual_of(encoder), classifier_of(encoder))
    torch.testing.assert_close(adapted.encode_text(["a cat"]), encoder.encode_text(["a cat"]))
    assert (adapted.name, adapted.output_dim) == ("picto", 192)
    assert adapted.logit_scale == encoder.logit_scale
    assert adapted.class_names == NAMES
    image = TinyImages(1).load(0)
    torch.testing.assert_close(adapted.pixels([image]), encoder.preprocess(image)[None])
    assert not adapted.training
    assert not any(module.training for module in adapted.modules())
    assert "'picto', adapter=residual, classes=3" in repr(adapted)


def test_it_is_apart_from_what_it_was_made_of():
    encoder, pixels = tiny_encoder(), random_pixels(3)
    adapter = residual_of(encoder).double()
    adapted = AdaptedEncoder(encoder, adapter)
    before = adapted(pixels)
    own = encoder.encode_image(pixels)
    with torch.no_grad():
        adapter.lambdas.zero_()
        torch.testing.assert_close(adapted(pixels), before, atol=0, rtol=0)
        torch.testing.assert_close(encoder.encode_image(pixels), own, atol=0, rtol=0)
        decompose(encoder, pixels)
        for parameter in encoder.module.parameters():
            parameter.zero_()
    torch.testing.assert_close(adapted(pixels), before, atol=0, rtol=0)
    assert adapted.adapter.lambdas.abs().sum() > 0
    assert not adapted.adapter.lambdas.requires_grad


def test_shared_parameters_are_the_encoders_own():
    encoder = tiny_encoder()
    adapted = AdaptedEncoder(encoder, residual_of(encoder), share=True)
    own = {id(parameter) for parameter in encoder.module.parameters()}
    assert {id(parameter) for parameter in adapted.parameters()} == own
    assert not encoder.module.vision_model.encoder.layers[0].mlp._forward_hooks


def test_state_dicts_go_round():
    encoder = wrap_encoder(CASES["open_clip"].make())
    pixels, classifier = pixels_of(encoder, 2), classifier_of(encoder)
    one = AdaptedEncoder(encoder, residual_of(encoder), classifier)
    other = AdaptedEncoder(
        wrap_encoder(CASES["open_clip"].make(seed=5)), residual_of(encoder).requires_grad_(False), classifier
    )
    assert not torch.equal(one(pixels), other(pixels))
    state = {name: value.clone() for name, value in one.state_dict().items()}
    assert set(state) == {
        *(f"module.{name}" for name in encoder.module.state_dict()),
        *("matrix", "offset", "class_weights"),
    }
    assert other.load_state_dict(state).missing_keys == []
    torch.testing.assert_close(other(pixels), one(pixels), atol=0, rtol=0)
    with pytest.raises(ResidualError, match="its adapter may not be what it does"):
        other.save_pretrained("nowhere")


def test_copies_stand_alone():
    encoder, pixels = tiny_encoder(), random_pixels(2)
    first = AdaptedEncoder(encoder, residual_of(encoder), classifier_of(encoder))
    wanted = first(pixels)
    second = copy.deepcopy(first)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    torch.testing.assert_close(second(pixels), wanted, atol=0, rtol=0)


@pytest.mark.parametrize("name", ["clip", "timm attention pool"])
def test_casts_leave_the_adapter_in_float32(name):
    encoder = case(name)
    pixels, adapter = pixels_of(encoder, 3), residual_of(encoder)
    adapted = AdaptedEncoder(encoder, adapter, classifier_of(encoder))
    wanted = adapted.encode_image(pixels)
    adapted.to(torch.bfloat16)
    assert {value.dtype for value in adapted.parameters()} == {torch.bfloat16}
    assert {adapted.matrix.dtype, adapted.offset.dtype, adapted.class_weights.dtype} == {torch.float32}
    got = adapted.encode_image(pixels)
    assert got.dtype == torch.float32
    assert (got - wanted).norm() / wanted.norm() < 0.05
    made = AdaptedEncoder(wrap_encoder(CASES[name].make().to(torch.bfloat16)), adapter)
    torch.testing.assert_close(made.encode_image(pixels), got, atol=0.05, rtol=0.05)
    assert torch.equal(adapted.adapter.lambdas, adapter.lambdas)
    adapted.to(torch.float64)
    assert {value.dtype for value in adapted.state_dict().values() if value.is_floating_point()} == {
        torch.float64
    }
    assert adapted.encode_image(pixels).dtype == torch.float64


def test_autocast_leaves_the_matrix_alone():
    encoder = case("clip")
    pixels = pixels_of(encoder, 3)
    adapted = AdaptedEncoder(encoder, residual_of(encoder), classifier_of(encoder))
    with torch.autocast("cpu", torch.bfloat16):
        features, logits = adapted.encode_image(pixels), adapted(pixels)
    assert {features.dtype, logits.dtype} == {torch.float32}
    wanted = adapted.encode_image(pixels)
    assert (features - wanted).norm() / wanted.norm() < 0.05


def test_threads_take_turns():
    encoder = tiny_encoder()
    adapted = AdaptedEncoder(encoder, residual_of(encoder))
    batches = [random_pixels(2, seed=seed) for seed in range(8)]
    with torch.no_grad():
        wanted = [adapted(batch) for batch in batches]
    got = [None] * len(batches)

    def work(place: int) -> None:
        with torch.no_grad():
            for _ in range(5):
                got[place] = adapted(batches[place])

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_the_next_pass_after_one_that_failed():
    encoder, pixels = tiny_encoder(), random_pixels(2)
    adapted = AdaptedEncoder(encoder, residual_of(encoder))
    wanted = adapted(pixels)

    def fail(*_: object) -> None:
        raise RuntimeError("no more memory")

    handle = adapted.module.vision_model.encoder.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="no more memory"):
        adapted(pixels)
    handle.remove()
    torch.testing.assert_close(adapted(pixels), wanted, atol=0, rtol=0)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_exported_programs_take_any_number_of_images():
    sizes = {"pixels": {0: torch.export.Dim("n")}}
    for name, how in (("timm average of normed", {}), ("timm attention pool", {"logits": False})):
        encoder = case(name)
        adapted = AdaptedEncoder(encoder, residual_of(encoder), classifier_of(encoder))
        shapes = sizes | dict.fromkeys(how)
        program = torch.export.export(adapted, (pixels_of(encoder, 3),), how, dynamic_shapes=shapes)
        for n in (1, 2, 5):
            pixels = pixels_of(encoder, n, seed=n)
            torch.testing.assert_close(program.module()(pixels, **how), adapted(pixels, **how), **CLOSE)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_it_compiles_whole():
    for name in ("open_clip", "timm attention pool"):
        adapted = AdaptedEncoder(case(name), residual_of(case(name)), classifier_of(case(name)))
        compiled = torch.compile(adapted, backend="eager", fullgraph=True)
        with torch.no_grad():
            for n in (2, 5):
                pixels = pixels_of(case(name), n)
                torch.testing.assert_close(compiled(pixels), adapted(pixels), **CLOSE)


def _run_onnx(path: Path, pixels: torch.Tensor) -> tuple[torch.Tensor, dict[str, str], str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"pixels": pixels.numpy()})
    told = session.get_modelmeta().custom_metadata_map
    return torch.from_numpy(output), told, session.get_outputs()[0].name


def test_onnx_gives_the_same(tmp_path):
    _check_onnx("clip", tmp_path)


@pytest.mark.slow
def test_onnx_gives_the_same_by_attention_pooling(tmp_path):
    _check_onnx("timm attention pool", tmp_path)


def _check_onnx(name: str, tmp_path: Path) -> None:
    encoder = case(name)
    adapted = AdaptedEncoder(encoder, residual_of(encoder), classifier_of(encoder))
    path = tmp_path / "adapted.onnx"
    adapted.export_onnx(path, size=(32, 32))
    assert [file.name for file in tmp_path.iterdir()] == ["adapted.onnx"]
    with torch.no_grad():
        for n in (1, 2, 5):
            pixels = pixels_of(encoder, n, seed=n)
            got, told, called = _run_onnx(path, pixels)
            torch.testing.assert_close(got, adapted(pixels), **CLOSE)
    assert json.loads(told["class_names"]) == list(NAMES)
    assert called == "logits"
    for private in ('File "', str(Path(onnx_files.__file__).parents[3]), str(Path.home()), "site-packages"):
        assert private.encode() not in path.read_bytes(), private


@pytest.mark.slow
def test_onnx_of_features_and_of_maps_of_the_output_in_two_files(tmp_path, monkeypatch):
    """Weights in a second file; an export that is cut off leaves the model of before, or the new one."""
    encoder, programs, wanted, names = case("clip"), [], [], set()
    pixels, path = pixels_of(encoder, 4), tmp_path / "a.onnx"
    save = onnx_files._save_program
    monkeypatch.setattr(onnx_files, "_ONE_FILE", 0)
    monkeypatch.setattr(onnx_files, "_save_program", lambda *of: (programs.append(of), save(*of)))
    heads = residual_of(encoder, "head", others="zero")
    for adapter, logits in ((LinearMap(12, torch.randn(12, 12)), False), (heads, True)):
        adapted = AdaptedEncoder(encoder, adapter, classifier_of(encoder))
        if path.exists():
            (tmp_path / "a.onnx.data").write_bytes(b"as it was called until 0.1")
            with pytest.raises(ExistingError, match=r"a\.onnx' is there already: an encoder as ONNX"):
                adapted.export_onnx(path, logits=logits)
        adapted.export_onnx(path, logits=logits, overwrite=True)
        got, _, called = _run_onnx(path, pixels)
        with torch.no_grad():
            wanted.append(adapted(pixels, logits=logits))
        torch.testing.assert_close(got, wanted[-1], **CLOSE)
        assert called == ("logits" if logits else "features")
        (data,) = [file.name for file in tmp_path.iterdir() if file != path]
        names.add(data)
    assert len(names) == 2
    found = []
    while not found or found[-1] == "features":
        calls = []

        def cut_off(*args, real, calls=calls):
            calls.append(args)
            if len(calls) > len(found):
                raise KeyboardInterrupt
            return real(*args)

        save(*programs[0])
        with monkeypatch.context() as cut:
            cut.setattr(os, "replace", partial(cut_off, real=os.replace))
            cut.setattr(shutil, "copyfile", partial(cut_off, real=shutil.copyfile))
            with suppress(KeyboardInterrupt):
                save(*programs[1])
        got, _, called = _run_onnx(path, pixels)
        torch.testing.assert_close(got, wanted[called == "logits"], **CLOSE)
        found.append(called)
    assert len(found) > 4


def test_exports_that_cant_be(tmp_path, monkeypatch):
    encoder = case("clip")
    adapted = AdaptedEncoder(encoder, residual_of(encoder))
    with pytest.raises(ResidualError, match="Logits need a classifier"):
        adapted.export_onnx(tmp_path / "a.onnx", logits=True)
    with pytest.raises(ResidualError, match="can't be written"):
        adapted.export_onnx(tmp_path)
    half = copy.deepcopy(adapted).to(torch.bfloat16)
    with pytest.raises(ResidualError, match=r"CLIPModel is in bfloat16: say adapted\.float\(\)"):
        half.export_onnx(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ResidualError, match=r"pip install 'residual-vit\[onnx\]'"):
        adapted.export_onnx(tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_parts_that_dont_belong_together():
    encoder = tiny_encoder()
    store = encode_dataset(encoder, TinyImages(20))
    heads = ResiDual(fit_bases(store, ("head",)))
    with pytest.raises(ResidualError, match=r"The adapter is of tiny \(weights .*not of tiny \(weights"):
        AdaptedEncoder(tiny_encoder(seed=1), heads)
    with pytest.raises(ResidualError, match=r"centering 'shared'\), not of .* centering 'own'\)"):
        AdaptedEncoder(tiny_encoder(centering="own"), heads)
    with pytest.raises(ResidualError, match="The adapter is of width 5, the output of tiny of 12"):
        AdaptedEncoder(encoder, LinearMap(5))
    with pytest.raises(ResidualError, match="takes features of width 5, tiny gives 12"):
        AdaptedEncoder(encoder, heads, ZeroShotClassifier(torch.ones(1, 5), ["one"]))
    with pytest.raises(ResidualError, match="The classifier is of an encoder with weights 00112233"):
        AdaptedEncoder(encoder, heads, ZeroShotClassifier(torch.ones(1, 12), ["one"], fingerprint="00112233"))
    averages = ResiDual(fit_bases(encode_dataset(encoder, TinyImages(20), pooling="avg"), ("head",)))
    with pytest.raises(ResidualError, match="bases are of pooling 'avg', which isn't what tiny does itself"):
        AdaptedEncoder(encoder, averages)
    whole = AdaptedEncoder(encoder, heads)
    with pytest.raises(ResidualError, match="Logits need a classifier"):
        whole(random_pixels(1), logits=True)
    with pytest.raises(ResidualError, match="takes images of 32 by 32 pixels, got 8 by 8"):
        whole(random_pixels(1, 8))


def test_bases_of_the_encoders_own_pooling_by_another_name():
    encoder = tiny_encoder()
    adapter = ResiDual(fit_bases(encode_dataset(encoder, TinyImages(20), pooling="cls"), ("head",)))
    assert AdaptedEncoder(encoder, adapter)(random_pixels(2)).shape == (2, 12)
