"""Files that ask for code of their own to be run, inputs that don't fit, models that nothing can split."""

import json

import open_clip
import pytest
import timm
import torch
from families import CASES, open_clip_model, timm_model, transformers_model
from safetensors.torch import save_file
from saved import CLIP_CONFIG

from residual import decompose, load_encoder, wrap_encoder
from residual.errors import ResidualError


def test_a_tokenizer_of_its_own_code_is_not_run(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    config = json.loads(json.dumps(CLIP_CONFIG))
    config["text_cfg"] |= {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    (folder / "config.json").write_text(json.dumps({"model_type": "mine"}))
    auto = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(auto))
    ran = tmp_path / "ran"
    (folder / "mine.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    save_file(open_clip_model(text=dict(CLIP_CONFIG["text_cfg"])).state_dict(), folder / open_clip_file())
    encoder = load_encoder(f"open_clip:{folder}", device="cpu")
    with pytest.raises(ResidualError, match="it can't be had from the hub"):
        encoder.encode_text(["a"])
    assert not ran.exists()


def open_clip_file() -> str:
    return "open_clip_model.safetensors"


@pytest.mark.parametrize(
    "asks", [{"attn_implementation": "some/kernels"}, {"quantization_config": {"quant_method": "x"}}], ids=str
)
def test_configs_that_ask_for_other_code_are_refused(tmp_path, asks):
    transformers_model("ViTModel").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | asks))
    with pytest.raises(ResidualError, match=r"config\.json asks for other code .* which isn't run"):
        load_encoder(f"hf:{tmp_path}", device="cpu")


@pytest.mark.parametrize("config", ["[]", '{"model_type": "vit", "hidden_size": "x"}'])
def test_configs_that_make_no_sense_are_one_sentence(tmp_path, config):
    transformers_model("ViTModel").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ResidualError, match="can't be loaded") as caught:
        load_encoder(f"hf:{tmp_path}", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (3, 32, 32), (2, 1, 32, 32)])
def test_pixels_that_are_no_images(shape):
    encoder = wrap_encoder(CASES["timm"].make())
    with pytest.raises(ResidualError, match=r"takes one image or more as \(n, 3, height, width\), got"):
        encoder.checked_pixels(torch.zeros(shape))


@pytest.mark.parametrize("ids", [torch.ones(0, 10).long(), torch.ones(2, 10), torch.ones(10).long()], ids=str)
def test_ids_that_are_no_texts(ids):
    encoder = wrap_encoder(CASES["clip"].make())
    with pytest.raises(ResidualError, match=r"Token ids are whole numbers \(n, t\)"):
        encoder.checked_ids(ids)


def test_no_gradients_inside_inference_mode():
    encoder = wrap_encoder(CASES["clip"].make())
    pixels = torch.randn(2, 3, 32, 32)
    with (
        torch.inference_mode(),
        pytest.raises(ResidualError, match=r"no gradients inside torch\.inference_mode"),
    ):
        decompose(encoder, pixels, grad=True)
    with torch.inference_mode():
        decompose(encoder, pixels)
    pixels = pixels.clone().requires_grad_()
    decompose(encoder, pixels, grad=True).contributions.sum().backward()  # with the map made before
    assert pixels.grad is not None


def test_fingerprints_tell_how_tokens_are_pooled_and_what_activates():
    makes = [
        timm_model(),
        timm_model(global_pool="avg", fc_norm=False),
        timm_model(global_pool="avg", fc_norm=False, pool_include_prefix=True),
        timm_model(act_layer="gelu_tanh"),
        open_clip_model(),
        open_clip_model(pool_type="avg"),
        open_clip_model(quick_gelu=True),
    ]
    assert len({wrap_encoder(model).fingerprint for model in makes}) == len(makes)


def test_towers_that_give_their_tokens_too():
    model = open_clip_model(output_tokens=True)
    expected, _ = model.encode_image(torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(wrap_encoder(model).encode_image(torch.ones(1, 3, 32, 32)), expected)


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "MobileCLIP-B"])
def test_a_file_is_preprocessed_as_all_weights_of_its_architecture(name):
    from residual.encoders.families.open_clip import _usual_preprocessing

    tags = open_clip.list_pretrained_tags_by_model(name)
    config = open_clip.get_pretrained_cfg(name, tags[0])
    assert _usual_preprocessing(open_clip, name)["mean"] == config["mean"]
    assert config["mean"] != open_clip.OPENAI_DATASET_MEAN


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "convnext_atto", "beit_base_patch16_224"])
def test_other_models_of_timm_are_refused_in_a_few_words(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ResidualError, match=r"is of no known family .* looked for .*; not found: ") as caught:
        wrap_encoder(model)
    assert len(str(caught.value)) < 1500
