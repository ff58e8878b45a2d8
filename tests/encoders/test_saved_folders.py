"""Folders as transformers saves them, whole and damaged."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPProcessor, CLIPVisionModelWithProjection

import residual
from residual.data import load_dataset
from residual.errors import ResidualError

PICTO = Path(residual.__file__).parent / "encoders/picto"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(PICTO, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def image():
    return load_dataset("flags", "test")[0][0]


def test_a_whole_processor_saved_as_one_file_is_read(folder, tmp_path, image):
    CLIPProcessor.from_pretrained(folder).save_pretrained(tmp_path / "new")
    CLIPModel.from_pretrained(folder).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new/preprocessor_config.json").exists()
    encoder = residual.load_encoder(f"hf:{tmp_path / 'new'}", device="cpu")
    assert encoder.has_text
    assert torch.equal(encoder.preprocess(image), residual.load_encoder("picto").preprocess(image))


def test_a_vision_tower_beside_a_tokenizer_has_no_text(folder, tmp_path):
    vision = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    model = CLIPVisionModelWithProjection(vision.config.vision_config)
    model.load_state_dict({k: v for k, v in vision.state_dict().items() if k in model.state_dict()})
    model.save_pretrained(folder)
    encoder = residual.load_encoder(f"hf:{folder}", device="cpu", dtype=torch.float32)
    assert not encoder.has_text
    pixels = torch.rand(2, 3, 64, 64)
    picto = residual.load_encoder("picto", device="cpu", dtype=torch.float32)
    torch.testing.assert_close(encoder.encode_image(pixels), picto.encode_image(pixels))


def test_missing_weights_are_refused_and_not_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ResidualError, match=r"lacks weights, visual_projection\.weight"):
        residual.load_encoder(f"hf:{folder}")


def test_weights_of_another_shape_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["intermediate_size"] = 512
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ResidualError, match="can't be loaded"):
        residual.load_encoder(f"hf:{folder}")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json"])
def test_a_damaged_file_is_one_sentence(folder, name):
    (folder / name).write_text("{ not json")
    with pytest.raises(ResidualError, match="can't be loaded") as caught:
        residual.load_encoder(f"hf:{folder}")
    assert "\n" not in str(caught.value)
