"""`residual encoders`: the list, and one encoder looked into."""

import json

from families import CASES
from PIL import Image

from residual.encoders import ALIASES, load_encoder


def test_lists_every_short_name_and_what_it_stands_for(residual, tmp_path):
    code, shown, _ = residual("encoders", "--json", tmp_path / "all.json")
    assert code == 0
    written = {entry.pop("name"): entry for entry in json.loads((tmp_path / "all.json").read_text())}
    assert list(written) == list(ALIASES)
    assert written["openclip_l"]["layers"] == 24
    assert written["dinov2_l"]["text"] == ""
    for name, alias in ALIASES.items():
        assert name in shown
        assert f"{alias.spec} ({alias.licence})" in shown
        assert set(alias.family.split()) <= set(shown.split())
    for form in ("open_clip:ARCH/PRETRAINED", "hf:REPO_OR_FOLDER", "timm:NAME"):
        assert form in shown


def test_looks_into_one(residual, tmp_path):
    code, shown, _ = residual("encoders", "picto", "--json", tmp_path / "one.json")
    assert code == 0
    facts = json.loads((tmp_path / "one.json").read_text())
    assert facts["units"] == {"emb": 1, "mlp": 8, "head": 48}
    assert facts["text"] == {"layers": 4, "heads": 6, "width": 192}
    assert facts["fingerprint"] == load_encoder("picto", device="cpu").fingerprint
    assert "class token" in shown
    assert "6,627,457" in shown


def test_an_attention_pool_and_a_text_tower_that_cannot_be_split_are_said(residual, tmp_path):
    import transformers

    CASES["siglip vision"].make().save_pretrained(tmp_path / "siglip")
    transformers.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "siglip")
    code, shown, _ = residual("encoders", f"hf:{tmp_path / 'siglip'}")
    assert code == 0
    assert "attention, with an MLP behind it" in shown
    assert "1 emb, 3 mlp, 6 head" in shown
    pixels = load_encoder(f"hf:{tmp_path / 'siglip'}", device="cpu").preprocess(Image.new("RGB", (40, 30)))
    assert pixels.shape == (3, 32, 32)


def test_an_unknown_name_is_one_sentence(residual):
    code, _, told = residual("encoders", "openclip_z")
    assert code == 2
    assert told.startswith("residual: Unknown encoder 'openclip_z'. Did you mean ")
    assert told.count("\n") == 1
