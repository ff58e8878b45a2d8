"""What `aliases.json` says of each model is what the libraries build by that name."""

import open_clip
import pytest
import timm
import torch

from residual.encoders import ALIASES, load_encoder
from residual.encoders.families import FAMILIES

# The same architectures by timm's names, for models whose own configs are only on the hub.
TWINS = {
    "hf_clip_l": "vit_large_patch14_clip_336",
    "blip_l_flickr": "vit_large_patch16_384",
    "vit_b": "vit_base_patch16_224",
    "vit_l": "vit_large_patch16_224",
    "dinov2_l": "vit_large_patch14_dinov2",
}
# What the text side shares, which no vision model tells: the width of the joint space.
JOINT = {"hf_clip_l": 768, "blip_l_flickr": 256}


@pytest.mark.parametrize("name", [name for name, alias in ALIASES.items() if "open_clip" in alias.spec])
def test_open_clip_models(name):
    alias = ALIASES[name]
    architecture, tag = alias.spec.removeprefix("open_clip:").split("/")
    config = open_clip.get_model_config(architecture)
    vision = config["vision_cfg"]
    heads = vision["width"] // vision.get("head_width", 64)
    found = (vision["layers"], heads, vision["width"], config["embed_dim"], vision["image_size"])
    assert found == (alias.layers, alias.heads, alias.width, alias.output_dim, alias.image_size)
    assert tag in open_clip.list_pretrained_tags_by_model(architecture)
    assert open_clip.get_pretrained_cfg(architecture, tag)["hf_hub"]


@pytest.mark.parametrize("name", TWINS)
def test_transformers_models(name):
    alias = ALIASES[name]
    with torch.device("meta"):
        twin = timm.create_model(TWINS[name], num_classes=0)
    assert (len(twin.blocks), twin.blocks[0].attn.num_heads) == (alias.layers, alias.heads)
    assert twin.embed_dim == alias.width
    assert JOINT.get(name, alias.width) == alias.output_dim
    # DINOv2 was trained at 518 pixels; its checkpoint's preprocessing makes 224.
    assert alias.image_size == (224 if name == "dinov2_l" else twin.patch_embed.img_size[0])


def test_the_embedded_one():
    alias, encoder = ALIASES["picto"], load_encoder("picto", device="cpu")
    assert (len(encoder.parts.blocks), encoder.parts.heads) == (alias.layers, alias.heads)
    assert (encoder.parts.width, encoder.output_dim) == (alias.width, alias.output_dim)
    assert encoder.image_size == (alias.image_size, alias.image_size)
    assert encoder.text_parts.blocks


def test_families_are_known_by_their_names():
    families = {family.name: family for family in FAMILIES}
    for alias in ALIASES.values():
        family = families[alias.family]
        assert bool(family.text) == bool(alias.text)
        assert bool(family.no_text_parts) == (alias.text == "encode")
