import pytest


@pytest.fixture(scope="module", autouse=True)
def _once(picto_once):
    pass


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made, but not drawn: those that are there stay."""
    monkeypatch.setattr("residual.experiments.running.save_figure", lambda *_: [])
