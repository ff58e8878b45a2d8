"""What a model's own config says of how it is called changes nothing of what is split."""

from __future__ import annotations

import families
import pytest
import torch
from tiny import random_pixels

import residual

# Data2Vec's is BEiT's, and transformers can't set its form of attention.
OTHERS = ("open_clip", "timm", "eva", "torchvision", "data2vec")
KINDS = [kind for kind in families.CASES if not kind.startswith(OTHERS)]
FLAGS = ["return_dict", "output_hidden_states", "output_attentions", "eager"]


def set_so(model, flag):
    if flag in ("output_attentions", "eager"):
        model.set_attn_implementation("eager")
    if flag == "eager":
        return
    for name in (None, "vision_config", "text_config"):
        config = model.config if name is None else getattr(model.config, name, None)
        if config is not None:
            setattr(config, flag, flag != "return_dict")


@pytest.mark.filterwarnings("ignore:.*attention implementation.*")
@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_models_flags_change_no_number(kind, flag):
    pixels, ids = random_pixels(2, dtype=torch.float32), torch.tensor([[62, 5, 63, 0, 0, 0, 0, 0, 0, 0]])
    plain, model = residual.wrap_encoder(families.CASES[kind].make()), families.CASES[kind].make()
    set_so(model, flag)
    if kind.startswith("dino") and flag == "return_dict":  # which transformers itself can't run
        with pytest.raises(residual.ResidualError, match=r"set to return tuples.*return_dict = True"):
            residual.wrap_encoder(model)
        return
    encoder = residual.wrap_encoder(model)
    assert encoder.fingerprint == plain.fingerprint
    want, got = (residual.decompose(each, pixels) for each in (plain, encoder))
    torch.testing.assert_close(got.contributions, want.contributions, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoder.encode_image(pixels), want.output[:, 0], atol=1e-5, rtol=1e-4)
    if encoder.family.text is not None:
        torch.testing.assert_close(encoder.run("text", ids), plain.run("text", ids), atol=1e-5, rtol=1e-4)
