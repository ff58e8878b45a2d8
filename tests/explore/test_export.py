"""The explorer as one file: what is in it, how large it may be, units turned without a server."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import numpy as np
import pytest

from residual.errors import ExistingError, ForeignError, ResidualError
from residual.explore.export import export_page, page_of
from residual.workflows.exploration import Exploration, Sources
from residual.workflows.exploration.recording import Recording, recorded_turn
from residual.workflows.exploration.states import State


@pytest.fixture(scope="module")
def exploration(emoji, tmp_path_factory):
    texts = tmp_path_factory.mktemp("texts") / "few.txt"
    texts.write_text("red\ngreen\nblue\nround\nface\nanimal\ntool\nfood\nplant\nnumber\nsquare")
    return Exploration(Sources([str(emoji)], dictionary=str(texts)))


def recorded(page: str) -> dict:
    (held,) = re.findall(r'<script type="application/json" id="recorded">(.*?)</script>', page, re.DOTALL)
    assert "<" not in held
    return json.loads(held)


def test_a_page_holds_what_the_server_answers(exploration, tmp_path):
    path = tmp_path / "page.html"
    written = export_page(exploration, path)
    page = path.read_text(encoding="utf-8")
    assert written.size == path.stat().st_size < 5_000_000
    assert written.cut == ()
    held = recorded(page)
    assert held["about"]["live"] is False
    assert held["about"]["can"]["turn"] is held["about"]["can"]["map"] is True
    assert "no encoder" in held["about"]["can"]["text"]
    accuracy = held["answers"]["api/heads?score=accuracy"]
    assert accuracy == json.loads(json.dumps(exploration.heads()))
    unit = held["answers"]["api/unit?unit=6.5"]
    shown = unit["components"][0]["largest"][0]
    assert shown["src"] is None
    assert held["pictures"][str(shown["position"])].startswith("data:image/")
    assert unit["spectrum"] == pytest.approx(exploration.unit("6.5")["spectrum"])
    assert len(held["answers"]["api/pictures?order=store&limit=24&offset=48"]["pictures"]) == 12
    assert held["answers"]["api/map?picture=0&class=" + str(exploration.parts.store.labels[0])]["maps"]
    scripts = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts]
    assert len(scripts) == 1
    assert f"script-src 'sha256-{digests[0]}'" in page
    assert not re.search(r'(src|href)="(?!data:)', page.replace(scripts[0], ""))
    with pytest.raises(ExistingError, match="an exported page of the explorer"):
        export_page(exploration, path)
    (tmp_path / "notes.html").write_text("<html>mine</html>")
    with pytest.raises(ForeignError, match="an HTML page"):
        export_page(exploration, tmp_path / "notes.html", overwrite=True)


def test_what_has_no_room_is_left_out_and_told(exploration, tmp_path):
    written = export_page(exploration, tmp_path / "page.html", most=1_000_000)
    assert written.size <= 1_000_000
    notes = recorded((tmp_path / "page.html").read_text())["about"]["notes"]
    assert set(written.cut) <= set(notes)
    assert any("units are described" in told for told in written.cut)
    with pytest.raises(ResidualError, match="a million bytes"):
        export_page(exploration, tmp_path / "other.html", most=10_000)


@pytest.mark.parametrize(("encoding", "most"), [("float16", 2e-3), ("int8", 3e-2)])
def test_units_are_turned_without_a_server(exploration, encoding, most):
    held = recorded_turn(exploration, [3, 4, 50], encoding)
    kind = {"float16": "<f2", "int8": "<i1"}[encoding]
    units, classes = len(held["units"]), len(exploration.parts.store.class_names)
    parts = np.frombuffer(base64.b64decode(held["parts"]), kind).reshape(3, units, classes)
    parts = parts * np.array(held["scale"])[:, None]
    rest = np.frombuffer(base64.b64decode(held["rest"]), "<f4").reshape(3, classes)
    exact = exploration.turning.sums(State())[[3, 4, 50]].double().numpy()
    assert np.abs(rest + parts.sum(1) - exact).max() < 1e-6 * np.abs(exact).max() + 1e-6
    labels = np.frombuffer(base64.b64decode(held["labels"]), "<i2")
    assert labels.tolist() == exploration.parts.store.labels[[3, 4, 50]].tolist()
    for mode in ("zero", "mean"):
        state = exploration.state({"off": ["7.2", "mlp.6"], "weights": {"6.1": 0.5}, "mode": mode})
        weights = np.ones(units)
        weights[[held["units"].index(name) for name in ("7.2", "mlp.6", "6.1")]] = 0, 0, 0.5
        logits = rest + (weights[:, None] * parts).sum(1)
        if mode == "mean":
            logits = logits + (1 - weights) @ np.array(held["means"])
        told = exploration.turning.sums(state)[[3, 4, 50]].double().numpy()
        assert np.abs(logits - told).max() < most * np.abs(parts).max()


def test_text_of_stores_does_no_harm_in_a_page():
    page = page_of(json.dumps({"about": "</script><script>alert(1)</script>\u2028"}))
    assert "<script>alert" not in page
    assert recorded(page) == {"about": "</script><script>alert(1)</script>\u2028"}


def test_a_store_of_too_many_classes_is_not_turned(exploration, monkeypatch):
    monkeypatch.setattr("residual.workflows.exploration.recording._OF_TURN", 1e-4)
    held = Recording(exploration, 3_000_000)
    assert held.turn is None
    assert "more than an exported page holds" in str(held.can["turn"])
