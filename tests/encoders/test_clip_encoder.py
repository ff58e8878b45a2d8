"""The encoder says what transformers says: images, texts, preprocessing; and refuses what it can't split."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from saved import transformers_folder
from tiny import random_pixels, tiny_clip, tiny_encoder, tiny_vision

import residual
from residual.encoders import load
from residual.encoders.anatomy import Anatomy
from residual.encoders.load import load_encoder, wrap_encoder
from residual.encoders.preprocess import Preprocess
from residual.errors import ResidualError

WORDS = ["a", "red", "cat", "dog", "two", "photo", "of"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny CLIP as transformers saves it: weights, tokenizer and image processor."""
    path = tmp_path_factory.mktemp("clip")
    transformers_folder("CLIPModel", path)
    return path


def test_loading_a_folder_gives_what_transformers_gives(folder):
    encoder = load_encoder(f"hf:{folder}", device="cpu")
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    pixels = random_pixels(dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.encode_image(pixels), model.get_image_features(pixels).pooler_output
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        for texts in (["a cat"], WORDS, ["a red cat of two dog photo and more than fits"]):
            tokens = tokenizer(texts, padding=True, truncation=True, max_length=10, return_tensors="pt")
            expected = model.get_text_features(**tokens).pooler_output
            torch.testing.assert_close(encoder.encode_text(texts), expected)
    assert encoder.output_dim == 12
    assert encoder.logit_scale == pytest.approx(model.logit_scale.item())
    assert encoder.tokenize(["a"]).shape == (1, 10)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "LA"])
def test_preprocess_equals_the_folders_processor(folder, mode):
    processor, ours = transformers.CLIPImageProcessor.from_pretrained(folder), Preprocess.from_folder(folder)
    older = tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 24)
    for size in ((32, 32), (32, 50), (50, 32), (40, 40), (20, 27), (301, 64), (7, 5)):
        noise = np.random.default_rng(0).integers(0, 256, (*size, 4), dtype=np.uint8)
        image = shown = Image.fromarray(noise).convert(mode)
        if "A" in mode and older:
            # Older processors drop transparency; newer ones, and ours, put the picture on white.
            rgba = image.convert("RGBA")
            shown = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        expected = processor(shown, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(ours(image), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"height": 20, "width": 24}, "do_center_crop": False},
        {"size": {"shortest_edge": 24}, "crop_size": {"height": 30, "width": 16}, "resample": 2},
        {"size": {"shortest_edge": 24}, "do_normalize": False, "do_center_crop": False, "resample": 0},
        {"do_resize": False, "crop_size": {"height": 31, "width": 31}, "do_rescale": False},
        {"size": {"shortest_edge": 24}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
    ],
)
def test_preprocess_follows_every_setting(settings):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (41, 53, 3), dtype=np.uint8))
    expected = transformers.CLIPImageProcessor(**settings)(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(Preprocess.from_config(settings)(image), expected, atol=2e-5, rtol=1e-6)


def test_wrapped_vision_tower_equals_the_whole_model():
    whole, vision = tiny_encoder(), wrap_encoder(tiny_vision())
    vision.module.load_state_dict(
        {name: value for name, value in whole.module.state_dict().items() if name.startswith("vis")}
    )
    pixels = random_pixels()
    torch.testing.assert_close(vision.encode_image(pixels), whole.encode_image(pixels))
    assert vision.fingerprint == whole.fingerprint
    assert vision.logit_scale is None
    with pytest.raises(ResidualError, match="has no text tower"):
        vision.encode_text(["a"])


def test_fingerprint_sees_weights_and_activation_but_not_precision_or_text():
    first = tiny_encoder(dtype=torch.float32).fingerprint
    assert tiny_encoder(seed=1, dtype=torch.float32).fingerprint != first
    assert tiny_encoder(dtype=torch.float64).fingerprint == first
    other = tiny_clip(dtype=torch.float32)
    other.config.vision_config.hidden_act = "gelu"
    assert wrap_encoder(other).fingerprint != first
    other = tiny_encoder(dtype=torch.float32)
    other.module.vision_model.post_layernorm.eps *= 10
    assert other.fingerprint != first
    text = tiny_clip(dtype=torch.float32)
    text.text_projection.weight.data.zero_()
    assert wrap_encoder(text).fingerprint == first
    moved = tiny_encoder(dtype=torch.float32)
    assert moved.fingerprint == first
    assert tiny_encoder(dtype=torch.float32).to(dtype=torch.bfloat16).fingerprint == first


def test_every_missing_part_is_named_at_once():
    model = tiny_clip()
    del model.vision_model.post_layernorm
    model.vision_model.encoder.layers[1].self_attn.out_proj = torch.nn.Identity()
    missing = (
        r"not found: vision_model.post_layernorm, "
        r".*layers.1.self_attn.out_proj \(a Identity, expected a Linear"
    )
    with pytest.raises(ResidualError, match=missing):
        wrap_encoder(model)
    uneven = tiny_clip()
    uneven.vision_model.encoder.layers[1].self_attn.num_heads = 2
    with pytest.raises(ResidualError, match="blocks differ in heads"):
        wrap_encoder(uneven)


def test_layer_scales_are_found_where_declared():
    block = torch.nn.Module()
    block.proj, block.mlp, block.heads = torch.nn.Linear(4, 4), torch.nn.Identity(), 2
    block.scale = torch.nn.Parameter(torch.ones(4))
    model = torch.nn.Module()
    model.blocks, model.norm = torch.nn.ModuleList([block]), torch.nn.LayerNorm(4)
    anatomy = Anatomy("blocks", "proj", "heads", "mlp", "norm", None, "scale", "scale")
    parts = anatomy.locate(model)
    assert parts.blocks[0].attention_scale is block.scale
    assert parts.projection is None
    assert (parts.heads, parts.width, parts.output_dim) == (2, 4, 4)


def test_unknown_names_list_the_nearest():
    with pytest.raises(ResidualError, match=r"Unknown encoder 'pictoo'. Did you mean 'picto'"):
        load_encoder("pictoo")
    with pytest.raises(ResidualError, match=r"Known: blip_l_flickr, .*hf:REPO_OR_FOLDER, .*picto, timm:NAME"):
        load_encoder("zzz")
    with pytest.raises(ResidualError, match="there is no folder 'no/such' here"):
        load_encoder("hf:no/such")


def test_the_embedded_encoder_is_never_looked_for_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setitem(load.EMBEDDED, "picto", tmp_path / "picto")
    with pytest.raises(ResidualError, match=r"picto: .* holds no config.json"):
        load_encoder("picto")


def test_folders_that_hold_something_else(tmp_path, folder):
    with pytest.raises(ResidualError, match=r"holds no config.json"):
        load_encoder(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ResidualError, match=r"is a 'bert' model. Known kinds: clip"):
        load_encoder(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ResidualError, match=r"holds no model.safetensors, and weights in another form"):
        load_encoder(f"hf:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(ResidualError, match="can't be loaded"):
        load_encoder(f"hf:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(ResidualError, match=r"preprocessor_config.json isn't there"):
        load_encoder(f"hf:{tmp_path}")


def test_wrong_inputs_are_refused():
    encoder = tiny_encoder()
    with pytest.raises(ResidualError, match="takes images of 32 by 32 pixels, got 16 by 32"):
        encoder.encode_image(torch.zeros(1, 3, 16, 32))
    with pytest.raises(ResidualError, match="has no tokenizer"):
        encoder.encode_text(["a"])
    with pytest.raises(ResidualError, match="At least one text"):
        encoder.encode_text([])
    with pytest.raises(ResidualError, match="given as a list, got one string"):
        encoder.encode_text("cat")
    with pytest.raises(ResidualError, match=r"centering is 'shared' or 'own', got 'half'"):
        tiny_encoder(centering="half")
    with pytest.raises(ResidualError, match="Resampling filter 4 isn't known"):
        Preprocess.from_config({"resample": 4})


def test_importing_the_package_loads_no_model_library():
    code = (
        "import sys, residual; assert 'load_encoder' in dir(residual); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_importing_what_measures_loads_no_model_library_and_no_compiler():
    code = (
        "import sys, residual.spectral, residual.adapters, residual.store; "
        "print({'transformers', 'torchvision', 'torch._dynamo', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_every_public_name_is_there():
    for name in residual.__all__:
        assert getattr(residual, name) is not None
    assert residual.spectral.pca
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = residual.nothing
