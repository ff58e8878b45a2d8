"""Files that ask for code of their own to be run, inputs that don't fit, models that nothing can split."""

import json
import shutil
import socket
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from families import CASES, open_clip_model, timm_model, transformers_model
from safetensors.torch import load_file, save_file
from saved import CLIP_CONFIG
from tiny import random_pixels

from residual import decompose, load_encoder, wrap_encoder
from residual.errors import ResidualError


@pytest.fixture
def alone(monkeypatch):
    """Nobody answers a question, and whatever is asked for over a network is noted."""
    asked = []

    def connect(self, address):
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr("builtins.input", lambda *_: asked.append("the user"))
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *about, **_: connect(None, about))
    return asked


def write(folder: Path, name: str, fields: dict) -> None:
    folder.mkdir(exist_ok=True)
    before = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
    (folder / name).write_text(json.dumps(before | fields))


def test_an_open_clip_folder_names_no_other_model(tmp_path, alone):
    weights = open_clip_model(text=dict(CLIP_CONFIG["text_cfg"])).state_dict()
    other, ran = tmp_path / "other", tmp_path / "ran"
    write(other, "config.json", {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}})
    (other / "mine.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    for number, (where, sets, sentence) in enumerate(
        [
            (
                "text_cfg",
                {"hf_model_name": str(other)},
                "text tower is .*other' of a hub, which isn't fetched",
            ),
            ("text_cfg", {"hf_model_name": "them/theirs"}, "text tower is 'them/theirs' of a hub"),
            (
                "vision_cfg",
                {"timm_model_name": "hf-hub:them/theirs"},
                "'hf-hub:them/theirs', which is no model of",
            ),
            ("vision_cfg", {"timm_model_name": f"local-dir:{other}"}, "which is no model of timm's own"),
            (
                "text_cfg",
                {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}},
                "gives its tokenizer bpe_path; taken",
            ),
            ("vision_cfg", {"image_size": 100_000}, "says image_size 100000, and any picture has 8,192"),
            (
                "text_cfg",
                {"vocab_size": 10**8},
                "a model of 1,6.*, and its weights have 830,881",
            ),
            ("text_cfg", {"layers": 10**6}, "says layers 1000000, and its weights have 10 at most"),
            ("text_cfg", {"layers": "1000000"}, "says layers 1000000, and its weights have 10 at most"),
            ("vision_cfg", {"layers": [[1], [[10**6]]]}, "1000000.*, and its weights have 10 at most"),
        ]
    ):
        folder = tmp_path / str(number)
        config = json.loads(json.dumps(CLIP_CONFIG))
        config[where] |= sets
        write(folder, "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": {}})
        save_file(weights, folder / "open_clip_model.safetensors")
        with pytest.raises(ResidualError, match=sentence):
            load_encoder(f"open_clip:{folder}", device="cpu")
    write(folder, "open_clip_config.json", {"model_cfg": CLIP_CONFIG | {"text_cfg": text_with_a_tokenizer()}})
    # For other libraries, and read by none that is asked here.
    write(folder, "config.json", {"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine"}})
    write(folder, "adapter_config.json", {"base_model_name_or_path": "them/theirs"})
    encoder = load_encoder(f"open_clip:{folder}", device="cpu")
    with pytest.raises(ResidualError, match="it can't be had from the hub"):
        encoder.encode_text(["a"])  # its tokenizer is looked for in the folder alone
    write(folder, "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}})
    with pytest.raises(
        ResidualError, match=r"tokenizer_config\.json asks for other code or files \(auto_map"
    ):
        load_encoder(f"open_clip:{folder}", device="cpu")
    assert not alone
    assert not ran.exists()


def text_with_a_tokenizer() -> dict:
    return CLIP_CONFIG["text_cfg"] | {"hf_tokenizer_name": "them/theirs"}


def test_folders_that_ask_for_code_other_files_or_other_models_are_refused(tmp_path, alone):
    transformers_model("ViTModel").save_pretrained(tmp_path / "vit")
    timm.models.save_for_hf(timm.create_model("test_vit"), tmp_path / "timm", safe_serialization=True)
    index = {"weight_map": {"a": "../other/model.safetensors"}}
    for number, (kind, file, fields, sentence) in enumerate(
        [
            ("vit", "config.json", {"attn_implementation": "some/kernels"}, "other code or files .attn_impl"),
            (
                "vit",
                "config.json",
                {"vision_config": {"_attn_implementation": "some/kernels"}},
                "some/kernels",
            ),
            ("vit", "config.json", {"quantization_config": {"quant_method": "x"}}, "which isn't run"),
            ("vit", "config.json", {"custom_pipelines": {"x": {"impl": "mine.Mine"}}}, "custom_pipelines"),
            (
                "vit",
                "config.json",
                {"num_hidden_layers": 10**6},
                "10{6}, and its weights",
            ),
            ("vit", "processor_config.json", {"auto_map": {"AutoProcessor": "mine.Mine"}}, "auto_map"),
            ("vit", "tokenizer_config.json", {"vocab_file": "/etc/passwd"}, "vocab_file: /etc/passwd"),
            ("vit", "adapter_config.json", {"base_model_name_or_path": "them/theirs"}, "names another model"),
            ("vit", "model.safetensors.index.json", index, "names files that are none of its own"),
            (
                "vit",
                "model.safetensors.index.json",
                {"weight_map": {"a": "model-00002-of-00002.safetensors"}},
                r"lacks model-00002-of-00002\.safetensors of its weights",
            ),
            (
                "vit",
                "preprocessor_config.json",
                {"size": {"height": 10**5, "width": 1}},
                "any picture has 8,192",
            ),
            (
                "vit",
                "preprocessor_config.json",
                {"image_std": [0, 0, 0]},
                "that aren't 0 normalise a picture",
            ),
            (
                "vit",
                "preprocessor_config.json",
                {"crop_size": -3, "do_center_crop": True},
                "A picture's side",
            ),
            ("vit", "preprocessor_config.json", {"image_processor_type": "pipeline"}, "processor 'pipeline'"),
            ("vit", "preprocessor_config.json", {"rescale_factor": "a"}, "Three means"),
            ("timm", "config.json", {"pretrained_cfg": {"input_size": [3, 10**5, 10**5]}}, "input_size"),
            (
                "timm",
                "config.json",
                {"pretrained_cfg": {"std": "apache-2.0"}},
                "the model in .* can't be loaded",
            ),
            (
                "timm",
                "config.json",
                {"pretrained_cfg": {"input_size": [3, 33, 33]}, "model_args": {"dynamic_img_size": True}},
                r"pictures of \(33, 33\), which patches of \(\d+, \d+\) don't divide",
            ),
            ("timm", "config.json", {"auto_map": {"AutoModel": "mine.Mine"}}, "auto_map"),
        ]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / kind, folder)
        if kind == "vit":
            write(folder, "preprocessor_config.json", {"image_processor_type": "ViTImageProcessor"})
        write(folder, file, fields)
        with pytest.raises(ResidualError, match=sentence):
            load_encoder(f"{'hf' if kind == 'vit' else 'timm'}:{folder}", device="cpu")
    assert not alone


def test_a_model_of_a_known_kind_is_loaded_without_the_code_that_its_config_names(tmp_path, alone):
    model = transformers_model("Aimv2VisionModel", use_head=False)
    model.save_pretrained(tmp_path)
    size = {"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 32}}
    write(tmp_path, "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor"} | size)
    code = {each: f"them/theirs--mine.{each}" for each in ("AutoConfig", "AutoModel", "AutoTokenizer")}
    pixels = random_pixels(2, dtype=torch.float32)
    # As the published AIMv2 is, and as it was: under the name of the whole model, without its texts.
    for kind in ("aimv2_vision_model", "aimv2"):
        write(tmp_path, "config.json", {"auto_map": code, "model_type": kind})
        seen = load_encoder(f"hf:{tmp_path}", device="cpu").encode_image(pixels)
        torch.testing.assert_close(seen, model(pixels).last_hidden_state.mean(1))
    weights = load_file(tmp_path / "model.safetensors")
    for name, value in (("trunk.weight", torch.ones(1)), ("rms_norm.weight", None)):
        changed = {key: each for key, each in (weights | {name: value}).items() if each is not None}
        save_file(changed, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(ResidualError, match=rf"which isn't run: .* Aimv2VisionModel \({name}\)"):
            load_encoder(f"hf:{tmp_path}", device="cpu")
    assert not alone


@pytest.mark.parametrize("config", ["5", "[]", '{"model_type": "vit", "hidden_size": "x"}'])
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


def test_a_tokenizer_of_another_text_tower_is_refused():
    encoder = wrap_encoder(
        CASES["clip"].make(), tokenizer=lambda texts, **_: {"input_ids": torch.tensor([[10**6]])}
    )
    with pytest.raises(
        ResidualError, match=r"gives the id 1000000, and the text tower has embeddings for \d+"
    ):
        encoder.encode_text(["a"])


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


@pytest.mark.parametrize("name", ["convnext_atto", "cait_xxs24_224"])
def test_other_models_of_timm_are_refused_in_a_few_words(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ResidualError, match=r"is of no known family .* looked for .*; not found: ") as caught:
        wrap_encoder(model)
    assert len(str(caught.value)) < 1500
