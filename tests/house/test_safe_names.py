"""Names as parts of paths: plain ones stay, others become one part of a path, and no two the same."""

from __future__ import annotations

from residual.files import safe_name

PLAIN = ["mnist", "emoji-groups", "openclip_b", "vit.large-2", "x" * 80, "ÅÄÖ"]
HARD = [
    "open_clip:ViT-B-16/laion2b_s34b_b88k", "open_clip:ViT-B-16:laion2b_s34b_b88k", "hf:a/b", "hf:a-b",
    "folder:/photos/birds", "folder:photos/birds", "..", ".", ".hidden", "../../etc", "two words", "a\nb",
    "a\0b", "C:\\x", "*?<>|\"'", "/", "x" * 81, "x" * 500, "-rf",
]  # fmt: skip


def test_plain_names_stay():
    assert [safe_name(name) for name in PLAIN] == PLAIN


def test_other_names_become_one_part_of_a_path(tmp_path):
    for name in HARD:
        safe = safe_name(name)
        assert safe != name
        assert safe == safe_name(name)
        assert not set(safe) & set("/\\:*?\"<>|\n\0 '")
        assert safe[0] != "."
        assert len(safe) <= 90
        (tmp_path / f"{safe}.parquet").touch()
    assert len(list(tmp_path.iterdir())) == len(HARD)
    assert len({safe_name(safe_name(name)) for name in HARD}) == len(HARD)
