"""What experiments 1 and 2 say of several encoders at once, and experiment 2's measures as published."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from residual.experiments import EXPERIMENTS, Plan
from residual.experiments.plan import Work
from residual.experiments.similarity import across_encoders
from residual.report.figures import panel_figure
from residual.spectral import SimilaritySettings
from residual.spectral.geometry import MEASURES
from residual.spectral.published import PUBLISHED


def similarities(seed: int, names: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    return {
        name: pd.DataFrame({"spectral_cosine": rng.uniform(size=6), "halves": name == "reference"})
        for name in names
    }


def test_encoders_are_correlated_over_the_datasets_that_both_have():
    names = ("reference", "a", "b", "c", "d")
    tables = {
        "one": similarities(0, names),
        "two": similarities(1, names[:-1]),
        "few": similarities(2, names[:3]),
    }
    found = across_encoders(tables)
    means = {
        name: [rows[each]["spectral_cosine"].mean() for each in "abc" if each in rows]
        for name, rows in tables.items()
    }
    assert found.loc["one", "two"] == pytest.approx(np.corrcoef(means["one"], means["two"])[0, 1])
    assert np.isnan(found.loc["one", "few"])  # two datasets make a line
    (page,) = EXPERIMENTS["2"].more(tables)["across"]
    assert page.headings == ["encoder", "one", "two", "few"]
    assert page.lines[0] == ["one", "1.000", f"{found.loc['one', 'two']:.3f}", "–"]
    assert page.lines[-1][:2] == ["mean of pairs", f"{found.loc['one', 'two']:.3f}"]
    assert EXPERIMENTS["2"].more({"one": tables["one"]}) == {}


def test_a_page_of_all_encoders_has_a_line_each():
    rng = np.random.default_rng(0)
    tables = {
        name: pd.DataFrame(
            {"layer": np.repeat(range(layers), 2)} | {m: rng.uniform(1, 9, 2 * layers) for m in MEASURES}
        )
        for name, layers in (("small", 3), ("large", 6))
    }
    figure = panel_figure(tables, "Both")
    panels = figure.get_axes()
    assert len(panels) == 6
    for axes, measure in zip(panels, MEASURES, strict=False):
        small, large = axes.get_lines()
        np.testing.assert_allclose(small.get_ydata(), tables["small"].groupby("layer")[measure].mean())
        np.testing.assert_allclose(large.get_xdata(), np.arange(6) / 5)
    dimensions = {name: {"flags": table.assign(kind="head", samples=3)} for name, table in tables.items()}
    names = [
        name for name, _ in zip((n for n, _ in EXPERIMENTS["1"].figures(dimensions)), range(1), strict=False)
    ]
    assert names == ["encoders"]


def test_measures_as_published_stand_beside_ours(tmp_path):
    plan = Plan(tmp_path, ("picto",), ("flags",), "letters", limit=12, device="cpu")
    work, kind = Work(plan, "picto", lambda *_: None), EXPERIMENTS["2"]
    settings = SimilaritySettings(published_anchors=5)
    tables = {name: kind(settings).measure(work, name) for name in ("letters", "flags")}
    assert set(PUBLISHED) < set(tables["flags"].columns)
    np.testing.assert_allclose(tables["letters"][list(PUBLISHED)], 1)  # with itself, where ours halves it
    assert (tables["flags"][list(PUBLISHED)] < 1).all(axis=None)
    assert set(PUBLISHED.values()) < set(kind.summary(tables)["flags"])
    assert "root mean square of cosines by index" in kind.summary(tables)["flags"]
    assert kind(settings).noted().keys() - kind(SimilaritySettings()).noted().keys() == {"published_anchors"}
