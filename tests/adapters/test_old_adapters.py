"""Adapters that version 0.1.0 saved: they open, are called what they were, and give the same numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from old_adapters import old_encoder, old_pixels

from residual import AdaptedEncoder

OLD = Path(__file__).parent / "old"


def test_they_open_and_give_the_same(tmp_path):
    encoder, pixels = old_encoder(), old_pixels()
    expected = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))
    assert len(expected) == 7
    for name, wanted in expected.items():
        adapted = AdaptedEncoder.from_pretrained(OLD / name, encoder)
        with torch.no_grad():
            features, logits = adapted.encode_image(pixels), adapted(pixels)
        for what, got in (("features", features), ("logits", logits)):
            torch.testing.assert_close(got, torch.tensor(wanted[what]), atol=1e-5, rtol=1e-5, msg=name)
        assert adapted.method == wanted["method"], name
        assert adapted.record.accuracy == {"zero_shot": 0.5, wanted["method"]: 0.75}
        if adapted.adapter is not None:
            assert adapted.adapter.weights.numel() == wanted["weights"], name

        adapted.save_pretrained(tmp_path / name)
        config, again = (
            json.loads((at / name / "adapter_config.json").read_text()) for at in (OLD, tmp_path)
        )
        assert again.pop("versions").keys() == config.pop("versions").keys()
        assert again.pop("sha256") != config.pop("sha256")  # tensors hold a checksum and the config now
        assert again.pop("rounded_fingerprint")  # since 0.2.0
        assert again == config | {"method": wanted["method"]}, name  # "residual" for ResiDual* until 0.1.0
        card, again = ((at / name / "README.md").read_text(encoding="utf-8") for at in (OLD, tmp_path))
        for then, now in (
            (", split `", ", centering `"),
            ("- residual\n---", f"- {wanted['method']}\n---"),
            (f'from_pretrained("{name}")', f'from_pretrained("{name}", encoder=encoder)'),
        ):
            card = card.replace(then, now)
        assert without_accuracies(again) == without_accuracies(card), name


def without_accuracies(card: str) -> str:
    """Since 0.2.0 they have intervals over pictures, too, and are told in other words."""
    _, accuracy, rest = card.partition("## Accuracy")
    told = r"\n- (Intervals are over|Accuracies are of|On how many)[^\n]*"
    return re.sub(told, "", card.replace(accuracy + rest.partition("##")[0], ""))
