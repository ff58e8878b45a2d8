"""The shipped folder is a plain Hugging Face CLIP: nothing of this library is imported here."""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer, CLIPVisionModelWithProjection

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "src/residual/encoders/picto"
END = 6033


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> CLIPModel:
    return CLIPModel.from_pretrained(FOLDER, dtype=torch.float32).eval()


def test_loads_without_a_warning_or_a_missing_weight(caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, report = CLIPModel.from_pretrained(FOLDER, output_loading_info=True)
    assert not any(report[what] for what in ("missing_keys", "mismatched_keys", "unexpected_keys"))
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert {p.dtype for p in model.parameters()} == {torch.float16}


def test_vision_tower_loads_alone_and_gives_the_same(model):
    """Transformers lists the text tower's weights as unused here, as it does for every CLIP folder."""
    vision, report = CLIPVisionModelWithProjection.from_pretrained(
        FOLDER, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    assert all(key.startswith(("text_", "logit_scale")) for key in report["unexpected_keys"])
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        embeds = vision.eval()(pixel_values=pixels).image_embeds
        whole = model.visual_projection(model.vision_model(pixels).pooler_output)
    assert embeds.shape == (2, 192)
    torch.testing.assert_close(embeds, whole)


def test_size_and_shape(model):
    vision = model.config.vision_config
    assert vision.num_hidden_layers >= 8
    assert vision.num_hidden_layers * vision.num_attention_heads >= 48
    assert vision.image_size == 64
    assert (FOLDER / "model.safetensors").stat().st_size <= 16_000_000
    assert sum(p.numel() for p in model.parameters()) == 6_627_457


def test_all_weights_are_finite(model):
    assert all(p.isfinite().all() for p in model.parameters())


def test_processor_gives_what_the_encoder_was_trained_on():
    processor = CLIPImageProcessor.from_pretrained(FOLDER)
    ramp = np.repeat(np.linspace(0, 255, 100, dtype=np.uint8)[None, :, None], 80, 0).repeat(3, 2)
    pixels = processor(images=[Image.fromarray(ramp)], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 64, 64)
    assert -1 <= pixels.min() < -0.7
    assert 0.7 < pixels.max() <= 1


@pytest.mark.parametrize(
    "text",
    [
        "a photo of a cat",
        "three red triangles",
        "the flag of bosnia & herzegovina",
        'the number: "7".',
        "a zigzag",
    ],
)
def test_words_come_back(tokenizer, text):
    decoded = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    assert re.sub(r"\s", "", decoded) == re.sub(r"\s", "", text)


def test_capitals_and_spaces_do_not_matter(tokenizer):
    assert tokenizer("A  Photo of\ta CAT")["input_ids"] == tokenizer("a photo of a cat")["input_ids"]


def test_no_character_is_mistaken_for_an_end(tokenizer):
    """CLIP pools at the first end token: inside a text it would cut the rest off."""
    assert tokenizer.eos_token_id == END
    every = (chr(code) for code in range(32, sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF)
    printable = [char for char in every if char.isprintable()]
    assert len(printable) > 100_000
    texts = ["".join(printable[at : at + 4]) for at in range(0, len(printable), 4)]
    texts += [f"a {char} b" for char in printable[:3000]]
    for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
        assert END not in ids[:-1], f"{text!r} gives an end token in the middle: {ids}"


def test_pads_and_cuts_to_the_context(tokenizer):
    assert tokenizer.model_max_length == 32
    short, long = tokenizer(["a cat", "cat " * 60], padding="max_length", truncation=True)["input_ids"]
    assert len(short) == len(long) == 32
    assert short[4:] == [END] * 28
    assert long[-1] == END
    assert END not in long[:-1]


@torch.inference_mode()
def test_text_is_read_at_its_first_end(model, tokenizer):
    texts = ["a cat", "a picture of a red umbrella, seen from above"]
    one_by_one = [tokenizer([text], return_tensors="pt") for text in texts]
    together = tokenizer(texts, padding="max_length", return_tensors="pt")
    output = model.text_model(**together)
    first = (together["input_ids"] == END).int().argmax(1)
    assert first.tolist() == [len(ids["input_ids"][0]) - 1 for ids in one_by_one]
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state[torch.arange(2), first])
    alone = torch.cat([model.text_model(**ids).pooler_output for ids in one_by_one])
    torch.testing.assert_close(output.pooler_output, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("page", ["README.md", "LICENSES.md"])
def test_every_source_is_named(page):
    text = (FOLDER / page).read_text(encoding="utf-8")
    manifest = json.loads((ROOT / "picto/corpus-manifest.json").read_text(encoding="utf-8"))
    for name, count in manifest["icon_sets"].items():
        row = re.search(rf"^\| `{name}` \|.* {count:,} \| (.*) \| (.*) \|$", text, re.MULTILINE)
        assert row, f"{name} with its {count:,} pictures is not in {page}"
        assert not re.search("SA|NC|ND|GPL", row[1].split("]")[0]), f"{name} is under {row[1]}"
    if page == "LICENSES.md":
        missing = [font for font in manifest["fonts"] if f"\n| `{font}` | " not in text]
        assert not missing
        assert "Changes made" in text


def test_the_card_reports_the_committed_results():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    val, test = (
        json.loads((ROOT / f"picto/results/{split}.json").read_text(encoding="utf-8"))["zero_shot"]
        for split in ("val", "test")
    )
    for name in test:
        assert (
            f"| {val[name]:.3f} | {test[name]:.3f} |"
            in re.search(rf"^\| `{name}` .*$", card, re.MULTILINE)[0]
        )


def test_the_card_shows_code_that_runs(tmp_path, monkeypatch, capsys):
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
    canvas = np.full((64, 64, 3), 255, np.uint8)
    y, x = np.mgrid[:64, :64] - 32
    canvas[np.hypot(x, y) < 24] = (214, 40, 40)
    Image.fromarray(canvas).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    exec(compile(code.replace('"picto"', repr(str(FOLDER))), "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "a red circle" in said.splitlines()[0]
