"""Real files through `load_encoder`: what the model's own library gives, or one sentence why not."""

from __future__ import annotations

import json
import re
import sys
from functools import partial

import families
import open_clip
import pytest
import torch
import torchvision
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from saved import (
    CASES,
    CLIP_CONFIG,
    no_hub,
    open_clip_saved,
    put_into_cache,
    timm_saved,
    transformers_folder,
    word_tokenizer,
)
from tiny import random_pixels

import residual
from residual.encoders.load import load_encoder
from residual.errors import ResidualError

TEXTS = ["a cat", "red", "a red dog of a cat"]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    no_hub(monkeypatch, tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def at(tmp_path):
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


@pytest.mark.parametrize("case", CASES)
def test_what_is_loaded_gives_what_its_library_gives(case, at):
    saved = CASES[case](at)
    encoder = load_encoder(saved.name, device="cpu", **saved.how)
    assert encoder.output_dim == saved.output_dim
    assert encoder.image_size == saved.size
    wide = 41 if "Siglip2" in case else 50  # which warns of what isn't square
    assert encoder.preprocess(Image.new("RGB", (wide, 41))).shape == (3, saved.pixels, saved.pixels)
    pixels = random_pixels(3, saved.pixels, dtype=torch.float32)
    with torch.no_grad():
        expected = saved.image(pixels)
        torch.testing.assert_close(encoder.encode_image(pixels), expected)
    parts = residual.decompose(encoder, pixels).contributions
    torch.testing.assert_close(parts.sum(2)[:, 0], expected, atol=1e-4, rtol=1e-4)
    assert encoder.has_text == (saved.text is not None)
    if saved.text is None:
        with pytest.raises(ResidualError, match="has no text tower"):
            encoder.encode_text(TEXTS)
        return
    with torch.no_grad():
        expected = saved.text(TEXTS)
        torch.testing.assert_close(encoder.encode_text(TEXTS), expected)
    if not saved.splits_text:
        with pytest.raises(ResidualError, match=r"can't be split: it is a BERT, .*post-norm"):
            residual.decompose(encoder, TEXTS, tower="text")
        return
    parts = residual.decompose(encoder, TEXTS, tower="text").contributions
    torch.testing.assert_close(parts.sum(2)[:, 0], expected, atol=1e-4, rtol=1e-4)


def test_blip_similarities_are_those_of_its_own_contrastive_side(at):
    saved = transformers_folder("BlipForImageTextRetrieval", at)
    encoder = load_encoder(saved.name, device="cpu")
    model = transformers.BlipForImageTextRetrieval.from_pretrained(at).eval()
    pixels = random_pixels(3, dtype=torch.float32)
    tokens = transformers.AutoTokenizer.from_pretrained(at)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(
            tokens["input_ids"], pixels, attention_mask=tokens["attention_mask"], use_itm_head=False
        )
        images, texts = encoder.encode_image(pixels), encoder.encode_text(TEXTS)
    cosines = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=-1)
    torch.testing.assert_close(cosines, expected.itm_score)


def test_a_saved_classifier_is_left_off_unless_asked_for(at):
    saved = transformers_folder("ViTForImageClassification", at, num_labels=7)
    pixels = random_pixels(3, dtype=torch.float32)
    features, logits = (load_encoder(saved.name, device="cpu", classifier=keep) for keep in (False, True))
    assert (features.output_dim, logits.output_dim) == (24, 7)
    with torch.no_grad():
        torch.testing.assert_close(
            logits.module.classifier(features.encode_image(pixels)), logits.encode_image(pixels)
        )


def test_quick_gelu_comes_from_the_architecture(at):
    """The same file in an architecture without it is another model: the tests above could have failed."""
    saved = open_clip_saved("tiny-quickgelu", at, as_file=True)
    (at / "tiny.json").write_text(json.dumps(CLIP_CONFIG))
    open_clip.add_model_config(at / "tiny.json")
    right = load_encoder(saved.name, device="cpu")
    wrong = load_encoder(saved.name.replace("tiny-quickgelu", "tiny"), device="cpu")
    pixels = random_pixels(3, dtype=torch.float32)
    with torch.no_grad():
        assert (right.encode_image(pixels) - wrong.encode_image(pixels)).abs().max() > 1e-3
        assert (right.encode_text(TEXTS) - wrong.encode_text(TEXTS)).abs().max() > 1e-3
    assert right.fingerprint != wrong.fingerprint


def test_an_open_clip_folder_brings_its_own_tokenizer(at):
    """As those of SigLIP do: `hf_tokenizer_name` in the config, the tokenizer's files beside it."""
    open_clip_saved("tiny", at, as_file=False)
    tokenizer, _ = word_tokenizer()
    tokenizer.save_pretrained(at)
    config = json.loads((at / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "some/where"
    (at / "open_clip_config.json").write_text(json.dumps(config))
    ids = load_encoder(f"open_clip:{at}", device="cpu").tokenize(["a cat"])
    assert ids.tolist() == [[3, 5, 2, 0, 0, 0, 0, 0, 0, 0]]


def test_hub_names_find_what_was_fetched_before(at, cache, monkeypatch):
    """Every form of name that goes to the hub, offline, with the files where the hub's client keeps them."""
    pixels = random_pixels(2, dtype=torch.float32)
    saved = open_clip_saved("tiny-quickgelu", at / "open", as_file=False)
    put_into_cache(cache, "some/open", at / "open")
    # A tag's activation and preprocessing count, as for OpenAI's weights, whatever its architecture says.
    open_clip_saved("tiny", at / "arch", as_file=True)
    tag = {"hf_hub": "some/open/", "quick_gelu": True, "mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}
    tag |= {"interpolation": "bilinear", "resize_mode": "squash"}
    open_clip.pretrained._PRETRAINED["tiny"] = {"tag": tag}
    for name in ("open_clip:tiny/tag", "open_clip:hf-hub:some/open"):
        encoder = load_encoder(name, device="cpu")
        torch.testing.assert_close(encoder.encode_image(pixels), saved.image(pixels))
    black = load_encoder("open_clip:tiny/tag", device="cpu").preprocess(Image.new("RGB", (32, 32)))
    torch.testing.assert_close(black[:, 0, 0], torch.tensor([-0.1, -0.2, -0.3]))

    saved = transformers_folder("ViTModel", at / "vit")
    for revision in ("main", "refs/pr/3"):
        put_into_cache(cache, "some/vit", at / "vit", revision)
    monkeypatch.chdir(at)
    for name in ("hf:some/vit", "hf:some/vit@refs/pr/3"):
        torch.testing.assert_close(load_encoder(name, device="cpu").encode_image(pixels), saved.image(pixels))

    saved = timm_saved(at / "timm", as_file=False, classifier=True)
    put_into_cache(cache, "timm/test_vit.r160_in1k", at / "timm")
    pixels = random_pixels(2, 160, dtype=torch.float32)
    for name in ("timm:test_vit", "timm:test_vit.r160_in1k", "timm:hf-hub:timm/test_vit.r160_in1k"):
        encoder = load_encoder(name, device="cpu", classifier=True)
        torch.testing.assert_close(encoder.encode_image(pixels), saved.image(pixels))


HUB = r"there is no folder '{}' here, and it can't be had from the hub \(.+\)\. Try again"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("openclip_b", HUB.format("laion/CLIP-ViT-B-16-laion2B-s34B-b88K")),
        ("clip_l", HUB.format("timm/vit_large_patch14_clip_224.openai")),
        ("vit_l", HUB.format("google/vit-large-patch16-224")),
        ("hf:no/such@refs/pr/1", HUB.format("no/such")),
        (
            "timm:vit_base_patch16_224.augreg_in21k_ft_in1k",
            HUB.format("timm/vit_base_patch16_224.augreg_in21k_ft_in1k"),
        ),
        *(
            (f"hf:{gone}", f"there is no folder '{gone}'.$")
            for gone in ("./gone", "/gone", "~/gone", "a/b/c")
        ),
        ("open_clip:hf-hub:/no/gone", "there is no folder '/no/gone'.$"),
        ("timm:hf-hub:no/such", HUB.format("no/such")),
        ("open_clip:hf-hub:no/such", HUB.format("no/such")),
        ("open_clip:ViT-Z/x", "open_clip has no 'ViT-Z' and there is no such folder"),
        ("open_clip:ViT-B-16/nope", r"ViT-B-16 has no weights 'nope'\. Known: openai, .*laion2b_s34b_b88k, "),
        ("open_clip:ViT-B-16", "ViT-B-16 has no weights ''. Known: openai, "),
        ("open_clip:ViT-B-16/no/such.safetensors", r"there is no file 'no/such\.safetensors'"),
        ("timm:vit_nope", r"Unknown model of timm 'vit_nope'\. "),
        ("timm:test_vit.nope", r"Invalid pretrained tag \(nope\) for test_vit"),
        ("timm:test_vit/no/such.safetensors", r"there is no file 'no/such\.safetensors'"),
        ("torchvision:vit_b", r"Unknown vision transformer of torchvision 'vit_b'\. Did you mean 'vit_b_32'"),
        (
            "torchvision:vit_b_16",
            r"own weights are pickles, which aren't loaded\. Build it and wrap it: wrap_",
        ),
        ("torchvision:vit_b_16/vit.pth", "own weights are pickles"),
        ("torchvision:vit_b_16/no.safetensors", r"there is no file 'no\.safetensors'"),
        ("timm:vit_base_patch16_plus_240", "timm has no weights of 'vit_base_patch16_plus_240'"),
    ],
)
def test_what_is_not_there_is_one_sentence(name, sentence):
    with pytest.raises(ResidualError, match=f"^{re.escape(name)}: .*{sentence}") as caught:
        load_encoder(name, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("open_clip:ViT-B-16/openai", "open_clip", "open-clip"),
        ("timm:test_vit", "timm", "timm"),
        ("torchvision:vit_b_16/own.safetensors", "torchvision", "torchvision"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(name, library, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    sentence = rf"needs {library}, which isn't installed: pip install 'residual-vit\[{extra}\]'"
    with pytest.raises(ResidualError, match=sentence):
        load_encoder(name, device="cpu")


@pytest.mark.parametrize(
    ("form", "safe", "pickled"),
    [
        ("hf", "model.safetensors", "pytorch_model.bin"),
        ("open_clip", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        ("timm", "model.safetensors", "pytorch_model.bin"),
    ],
)
def test_pickled_weights_are_refused_with_a_way_out(form, safe, pickled, at):
    if form == "hf":
        transformers_folder("ViTModel", at)
    elif form == "timm":
        timm_saved(at, as_file=False, classifier=False)
    else:
        open_clip_saved("tiny", at, as_file=False)
    torch.save(load_file(at / safe), at / pickled)
    (at / safe).unlink()
    why = "weights in another form aren't read, since reading them can run code. Convert them to safetensors"
    with pytest.raises(ResidualError, match=why):
        load_encoder(f"{form}:{at}", device="cpu")


@pytest.mark.parametrize("classifier", [False, True])
def test_a_file_of_torchvision(classifier, at, monkeypatch):
    """With the classes and the picture's size that were saved; what isn't the model's is refused."""
    small = partial(families.torchvision_model, layers=1)
    monkeypatch.setitem(
        torchvision.models._api.BUILTIN_MODELS, "vit_b_16", lambda weights, **how: small(**how)
    )
    model = small(image_size=48)
    save_file(model.state_dict(), at / "model.safetensors")
    encoder = load_encoder(f"torchvision:vit_b_16/{at}", device="cpu", classifier=classifier)
    pixels = random_pixels(2, 48, dtype=torch.float32)
    with torch.no_grad():
        features = model.encoder(
            torch.cat([model.class_token.expand(2, -1, -1), model._process_input(pixels)], 1)
        )
        expected = model(pixels) if classifier else features[:, 0]
        torch.testing.assert_close(encoder.encode_image(pixels), expected)
    split = residual.decompose(encoder, pixels).contributions.sum(2)[:, 0]
    torch.testing.assert_close(split, expected, atol=1e-4, rtol=1e-4)
    assert encoder.preprocess(Image.new("RGB", (50, 41))).shape == (3, 48, 48)
    state = {name: value for name, value in model.state_dict().items() if "layers" not in name}
    save_file(state, at / "model.safetensors")
    with pytest.raises(ResidualError, match=r"isn't of vit_b_16: encoder\.layers"):
        load_encoder(f"torchvision:vit_b_16/{at}", device="cpu", classifier=classifier)


def test_a_classifier_with_a_layer_of_its_own_is_refused():
    model = families.torchvision_model(representation_size=8)
    with pytest.raises(ResidualError, match=r"a layer of its own .* model\.heads = torch\.nn\.Identity"):
        residual.wrap_encoder(model)
    model.heads = torch.nn.Identity()
    assert residual.wrap_encoder(model).output_dim == 24


def test_open_clip_has_no_classifier_to_keep(at):
    saved = open_clip_saved("tiny", at, as_file=False)
    with pytest.raises(ResidualError, match=r"models of open_clip have no classifier"):
        load_encoder(saved.name, device="cpu", classifier=True)


@pytest.mark.parametrize("classifier", [False, True])
@pytest.mark.parametrize("as_file", [False, True])
def test_timm_weights_that_are_missing_are_refused_and_not_made_up(as_file, classifier, at):
    saved = timm_saved(at, as_file, classifier)
    path = at / ("own.safetensors" if as_file else "model.safetensors")
    weights = load_file(path)
    del weights["blocks.1.attn.proj.weight"]
    save_file(weights, path)
    with pytest.raises(ResidualError, match=r"can't be loaded|lacks weights"):
        load_encoder(saved.name, device="cpu", classifier=classifier)


def test_open_clip_weights_that_are_missing_are_refused(at):
    saved = open_clip_saved("tiny", at, as_file=False)
    weights = load_file(at / "open_clip_model.safetensors")
    del weights["visual.proj"]
    save_file(weights, at / "open_clip_model.safetensors")
    with pytest.raises(ResidualError, match="can't be loaded"):
        load_encoder(saved.name, device="cpu")


@pytest.mark.parametrize("case", families.CASES)
def test_a_wrapped_models_own_preprocess_gives_its_image_size(case):
    encoder = residual.wrap_encoder(families.CASES[case].make())
    wide = 41 if case == "siglip2" else 50  # which warns of what isn't square
    pixels = encoder.preprocess(Image.new("RGB", (wide, 41)))
    usual = families.IMAGE if case.startswith(("siglip2", "dinov3")) else 224
    assert pixels.shape == (3, *(encoder.image_size or (usual, usual)))
