"""Commands with a store in a bucket of a real S3 server, as a user gives it."""

from __future__ import annotations

import json

import pytest
from s3_server import KEYS, forget, serving


@pytest.fixture(scope="module")
def bucket():
    with serving() as (_, bucket):
        yield bucket


def test_from_pictures_to_a_table(residual, bucket, tmp_path):
    address, told = "s3://bucket/letters", tmp_path / "told.json"
    encode = ("encode", "--dataset", "letters", "--split", "val", "--limit", 12, "--out", address)
    code, said, _ = residual(*encode, "--json", told)
    assert (code, said.partition(",")[0]) == (0, f"{address}: 12 samples of letters/val by picto")
    assert json.loads(told.read_text())["store"] == address
    code, said, _ = residual(*encode)
    assert "complete; 0 images in" in said
    assert residual("bases", address, "--out", tmp_path / "bases.safetensors")[0] == 0
    for command in (("analyze", address), ("describe", address, "--head", "7.2")):
        code, said, _ = residual(*command)
        assert (code, said.splitlines()[0]) == (0, "picto on letters/val, 12 samples")
    code, said, _ = residual("verify", address)
    assert (code, "no damaged files" in said) == (0, True)
    bucket.put("letters/emb/c/0/0", b"x")
    code, _, wrong = residual("verify", address)
    assert (code, "emb/c/0/0 has 1 bytes instead of" in wrong) == (1, True)
    held = [*bucket.files("letters").values(), told.read_bytes()]
    assert not any(value.encode() in data for value in KEYS.values() for data in held)


def test_what_can_t_be_is_said_before_anything_is_loaded(residual, bucket, monkeypatch, tmp_path):
    monkeypatch.setattr("residual.workflows.encode.load_encoder", None)
    encode = ("encode", "--dataset", "letters", "--out")
    code, _, wrong = residual(*encode, "s3://nowhere/store")
    assert (code, "'s3://nowhere/store' can't be read: there is no bucket 'nowhere'. Make" in wrong) == (
        2,
        True,
    )
    with monkeypatch.context() as patch:
        for variable in KEYS:
            patch.delenv(variable)
        forget()
        code, _, wrong = residual(*encode, "s3://bucket/store")
        assert (code, "there are no credentials for it" in wrong, "AWS_PROFILE" in wrong) == (2, True, True)
    for words in (
        ("verify", "s3://bucket/letters", "--json", "s3://bucket/told.json"),
        ("bases", "s3://bucket/letters", "--out", "s3://bucket/told.json"),
        (*encode, "s3://bucket/told.json", "--bases-only"),
        ("analyze", "s3://bucket/letters", "--figures", "s3://bucket/told.json"),
    ):
        code, _, wrong = residual(*words)
        sentence = "'s3://bucket/told.json' is an address, and only stores are written to one. Give a path"
        assert (code, sentence in wrong) == (2, True), wrong
