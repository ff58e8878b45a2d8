"""Tiny models of every family on disk, as their own libraries write them, for tests of `load_encoder`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import families
import huggingface_hub
import open_clip
import pytest
import timm
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from tiny import tiny_clip

Own = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Saved:
    """A model on disk, and what its own library makes of images and texts."""

    name: str
    image: Own
    output_dim: int
    text: Callable[[list[str]], torch.Tensor] | None = None
    splits_text: bool = True
    size: tuple[int, int] | None = (32, 32)
    pixels: int = 32
    how: dict[str, Any] = field(default_factory=dict)


def transformers_folder(kind: str, at: Path, **how: Any) -> Saved:
    if kind == "CLIPModel":
        model = tiny_clip(dtype=torch.float32)
    elif kind == "CLIPVisionModelWithProjection":
        model = families.CASES["clip vision"].make()
    else:
        model = families.transformers_model(kind, **how)
    model.save_pretrained(at)
    size = {"height": 32, "width": 32}
    if kind.startswith("CLIP") or kind.startswith(("MetaClip2", "Aimv2")):
        processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    elif kind.startswith("Siglip2"):
        processor = transformers.Siglip2ImageProcessor(patch_size=16, max_num_patches=5)
    elif kind.startswith(("Beit", "Data2Vec")):
        processor = transformers.BeitImageProcessor(size=size, do_center_crop=False)
    elif kind.startswith("DeiT"):
        processor = transformers.DeiTImageProcessor(size={"height": 36, "width": 36}, crop_size=size)
    elif kind.startswith("Dino"):
        processor = transformers.BitImageProcessor(size={"shortest_edge": 36}, crop_size=size)
    else:
        name = kind.removesuffix("Model").removesuffix("Vision").removesuffix("ForImageClassification")
        name = name.removesuffix("ForImageTextRetrieval")
        processor = getattr(transformers, f"{name}ImageProcessor")(size=size)
    processor.save_pretrained(at)
    text = None
    if kind in TOKENIZERS:
        tokenizer, padding = TOKENIZERS[kind]()
        tokenizer.save_pretrained(at)

        def text(texts: list[str]) -> torch.Tensor:
            how = {"truncation": True, "max_length": 10, "return_tensors": "pt", "padding_side": "right"}
            tokens = tokenizer(texts, padding=padding, **how)
            return TEXT_OUTPUT[kind](model, tokens)

    return Saved(
        name=f"hf:{at}",
        image=lambda pixels: IMAGE_OUTPUT[kind](model, pixels),
        output_dim=7
        if kind in CLASSIFIERS
        else 12
        if kind.startswith(("CLIPModel", "CLIPVisionModelWith", "Blip", "Aimv2Model", "MetaClip2Model"))
        else 512
        if kind.startswith("MetaClip2")
        else 24,
        text=text,
        splits_text=not kind.startswith("Blip"),
        size=None if kind.startswith(("Dino", "DINO", "Siglip2")) else (32, 32),
        how={"classifier": True} if kind in CLASSIFIERS else {},
    )


def pooled(output: Any) -> torch.Tensor:
    """The features themselves, which transformers before 5 gives without more."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


CLASSIFIERS = (
    "ViTForImageClassification",
    "DeiTForImageClassification",
    "DeiTForImageClassificationWithTeacher",
    "BeitForImageClassification",
)


def clip_tokenizer() -> tuple[Any, str]:
    letters = [chr(code) for code in range(97, 123)]
    vocab = {token: i for i, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    vocab |= {"<|startoftext|>": 62, "<|endoftext|>": 63} | {f"unused{i}": i for i in range(52, 62)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=10), "max_length"


def word_tokenizer() -> tuple[Any, str]:
    words = ["<pad>", "<unk>", "</s>", "a", "red", "cat", "dog", "of"]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special), "max_length"


def gemma_tokenizer() -> tuple[Any, str]:
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *map(chr, range(97, 123))]
    vocab = {word: index for index, word in enumerate(words)}
    return transformers.Siglip2Tokenizer(vocab=vocab, merges=[]), "max_length"


def bert_tokenizer() -> tuple[Any, str]:
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "a", "red", "cat", "dog", "of"]
    return transformers.BertTokenizer(vocab={word: index for index, word in enumerate(words)}), "longest"


TOKENIZERS = {
    "CLIPModel": clip_tokenizer,
    "SiglipModel": word_tokenizer,
    "BlipForImageTextRetrieval": bert_tokenizer,
    "MetaClip2Model": clip_tokenizer,
    "Siglip2Model": gemma_tokenizer,
    "Aimv2Model": clip_tokenizer,
}
TEXT_OUTPUT: dict[str, Callable[[Any, Any], torch.Tensor]] = {
    "CLIPModel": lambda model, tokens: pooled(model.get_text_features(**tokens)),
    # SigLIP was trained without a mask: padding is seen.
    "SiglipModel": lambda model, tokens: pooled(model.get_text_features(tokens["input_ids"])),
    "MetaClip2Model": lambda model, tokens: pooled(model.get_text_features(**tokens)),
    "Siglip2Model": lambda model, tokens: pooled(model.get_text_features(tokens["input_ids"])),
    "Aimv2Model": lambda model, tokens: pooled(model.get_text_features(**tokens)),
    "BlipForImageTextRetrieval": lambda model, tokens: model.text_proj(
        model.text_encoder(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state[:, 0]
    ),
}


def naflex(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Pictures of one size as SigLIP 2's image processor cuts them: patches, in each its rows of colours."""
    side = families.PATCH
    rows = [part for row in pixels.split(side, 2) for part in row.split(side, 3)]
    patches = torch.stack([part.permute(0, 2, 3, 1).flatten(1) for part in rows], 1)
    shapes = torch.tensor([[length // side for length in pixels.shape[2:]]] * len(pixels))
    seen = torch.ones(patches.shape[:2], dtype=torch.int32)
    return {"pixel_values": patches, "spatial_shapes": shapes, "pixel_attention_mask": seen}


IMAGE_OUTPUT: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "CLIPModel": lambda model, pixels: pooled(model.get_image_features(pixels)),
    "CLIPVisionModel": lambda model, pixels: model(pixels).pooler_output,
    "BeitModel": lambda model, pixels: model(pixels).pooler_output,
    "BeitForImageClassification": lambda model, pixels: model(pixels).logits,
    "Data2VecVisionModel": lambda model, pixels: model(pixels).pooler_output,
    "DeiTForImageClassification": lambda model, pixels: model(pixels).logits,
    "CLIPVisionModelWithProjection": lambda model, pixels: model(pixels).image_embeds,
    "SiglipModel": lambda model, pixels: pooled(model.get_image_features(pixels)),
    "SiglipVisionModel": lambda model, pixels: model(pixels).pooler_output,
    "BlipForImageTextRetrieval": lambda model, pixels: model.vision_proj(
        model.vision_model(pixels).last_hidden_state[:, 0]
    ),
    "ViTModel": lambda model, pixels: model(pixels).last_hidden_state[:, 0],
    "ViTForImageClassification": lambda model, pixels: model(pixels).logits,
    "MetaClip2Model": lambda model, pixels: pooled(model.get_image_features(pixels)),
    "MetaClip2VisionModelWithProjection": lambda model, pixels: model(pixels).image_embeds,
    "Siglip2Model": lambda model, pixels: pooled(model.get_image_features(**naflex(pixels))),
    "Siglip2VisionModel": lambda model, pixels: model(**naflex(pixels)).pooler_output,
    "DINOv3ViTModel": lambda model, pixels: model(pixels).pooler_output,
    "Aimv2Model": lambda model, pixels: pooled(model.get_image_features(pixels)),
    "Aimv2VisionModel": lambda model, pixels: (
        model(pixels).pooler_output if model.use_head else model(pixels).last_hidden_state.mean(1)
    ),
    "DeiTModel": lambda model, pixels: model(pixels).last_hidden_state[:, 0],
    "DeiTForImageClassificationWithTeacher": lambda model, pixels: model(pixels).logits,
    "Dinov2Model": lambda model, pixels: model(pixels).pooler_output,
    "Dinov2WithRegistersModel": lambda model, pixels: model(pixels).pooler_output,
}

CLIP_CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "layers": 2, "width": 24, "head_width": 8},
    "text_cfg": {"context_length": 10, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
TRUNK = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
MAP_TRUNK = {"timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none", "image_size": 160}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny": CLIP_CONFIG,
    "tiny-quickgelu": CLIP_CONFIG | {"quick_gelu": True},
    "tiny-trunk": CLIP_CONFIG | {"custom_text": True, "vision_cfg": TRUNK},
    "tiny-map-trunk": CLIP_CONFIG | {"custom_text": True, "vision_cfg": MAP_TRUNK, "embed_dim": 96},
}


def open_clip_saved(architecture: str, at: Path, as_file: bool) -> Saved:
    config = dict(ARCHITECTURES[architecture])
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    model = families.randomized(kind(**config))
    at.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), at / "open_clip_model.safetensors")
    if as_file:
        (at / f"{architecture}.json").write_text(json.dumps(ARCHITECTURES[architecture]))
        open_clip.add_model_config(at / f"{architecture}.json")
        name = f"open_clip:{architecture}/{at / 'open_clip_model.safetensors'}"
    else:
        whole = {"model_cfg": ARCHITECTURES[architecture], "preprocess_cfg": {"resize_mode": "squash"}}
        (at / "open_clip_config.json").write_text(json.dumps(whole))
        name = f"open_clip:{at}"
    return Saved(
        name=name,
        image=model.encode_image,
        output_dim=config["embed_dim"],
        text=lambda texts: model.encode_text(open_clip.tokenize(texts, context_length=10)),
        size=model.visual.image_size,
        pixels=model.visual.image_size[0],
    )


def timm_saved(at: Path, as_file: bool, classifier: bool) -> Saved:
    model = families.randomized(timm.create_model("test_vit", num_classes=1000 if as_file else 7))
    if as_file:
        save_file(model.state_dict(), at / "own.safetensors")
    else:
        timm.models.save_for_hf(model, at, safe_serialization=True)
    logits, features = model, lambda x: model.forward_head(model.forward_features(x), pre_logits=True)
    return Saved(
        name=f"timm:test_vit/{at / 'own.safetensors'}" if as_file else f"timm:{at}",
        image=logits if classifier else features,
        output_dim=model.num_classes if classifier else 64,
        size=None,
        pixels=160,
        how={"classifier": classifier},
    )


PE_TRUNK = {"timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map", "timm_proj": None}
ARCHITECTURES["pe-trunk"] = CLIP_CONFIG | {"custom_text": True, "vision_cfg": PE_TRUNK | {"image_size": 384}}
CASES: dict[str, Callable[[Path], Saved]] = {
    **{f"hf {kind}": lambda at, kind=kind: transformers_folder(kind, at) for kind in IMAGE_OUTPUT},
    **{
        f"hf {kind}": lambda at, kind=kind: transformers_folder(kind, at, num_labels=7)
        for kind in CLASSIFIERS
    },
    **{
        f"{architecture} {'file' if as_file else 'folder'}": (
            lambda at, architecture=architecture, as_file=as_file: open_clip_saved(architecture, at, as_file)
        )
        for architecture in ARCHITECTURES
        for as_file in (False, True)
        if architecture != "pe-trunk" or not as_file
    },
    **{
        f"timm {'file' if as_file else 'folder'} {'logits' if classifier else 'features'}": (
            lambda at, as_file=as_file, classifier=classifier: timm_saved(at, as_file, classifier)
        )
        for as_file in (False, True)
        for classifier in (False, True)
    },
}


def no_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """No hub but what lies in `cache`; open_clip's architectures and tags are put back after."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    factory, tags = open_clip.factory, open_clip.pretrained
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", [*factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    monkeypatch.setattr(tags, "_PRETRAINED", dict(tags._PRETRAINED))


def put_into_cache(cache: Path, repo: str, folder: Path, revision: str = "main") -> None:
    """The files of `folder` as the hub's client would have left them there."""
    at = cache / f"models--{repo.replace('/', '--')}"
    commit = hashlib.sha1(revision.encode()).hexdigest()
    (at / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
    (at / "refs" / revision).write_text(commit)
    shutil.copytree(folder, at / "snapshots" / commit)
