"""The pixels are those of each checkpoint's own pipeline: of transformers, open_clip and timm."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import timm
import torch
import transformers
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from saved import CLIP_CONFIG
from timm.data import create_transform, resolve_data_config

import residual
from residual.encoders.load import load_encoder
from residual.encoders.preprocess import Preprocess
from residual.errors import ResidualError

SHAPES = [(57, 91), (91, 57), (40, 40), (33, 47), (160, 13), (7, 5)]
HALF = [0.5, 0.5, 0.5]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
SQUARE = {"size": {"height": 40, "width": 40}}
STEPS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 0.00392156862745098}
VIT = {"image_mean": HALF, "image_std": HALF, "resample": 2}
DINO = STEPS | IMAGENET | {"do_center_crop": True, "do_convert_rgb": True, "resample": 3}
OLD_CLIP = CLIP | {"do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3}

# Each as its checkpoints' `preprocessor_config.json` has it, but for smaller sizes.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", {"image_processor_type": "ViTImageProcessor", **STEPS, **VIT, **SQUARE}),
    "vit, called extractor": (
        "ViT",
        {"image_processor_type": "ViTFeatureExtractor", **STEPS, **VIT, **SQUARE},
    ),
    "vit of 2021": (
        "ViT",
        {"feature_extractor_type": "ViTFeatureExtractor", "do_normalize": True, "do_resize": True, "size": 40}
        | VIT,
    ),
    "vit fast": ("ViT", {"image_processor_type": "ViTImageProcessorFast", **STEPS, **VIT, **SQUARE}),
    "vit of ImageNet": ("ViT", {"image_processor_type": "ViTImageProcessor", "size": 40, **IMAGENET}),
    "vit that says nothing": ("ViT", {"image_processor_type": "ViTImageProcessor"}),
    "siglip": (
        "Siglip",
        {"image_processor_type": "SiglipImageProcessor", **STEPS, **VIT, **SQUARE, "resample": 3},
    ),
    "siglip of SigLIP 2": (
        "Siglip",
        {
            "image_processor_type": "SiglipImageProcessorFast",
            **STEPS,
            **VIT,
            **SQUARE,
            "do_convert_rgb": None,
        },
    ),
    "siglip, size a number": ("Siglip", {"image_processor_type": "SiglipImageProcessor", "size": 40}),
    "siglip that says nothing": ("Siglip", {"image_processor_type": "SiglipImageProcessor"}),
    "blip": (
        "Blip",
        {"image_processor_type": "BlipImageProcessor", **STEPS, **CLIP, **SQUARE, "resample": 3},
    ),
    "blip, size a number": ("Blip", {"image_processor_type": "BlipImageProcessor", "size": 40, **CLIP}),
    "dinov2": (
        "Bit",
        {"image_processor_type": "BitImageProcessor", **DINO}
        | {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
    ),
    "dinov2, smaller": (
        "Bit",
        {"image_processor_type": "BitImageProcessor", **DINO, "size": {"shortest_edge": 46}, "crop_size": 40},
    ),
    "bit, size a number": ("Bit", {"image_processor_type": "BitImageProcessor", "size": 46, "crop_size": 40}),
    "bit without a crop": (
        "Bit",
        {"image_processor_type": "BitImageProcessor", **DINO, "size": 46, "do_center_crop": False},
    ),
    "clip of 2021": (
        "CLIP",
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 40, "crop_size": 40, **OLD_CLIP},
    ),
    "clip of both names": (
        "CLIP",
        {"feature_extractor_type": "CLIPFeatureExtractor", "image_processor_type": "CLIPImageProcessor"}
        | {"size": {"shortest_edge": 46}, "crop_size": {"height": 40, "width": 40}, **OLD_CLIP, **STEPS},
    ),
    "clip fast": ("CLIP", {"image_processor_type": "CLIPImageProcessorFast", "size": 40, "crop_size": 36}),
    "clip that says nothing": ("CLIP", {"image_processor_type": "CLIPImageProcessor"}),
}
UNTYPED = {
    "vit": (
        "ViT",
        {"do_normalize": True, "do_resize": True, "size": 40, "image_mean": HALF, "image_std": HALF},
    ),
    "clip": ("CLIP", {"size": 40, "crop_size": 40, **OLD_CLIP}),
    "siglip": ("Siglip", {**SQUARE, "image_mean": HALF, "image_std": HALF}),
    "blip": ("Blip", {**SQUARE, **CLIP}),
    "dinov2": ("Bit", {"size": {"shortest_edge": 46}, "crop_size": 40, **IMAGENET}),
}


def picture(shape: tuple[int, int], mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(shape[0]).integers(0, 256, (*shape, 4), dtype=np.uint8)
    if mode == "RGBA":
        noise[..., 3] = np.where(noise[..., 3] > 128, 255, noise[..., 3])
        return Image.fromarray(noise)
    return Image.fromarray(noise[..., :3]).convert(mode)


def processed(processor: Any, image: Image.Image) -> torch.Tensor:
    return processor(image, return_tensors="pt")["pixel_values"][0]


def assert_same(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-6)


def written(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_processors(name, mode, tmp_path):
    kind, config = CONFIGS[name]
    ours = Preprocess.from_folder(written(tmp_path, config))
    theirs = getattr(transformers, f"{kind}ImageProcessor").from_pretrained(tmp_path)
    for shape in SHAPES:
        image = picture(shape, mode)
        assert_same(ours(image), processed(theirs, image.convert("RGB")))


def test_whole_numbers_may_be_written_as_fractions():
    config = CONFIGS["dinov2"][1] | {"size": {"shortest_edge": 256.0}, "crop_size": 224.0}
    assert Preprocess.from_config(config) == Preprocess.from_config(CONFIGS["dinov2"][1])
    with pytest.raises(ResidualError, match=r"A picture's side is .*224\.5"):
        Preprocess.from_config(config | {"crop_size": 224.5})
    for number in (float("nan"), float("inf"), 10**400, "a"):
        with pytest.raises(ResidualError, match="Three means, three standard deviations and a factor"):
            Preprocess.from_config(config | {"image_mean": [number] * 3})


@pytest.mark.parametrize("model_type", UNTYPED)
def test_a_processor_without_a_type_is_that_of_the_model_beside_it(model_type, tmp_path):
    """As in the first checkpoints, ViT's among them: transformers looks the class up by the model's kind."""
    kind, config = UNTYPED[model_type]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    ours = Preprocess.from_folder(written(tmp_path, config))
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    assert type(theirs).__name__ == f"{kind}ImageProcessor"
    for shape in SHAPES:
        assert_same(ours(picture(shape)), processed(theirs, picture(shape)))


SIZE = {"height": 32, "width": 32}
# Before version 5 there was but the fast one.
DINOV3 = getattr(transformers, "DINOv3ViTImageProcessor", None) or transformers.DINOv3ViTImageProcessorFast
DEFAULTS = {
    "clip": transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE),
    "clip vision": transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE),
    "siglip": transformers.SiglipImageProcessor(size=SIZE),
    "siglip vision": transformers.SiglipImageProcessor(size=SIZE),
    "blip": transformers.BlipImageProcessor(size=SIZE),
    "vit": transformers.ViTImageProcessor(size=SIZE),
    "vit classifier": transformers.ViTImageProcessor(size=SIZE),
    "siglip2": transformers.SiglipImageProcessor(size=SIZE, resample=2),
    "dinov3": DINOV3(size=SIZE),
    "aimv2": transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE),
    "metaclip2": transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE),
    "deit": transformers.DeiTImageProcessor(size={"height": 36, "width": 36}, crop_size=SIZE),
    "dinov2": transformers.BitImageProcessor(**DINO, size={"shortest_edge": 256}),
    "dinov2 registers": transformers.BitImageProcessor(**DINO, size={"shortest_edge": 256}),
}


@pytest.mark.parametrize("case", DEFAULTS)
def test_a_wrapped_model_is_given_what_its_family_was_trained_with(case):
    preprocess = residual.wrap_encoder(families.CASES[case].make()).preprocess
    for shape in SHAPES:
        squared = case == "siglip2" and shape[0] != shape[1]  # which isn't as it was trained, and is told
        with pytest.warns(UserWarning, match="aren't are distorted") if squared else nullcontext():
            assert_same(preprocess(picture(shape)), processed(DEFAULTS[case], picture(shape)))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
def test_open_clips_transform_is_kept(resize_mode, interpolation, tmp_path):
    settings = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    settings |= {"resize_mode": resize_mode, "interpolation": interpolation}
    config = {"model_cfg": CLIP_CONFIG, "preprocess_cfg": settings}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    text = CLIP_CONFIG["text_cfg"]
    save_file(families.open_clip_model(text=text).state_dict(), tmp_path / "open_clip_model.safetensors")
    ours = load_encoder(f"open_clip:{tmp_path}", device="cpu").preprocess
    theirs = image_transform_v2(PreprocessCfg(size=32, **settings), is_train=False)
    for shape in SHAPES:
        for mode in ("RGB", "L"):
            assert torch.equal(ours(picture(shape, mode)), theirs(picture(shape, mode)))
        assert torch.equal(ours(picture(shape, "RGBA")), theirs(on_white(picture(shape, "RGBA"))))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_timms_transform_is_kept(crop_mode, interpolation, tmp_path):
    settings = {"crop_pct": 0.9, "crop_mode": crop_mode, "interpolation": interpolation}
    settings |= {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    model = timm.create_model("test_vit", pretrained_cfg_overlay=settings)
    timm.models.save_for_hf(model, tmp_path / "model", safe_serialization=True)
    ours = load_encoder(f"timm:{tmp_path / 'model'}", device="cpu").preprocess
    theirs = create_transform(input_size=(3, 160, 160), **settings, is_training=False)
    resolved = create_transform(**resolve_data_config({}, model=model), is_training=False)
    for shape in SHAPES:
        for mode in ("RGB", "L"):
            image = picture(shape, mode).convert("RGB")  # timm's own take colours only
            expected = theirs(image)
            assert torch.equal(ours(picture(shape, mode)), expected)
            assert torch.equal(resolved(image), expected)
        assert torch.equal(ours(picture(shape, "RGBA")), theirs(on_white(picture(shape, "RGBA"))))


def on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def test_several_pictures_are_stacked():
    encoder = residual.wrap_encoder(families.CASES["vit"].make())
    pictures = [picture(shape) for shape in SHAPES]
    pixels = encoder.pixels(pictures)
    assert pixels.shape == (len(SHAPES), 3, 32, 32)
    assert torch.equal(pixels[2], encoder.preprocess(pictures[2]))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"image_processor_type": "NoSuchProcessor"}, "image processor 'NoSuchProcessor' isn't known"),
        ({"size": {"longest_edge": 40}}, r"Image size \{'longest_edge': 40\} isn't known: shortest_edge, or"),
        ({"resample": 4}, "Resampling filter 4 isn't known. Known: "),
    ],
)
def test_settings_that_are_not_known_are_refused(config, sentence, tmp_path):
    with pytest.raises(ResidualError, match=sentence):
        Preprocess.from_folder(written(tmp_path, config))
