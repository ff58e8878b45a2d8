"""Tables and figures of accuracies and of trained weights: made-up numbers come out as they should."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from rich.console import Console
from test_figures import drawn, texts_fit
from tiny import TinyImages, tiny_encoder

from residual import load_dataset, load_encoder
from residual.adapters.inspection import strongest_components, unit_gains
from residual.adapters.methods import ADAPTERS, Reference, make_adapter
from residual.errors import ResidualError
from residual.intervals import mean_and_interval, t95
from residual.report.accuracies import (
    accuracies_latex,
    accuracies_markdown,
    accuracy_frame,
    accuracy_lines,
    pictures_lines,
    radar_figure,
    weights_figure,
)
from residual.report.figures import blocks_figure, save_figure
from residual.report.lambdas import component_title, components_table, lambdas_figure
from residual.report.scoreboards import matrix_figure
from residual.report.tables import METHOD_NAMES
from residual.store.encode import encode_dataset
from residual.text.classifier import ZeroShotClassifier

WEIGHTS = {
    "zero_shot": 0,
    "linear": 36_864,
    "linear_released": 37_056,
    "spectral": 191,
    "spectral_released": 192,
    "coarse": 48,
    "coarse_released": 48,
    "residual_star": 347,
    "residual": 2_104,
    "residual_released": 3_072,
    "fine_tuning": 3_646_080,
}
SUITE = (
    "mnist", "digits", "house-numbers", "letters", "road-signs", "emoji-groups", "emoji-concepts", "flags",
    "textures", "counting",
)  # fmt: skip

MLPS = ("residual", "residual_released")
DRAWN = [name for name, adapter in ADAPTERS.items() if adapter.of_units]
NAMED = [name for name, adapter in ADAPTERS.items() if adapter.of_components]


def cell(*accuracies: float, weights: int = 10, seconds: float = 1.5) -> pd.DataFrame:
    rows = {"seed": range(len(accuracies)), "accuracy": accuracies, "weights": weights, "seconds": seconds}
    return pd.DataFrame(rows)


def tables(names: tuple[str, ...], seeds: int = 3, seed: int = 0) -> dict[str, pd.DataFrame]:
    """All methods on some datasets, in no particular order of methods."""
    rng = np.random.default_rng(seed)
    made = {}
    for name in names:
        for method in rng.permutation(list(WEIGHTS)):
            count = 1 if method == "zero_shot" else seeds
            made[f"{name}.{method}"] = cell(*rng.uniform(0.3, 1, count).tolist(), weights=WEIGHTS[method])
    return made


# The frame


def test_means_and_intervals_over_seeds():
    frame = accuracy_frame({"a.b.residual": cell(0.5, 0.6, 0.7), "a.b.zero_shot": cell(0.25, weights=0)})
    zero, full = frame.to_dict("records")
    assert (zero["dataset"], zero["method"], full["method"]) == ("a.b", "zero_shot", "residual")
    assert (zero["accuracy"], zero["seeds"], zero["weights"]) == (0.25, 1, 0)
    assert math.isnan(zero["interval"])
    assert full["accuracy"] == pytest.approx(0.6)
    assert full["interval"] == pytest.approx(t95(2) * 0.1 / math.sqrt(3))
    assert (full["seeds"], full["weights"], full["seconds"]) == (3, 10, 1.5)


def test_datasets_in_their_order_and_methods_in_that_of_all():
    frame = accuracy_frame(tables(("letters", "flags", "digits")))
    assert list(dict.fromkeys(frame["dataset"])) == ["letters", "flags", "digits"]
    for _, own in frame.groupby("dataset"):
        assert own["method"].tolist() == list(METHOD_NAMES)


def test_the_frame_takes_the_mean_of_every_cell():
    made = tables(SUITE)
    for row in accuracy_frame(made).to_dict("records"):
        mean, half = mean_and_interval(made[f"{row['dataset']}.{row['method']}"]["accuracy"].tolist())
        assert row["accuracy"] == mean
        assert row["interval"] == pytest.approx(math.nan if half is None else half, nan_ok=True)


# Tables

SOME = {
    "flags.zero_shot": cell(0.5, weights=0),
    "flags.residual": cell(0.75, 0.75, weights=2_104),
    "let|ters_&.zero_shot": cell(1.0, weights=0),
    "let|ters_&.linear": cell(0.2, 0.4, weights=36_864),
    "let|ters_&.residual": cell(0.8, 0.9, weights=2_000),
}


def test_lines_have_a_dash_for_what_is_missing_and_methods_keep_their_order():
    headings, lines = accuracy_lines(accuracy_frame(SOME))
    assert headings == ["method", "flags", "let|ters_&", "mean", "weights"]
    reach = 100 * t95(1) * math.sqrt(0.02) / math.sqrt(2)
    assert lines == [
        ["zero-shot", "50.0", "100.0", "75.0", "0"],
        ["linear map", "–", f"30.0 ± {reach:.1f}", "–", "36,864"],
        ["ResiDual", "75.0", f"85.0 ± {reach / 2:.1f}", "80.0", "2,000–2,104"],
    ]


def test_ranges_over_pictures_where_cells_tell_how_many_there_are():
    some = SOME | {"flags.residual": SOME["flags.residual"].assign(tested=1_000)}
    headings, (flags, letters) = pictures_lines(accuracy_frame(some))
    assert headings == ["dataset", "test pictures", "zero-shot", "linear map", "ResiDual"]
    assert flags == ["flags", "1,000", "50.0", "–", "75.0 (72.2 to 77.6)"]
    assert letters[-1] == "85.0"  # of version 0.1


def test_the_table_in_markdown():
    text = accuracies_markdown(accuracy_frame(SOME), "picto")
    title, empty, *rows = text.splitlines()
    assert title == (
        "picto: accuracy on test in per cent, mean; ±: half the 95 % t interval over 2 seeds, not over test "
        "pictures; weights trained"
    )
    assert empty == ""
    assert rows[0] == r"| method | flags | let\|ters_& | mean | weights |"
    assert rows[1] == "| --- | ---: | ---: | ---: | ---: |"
    assert rows[2] == "| zero-shot | 50.0 | 100.0 | 75.0 | 0 |"
    assert len(rows) == 5


def test_the_table_for_latex():
    text = accuracies_latex(accuracy_frame(SOME), "picto")
    assert r"method & flags & let$\mid$ters\_\& & mean & weights \\" in text
    assert r"zero-shot & 50.0 & 100.0 & 75.0 & 0 \\" in text
    assert r"linear map & -- & 30.0 $\pm$ " in text
    assert "2,000--2,104" in text
    assert r"per cent, mean; $\pm$: half the 95 \% t interval over 2 seeds, not over test pictures;" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1


def test_one_seed_has_no_interval():
    text = accuracies_markdown(accuracy_frame({"flags.coarse": cell(0.5)}), "picto")
    assert text.startswith("picto: accuracy on test in per cent; weights trained\n")
    assert "±" not in text


# Figures


def is_a_picture(figure: Figure, folder) -> None:
    """Written as a PNG and an SVG, it isn't empty, and all texts are on it, apart from each other."""
    texts_fit(figure)
    png, svg = save_figure(figure, folder, "figure")
    with Image.open(png) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert svg.stat().st_size > 1000


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("names", [SUITE[:3], (*SUITE, "imagenet-sketch", "stanford-cars")])
def test_datasets_around_and_accuracy_outwards(names, tmp_path):
    frame = accuracy_frame(tables(names))
    figure = radar_figure(frame, "picto: accuracy on test, mean over seeds")
    is_a_picture(figure, tmp_path)
    (axes,) = figure.axes
    assert axes.name == "polar"
    assert [label.get_text() for label in axes.get_xticklabels()] == list(names)
    assert legend(figure) == list(METHOD_NAMES.values())
    for method, line in zip(METHOD_NAMES, axes.get_lines(), strict=True):
        angles, heights = line.get_data()
        own = frame[frame["method"] == method]["accuracy"].tolist()
        np.testing.assert_allclose(heights, [*own, own[0]])
        np.testing.assert_allclose(np.diff(angles[:-1]), 2 * math.pi / len(names))
    assert axes.get_ylim() == (0, 1)
    names_lie_outside(figure, axes)


def names_lie_outside(figure: Figure, axes) -> None:
    renderer = figure.canvas.get_renderer()
    circle = axes.patch.get_window_extent(renderer)
    middle, radius = np.array([circle.x0 + circle.width / 2, circle.y0 + circle.height / 2]), circle.width / 2
    for label in axes.get_xticklabels():
        box = label.get_window_extent(renderer)
        nearest = np.clip(middle, (box.x0, box.y0), (box.x1, box.y1))
        assert np.linalg.norm(nearest - middle) >= radius, label.get_text()


@pytest.mark.parametrize("names", [("flags",), ("flags", "emoji-concepts")])
def test_few_datasets_are_side_by_side(names, tmp_path):
    frame = accuracy_frame(tables(names))
    figure = radar_figure(frame, "picto: accuracy on test")
    is_a_picture(figure, tmp_path)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == list(names)
    for method, line in zip(METHOD_NAMES, axes.get_lines(), strict=True):
        assert list(line.get_ydata()) == frame[frame["method"] == method]["accuracy"].tolist()
    places = np.concatenate([line.get_xdata() for line in axes.get_lines()])
    assert len(np.unique(places)) == len(METHOD_NAMES) * len(names)


def test_a_method_that_is_missing_somewhere_leaves_a_gap(tmp_path):
    made = {name: table for name, table in tables(SUITE[:4]).items() if name != "digits.coarse"}
    figure = radar_figure(accuracy_frame(made), "some")
    is_a_picture(figure, tmp_path)
    heights = figure.axes[0].get_lines()[list(METHOD_NAMES).index("coarse")].get_ydata()
    assert np.isnan(heights).tolist() == [False, True, False, False, False]


def test_accuracy_by_weights(tmp_path):
    made = {name: table.assign(classes=10) for name, table in tables(SUITE).items()}
    frame = accuracy_frame(made)
    figure = weights_figure(frame, "picto: mean accuracy by weights trained")
    is_a_picture(figure, tmp_path)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert all(label.get_text().endswith(" %") for label in axes.get_yticklabels())
    assert legend(figure) == ["zero-shot: no weights", *list(METHOD_NAMES.values())[1:], "guessing"]
    *lines, guessing = axes.get_lines()
    assert guessing.get_ydata()[0] == pytest.approx(0.1)
    for method, line in zip(METHOD_NAMES, lines, strict=True):
        assert list(line.get_xdata()) == ([WEIGHTS[method]] if WEIGHTS[method] else [0, 1])  # across
        assert line.get_ydata()[0] == pytest.approx(frame[frame["method"] == method]["accuracy"].mean())


# Trained weights


@pytest.fixture(scope="module")
def tiny():
    encoder = tiny_encoder(dtype=torch.float32)
    store = encode_dataset(encoder, TinyImages(80))
    names = ("a cat", "a dog", "a [red] bicycle that is leaning on a very long wall", "four")
    rows = torch.randn(4, 12, generator=torch.Generator().manual_seed(3))
    return Reference.of(store), store.units, ZeroShotClassifier(rows, names)


@pytest.fixture(scope="module")
def picto():
    encoder, dataset = load_encoder("picto", device="cpu"), load_dataset("letters", "train")
    store = encode_dataset(encoder, dataset.sample(150))
    classifier = ZeroShotClassifier.from_text(encoder, dataset.class_names, dataset.templates)
    return Reference.of(store), store.units, classifier


def shown(table) -> str:
    console = Console(width=160, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def seen(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.axes[1].texts)


@pytest.mark.parametrize("method", NAMED)
def test_the_strongest_components_are_named(tiny, method):
    reference, units, classifier = tiny
    adapter = make_adapter(method, reference)
    strongest = strongest_components(adapter, 8)
    lines = shown(components_table(adapter, units, classifier)).splitlines()
    assert lines[0].strip() == "The strongest components"
    assert len(lines) == 2 + 8
    for line, component in zip(lines[2:], strongest, strict=True):
        assert line.startswith(component_title(component, units))
        assert f"{component.weight:+.2f}" in line
        low, high = component.classes(classifier)
        for name in (*low, *high):
            assert name[:25] in line
        assert line.index(high[0][:25]) < line.index(low[0][:25])


@pytest.mark.parametrize(("of", "method"), [*(("tiny", method) for method in DRAWN), ("picto", "residual")])
def test_weights_as_a_picture(request, tmp_path, of, method):
    reference, units, classifier = request.getfixturevalue(of)
    adapter = make_adapter(method, reference)
    figure = lambdas_figure(adapter, units, classifier, f"{of} on letters: what the weights do")
    if of == "picto":
        is_a_picture(figure, tmp_path)
    else:
        texts_fit(figure)
    strongest = strongest_components(adapter, 8) if method in NAMED else []
    for number, component in enumerate(strongest, 1):
        assert f"{number}  {component_title(component, units)}, weight {component.weight:+.2f}" in seen(
            figure
        )
    axes = figure.axes[0]
    heads = int(units["head"].max()) + 1
    columns = [str(head) for head in range(heads)] + (["MLP"] if method in MLPS else [])
    assert [label.get_text() for label in axes.get_xticklabels()] == columns
    grid = axes.images[0].get_array()
    gains = unit_gains(adapter, units)
    for row in gains.itertuples():
        column = -1 if row.kind == "mlp" else int(row.head)
        assert grid[int(row.layer), column] == pytest.approx(np.clip(np.log2(row.relative), -2, 2))
    marked = {
        (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text().split()
        for text in axes.texts
    }
    if strongest:
        first = units.iloc[strongest[0].unit]
        column = heads if first["kind"] == "mlp" else int(first["head"])
        assert "1" in marked[int(first["layer"]), column]
    numbers = sorted(int(number) for numbers in marked.values() for number in numbers)
    assert numbers == list(range(1, len(strongest) + 1))


@pytest.mark.parametrize("method", sorted(ADAPTERS.keys() - set(NAMED)))
def test_a_method_without_weights_of_components_names_none(tiny, method):
    with pytest.raises(ResidualError, match="has no weights of components"):
        strongest_components(make_adapter(method, tiny[0]))


@pytest.mark.parametrize(("layers", "heads"), [(3, 4), (12, 12)])
def test_long_names_of_classes_are_all_on_the_page(layers, heads):
    encoder = tiny_encoder(dtype=torch.float32, layers=layers, heads=heads, head_width=2)
    store = encode_dataset(encoder, TinyImages(20))
    rows = torch.randn(6, 12, generator=torch.Generator().manual_seed(3))
    classifier = ZeroShotClassifier(rows, [f"{n} WWWW people in a square with many words" for n in range(6)])
    adapter = make_adapter("residual", Reference.of(store))
    figure = lambdas_figure(adapter, store.units, classifier, "clip_b on cifar: what the weights do")
    texts_fit(figure)


def test_names_are_drawn_letter_by_letter(tiny):
    """A formula that can't be read, one that can, control characters; warnings are errors."""
    odd = (r"$\frac{1}{$", "$x^2$", "a\x1b[2J\nb\u202e", "it costs $5", "\\$ and _x")
    reference, units, _ = tiny
    made = ZeroShotClassifier(torch.randn(5, 12, generator=torch.Generator().manual_seed(4)), odd)
    made_of = accuracy_frame(tables(odd))
    matrix = pd.DataFrame(np.eye(5), index=odd, columns=odd)
    for figure in (
        lambdas_figure(make_adapter("residual", reference), units, made, " ".join(odd)),
        radar_figure(made_of, odd[0]),
        radar_figure(accuracy_frame(tables(odd[:2])), odd[1]),
        matrix_figure(matrix, "share", odd[2]),
        blocks_figure({name: units[units["kind"] == "head"].assign(value=0.5) for name in odd}, "", odd[3]),
    ):
        drawn(figure)
        said = "".join(text.get_text() for text in figure.findobj(Text))
        assert "\\$" in said
        assert "$" not in said.replace("\\$", "")
        assert "\x1b" not in said
    text = accuracies_markdown(made_of, "picto")
    assert ("\x1b" in text, len(text.splitlines())) == (False, 4 + len(METHOD_NAMES))


def test_silent_units_and_few_components(tiny, tmp_path):
    reference, units, classifier = tiny
    adapter = make_adapter("residual_star", reference)
    with torch.no_grad():
        adapter.lambdas.zero_()
        adapter.lambdas[5] = -3
    figure = lambdas_figure(adapter, units, classifier, "silent", count=1)
    is_a_picture(figure, tmp_path)
    (component,) = strongest_components(adapter, 1)
    assert component.position == 5
    assert f"1  {component_title(component, units)}, weight -3.00" in seen(figure)
    assert shown(components_table(adapter, units, classifier, 1)).count("\n") == 3


def test_where_a_component_is(tiny):
    reference, units, _ = tiny
    titles = {
        component_title(component, units)
        for component in strongest_components(make_adapter("residual", reference), 156)
    }
    assert "Layer 0, MLP, component 1" in titles
    assert "Layer 2, head 3, component 10" in titles
    assert len(titles) == 156
