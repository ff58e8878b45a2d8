"""Figures of shapes and similarities: what they show, that all of it is on the page; and the tables."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager
from matplotlib.text import Text
from PIL import Image
from rich.console import Console
from tiny import TinyImages, tiny_encoder

from residual.errors import ExistingError, ForeignError, ResidualError
from residual.files import write_json
from residual.report import (
    analysis_figures,
    blocks_figure,
    check_matplotlib,
    datasets_latex,
    datasets_markdown,
    fonts,
    geometry_figure,
    grid_figure,
    layers_figure,
    layers_table,
    records,
    save_figure,
)
from residual.report.geometry import layer_means
from residual.spectral import GeometrySettings, compare_bases, fit_bases, unit_geometry
from residual.spectral.geometry import MEASURES
from residual.spectral.similarity import SIMILARITIES
from residual.store.base import MemoryStore
from residual.store.encode import encode_dataset

LAYERS, HEADS = 3, 4


@pytest.fixture(scope="module")
def stores() -> list[MemoryStore]:
    encoder = tiny_encoder(dtype=torch.float32)
    return [encode_dataset(encoder, TinyImages(210, seed=seed)) for seed in (0, 1)]


@pytest.fixture(scope="module")
def shapes(stores) -> pd.DataFrame:
    return unit_geometry(stores[0], settings=GeometrySettings(halvings=1))


@pytest.fixture(scope="module")
def similar(stores) -> pd.DataFrame:
    bases = [fit_bases(store, ("mlp", "head")) for store in stores]
    return stores[0].units.merge(compare_bases(*bases), on="unit")


@pytest.fixture(scope="module")
def heads(similar) -> pd.DataFrame:
    chosen = similar[similar["kind"] == "head"]
    return chosen.assign(value=chosen["spectral_cosine"])


def drawn(figure: Figure) -> FigureCanvasAgg:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def data_axes(figure: Figure) -> list[Axes]:
    """Those that show data, not colour bars."""
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def texts(figure: Figure) -> Iterator[Text]:
    """All that are seen: ticks outside of an axis's limits have labels that are never drawn."""
    unseen = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    unseen |= {tick.label1, tick.label2}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in unseen:
            yield text


def texts_fit(figure: Figure) -> None:
    """All of it is on the page, and no text lies on another."""
    renderer, page = drawn(figure).get_renderer(), figure.bbox
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]
    for place, (name, box) in enumerate(boxes):
        inside = box.x0 >= -1, box.y0 >= -1, box.x1 <= page.x1 + 1, box.y1 <= page.y1 + 1
        assert all(inside), f"{name!r} at {box.extents} of {page.extents}"
        for other, its in boxes[:place]:
            across = min(box.x1, its.x1) - max(box.x0, its.x0)
            down = min(box.y1, its.y1) - max(box.y0, its.y0)
            assert min(across, down) < 1.5, f"{name!r} lies on {other!r}"
    width, height = figure.get_size_inches()
    tight = figure.get_tightbbox(renderer)
    assert min(tight.x0, tight.y0, width - tight.x1, height - tight.y1) > -0.02


def is_labelled(figure: Figure, label: str | None) -> None:
    """Every axes with data has its x axis named; a colour bar says what its colours are."""
    for axes in data_axes(figure):
        assert axes.has_data()
        assert "layer" in axes.get_xlabel() or axes.get_xlabel() == "head"
        assert axes.get_title() or axes.get_ylabel() or figure.get_suptitle()
    bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert [bar.get_ylabel() for bar in bars] == ([] if label is None else [label])


def is_good(figure: Figure, label: str | None = None) -> None:
    is_labelled(figure, label)
    texts_fit(figure)


def written(figure: Figure) -> list[str]:
    """Numbers in cells."""
    return [text.get_text() for text in data_axes(figure)[0].texts]


# What they show


def test_shapes_by_layer_show_every_head_and_mlp(shapes):
    figure = geometry_figure(shapes, "tiny on tiny/train, 210 samples")
    is_good(figure)
    assert figure.get_suptitle() == "tiny on tiny/train, 210 samples"
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == [*MEASURES.values(), "TwoNN dimension of fewer samples"]
    for axes, measure in zip(panels, MEASURES, strict=False):
        by_head = shapes[shapes["kind"] == "head"]
        dots = axes.collections[0].get_offsets()
        np.testing.assert_allclose(dots, by_head[["layer", measure]].astype(float))
        mean, mlps = axes.get_lines()[:2]
        for layer, height in zip(*mean.get_data(), strict=True):
            of_layer = by_head.loc[by_head["layer"] == layer, measure].tolist()
            assert height == pytest.approx(sum(of_layer) / HEADS)
        np.testing.assert_allclose(mlps.get_ydata(), shapes.loc[shapes["kind"] == "mlp", measure])
        low, high = axes.get_ylim()
        values = shapes.loc[shapes["kind"] != "emb", measure]
        assert low <= values.min()
        assert values.max() <= high
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["head", "mean of heads", "MLP"]


def test_a_dimension_of_zero_is_no_point_of_a_logarithmic_axis(shapes):
    place = list(MEASURES).index("linear_dimension")
    assert geometry_figure(shapes, "t").axes[place].get_yscale() == "log"
    silent = shapes.assign(linear_dimension=shapes["linear_dimension"].where(shapes["layer"] != 0, 0))
    axes = geometry_figure(silent, "t").axes[place]
    assert (axes.get_yscale(), axes.get_ylim()[0]) == ("symlog", 0)


def test_the_last_panel_is_of_fewer_and_fewer_samples(stores):
    shapes = unit_geometry(stores[0], "head", GeometrySettings(halvings=1))
    lines = geometry_figure(shapes, "t").axes[-1].get_lines()
    assert [line.get_label() for line in lines] == ["all", "1/2"]
    for line, name in zip(lines, ("two_nn", "two_nn_2"), strict=True):
        expected = [shapes.loc[shapes["layer"] == layer, name].mean() for layer in range(LAYERS)]
        np.testing.assert_allclose(line.get_ydata(), expected)
    alone = unit_geometry(stores[0], "head", GeometrySettings(halvings=0))
    assert [line.get_label() for line in geometry_figure(alone, "t").axes[-1].get_lines()] == ["all"]


def test_shapes_of_some_kinds_only(shapes):
    for kinds in (("mlp",), ("emb", "head")):
        figure = geometry_figure(shapes[shapes["kind"].isin(kinds)], "some")
        assert [axes.get_xlabel() for axes in figure.axes] == ["layer"] * 6
        texts_fit(figure)


def test_units_without_a_dimension_leave_gaps(shapes):
    """As a silent head's do: it is 0 or NaN, also where the axis is logarithmic."""
    table, silent = shapes.copy(), shapes["unit"].isin([1, 5, 6])
    table.loc[silent, "linear_dimension"] = 0
    table.loc[silent, [name for name in MEASURES if name != "linear_dimension"]] = math.nan
    is_good(geometry_figure(table, "silent"))


def test_a_grid_has_layers_down_and_heads_across(heads):
    shuffled = heads.sample(frac=1, random_state=1)
    figure = grid_figure(shuffled, "spectral cosine", "tiny")
    is_good(figure, "spectral cosine")
    axes = data_axes(figure)[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("head", "layer")
    shown = axes.images[0].get_array()
    assert shown.shape == (LAYERS, HEADS)
    for row in heads.to_dict("records"):
        assert shown[row["layer"], row["head"]] == row["value"]
    assert written(figure) == [f"{value:.3g}" for value in heads.sort_values(["layer", "head"])["value"]]


def test_a_grid_leaves_cells_without_a_number_blank(heads):
    spoilt = heads.copy()
    spoilt.iloc[5, spoilt.columns.get_loc("value")] = math.nan
    figure = grid_figure(spoilt, "x", "t")
    assert len(written(figure)) == LAYERS * HEADS - 1
    is_good(figure, "x")


def test_blocks_have_a_row_a_dataset_and_a_cell_a_head(heads):
    other = heads.assign(value=heads["mean_cosine"]).sample(frac=1, random_state=2)
    figure = blocks_figure({"tiny, halves": heads, "other": other}, "spectral cosine", "tiny: heads")
    is_good(figure, "spectral cosine")
    axes = data_axes(figure)[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["tiny, halves", "other"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
    np.testing.assert_allclose(axes.get_xticks(), [1.5, 5.5, 9.5])  # the middle of each block
    shown = axes.images[0].get_array()
    np.testing.assert_array_equal(shown, [heads["value"], heads["mean_cosine"]])
    assert axes.images[0].get_clim() == (0, 1)
    separators = [line.get_xdata()[0] for line in axes.get_lines()]
    assert separators == [3.5, 7.5]


def test_blocks_say_where_colours_end_below_a_value(heads):
    for values, ends in ((heads["value"], "neither"), (-heads["value"], "min")):
        figure = blocks_figure({"a": heads.assign(value=values)}, "x", "t")
        assert data_axes(figure)[0].images[0].colorbar.extend == ends
        is_good(figure, "x")


def test_layers_show_means_over_heads(heads, shapes):
    other = shapes[shapes["kind"] == "head"].assign(value=lambda table: table["two_nn"])
    figure = layers_figure({"a": heads, "b": other}, "both", "tiny: both, mean of heads")
    is_good(figure, "both")
    shown = data_axes(figure)[0].images[0].get_array()
    expected = [
        [statistics.fmean(table.loc[table["layer"] == layer, "value"]) for layer in range(LAYERS)]
        for table in (heads, other)
    ]
    np.testing.assert_allclose(shown, expected)
    assert written(figure) == [f"{value:.3g}" for row in expected for value in row]


def wide(layers: int, many: int, seed: int = 0) -> pd.DataFrame:
    """As many units as the paper's encoders have."""
    values = np.random.default_rng(seed).uniform(0.01, 1, layers * many)
    layer, head = np.divmod(np.arange(layers * many), many)
    return pd.DataFrame({"layer": layer, "head": head, "value": values})


PAPER = ["imagenet, halves", "imagenet-sketch", "pacs", "waterbirds", "mnist-full", "stanford-cars"]


@pytest.mark.parametrize(("layers", "many"), [(12, 12), (32, 16)])
def test_figures_of_large_encoders_fit(layers, many):
    rows = {name: wide(layers, many, seed) for seed, name in enumerate(PAPER)}
    title = "blip_l_flickr: spectral cosine of heads with imagenet"
    is_good(blocks_figure(rows, "spectral cosine", title), "spectral cosine")
    is_good(layers_figure(rows, "spectral cosine", f"{title}, mean of heads"), "spectral cosine")
    title = "blip_l_flickr on imagenet/train"
    is_good(grid_figure(rows["pacs"], "TwoNN dimension", title), "TwoNN dimension")


def test_large_and_small_numbers_fit_into_their_cells():
    for scale in (1e-5, 1234.5):
        table = wide(4, 6)
        table["value"] *= scale
        texts_fit(grid_figure(table, "x", "t"))
        texts_fit(layers_figure({"a": table, "b": table}, "x", "t"))


def luminance(colour: np.ndarray) -> float:
    """As the contrast of texts is told on the web (WCAG 2)."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear[:3] @ [0.2126, 0.7152, 0.0722])


def test_numbers_can_be_read_on_their_colour():
    table = wide(12, 12)
    figure = grid_figure(table, "x", "t")
    axes = data_axes(figure)[0]
    inks = set()
    for text, value in zip(axes.texts, table["value"], strict=True):
        light, ink = luminance(axes.images[0].to_rgba(np.array([[value]]))[0, 0]), text.get_color()
        contrast = 1.05 / (light + 0.05) if ink == "white" else (light + 0.05) / 0.05
        assert contrast > 2.8, (value, ink)
        inks.add(ink)
    assert inks == {"white", "black"}


def test_all_figures_of_an_analysis(shapes, similar):
    title = f"picto: letters/val and {'/house-numbers-train' * 3}"
    figures = analysis_figures(shapes, "tiny", similar, title)
    assert list(figures) == ["shapes", "heads-linear_dimension", "heads-two_nn", "similarity"]
    texts_fit(figures["similarity"])
    assert list(analysis_figures(shapes[shapes["kind"] == "mlp"], "tiny")) == ["shapes"]
    assert not analysis_figures(shapes[shapes["kind"] == "emb"], "tiny")


# Files


def figures_of(shapes: pd.DataFrame, heads: pd.DataFrame) -> dict[str, Figure]:
    return {
        "shapes": geometry_figure(shapes, "tiny <on> tiny & more"),
        "grid": grid_figure(heads, "spectral cosine", "a grid"),
        "blocks": blocks_figure({"a": heads, "b": heads}, "spectral cosine", "blocks"),
        "layers": layers_figure({"a": heads, "b": heads}, "spectral cosine", "layers"),
    }


def test_figures_are_saved_as_png_and_svg_with_the_same_bytes_every_time(shapes, heads, tmp_path):
    contents = []
    for turn in ("first", "second"):
        folder = tmp_path / turn / "deep"
        for name, figure in figures_of(shapes, heads).items():
            paths = save_figure(figure, folder, name)
            assert [path.name for path in paths] == [f"{name}.png", f"{name}.svg"]
        contents.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert len(contents[0]) == 8
    assert contents[0] == contents[1]


def test_saved_figures_are_whole_pictures(shapes, heads, tmp_path):
    for name, figure in figures_of(shapes, heads).items():
        png, svg = save_figure(figure, tmp_path, name)
        with Image.open(png) as image:
            image.verify()
        with Image.open(png) as image:
            assert image.size == tuple(int(150 * inches) for inches in figure.get_size_inches())
            assert len(image.convert("RGB").getcolors(image.width * image.height)) > 20
        root = ElementTree.parse(svg).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert list(root.iter("{http://www.w3.org/2000/svg}path"))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == 4 * [".png"] + 4 * [".svg"]


def test_a_figure_takes_the_place_of_an_older_one(heads, tmp_path):
    save_figure(grid_figure(heads, "x", "old"), tmp_path, "grid")
    before = (tmp_path / "grid.png").read_bytes()
    figure = grid_figure(heads, "x", "t")
    with pytest.raises(ExistingError, match=r"grid\.png' is there already: a figure"):
        save_figure(figure, tmp_path, "grid")
    save_figure(figure, tmp_path, "grid", overwrite=True)
    assert (tmp_path / "grid.png").read_bytes() != before
    (tmp_path / "grid.svg").write_text("<svg>mine</svg>")
    with pytest.raises(ForeignError, match=r"grid\.svg' is an SVG picture: it is no place for a figure"):
        save_figure(figure, tmp_path, "grid", overwrite=True)


def test_a_folder_that_cannot_be_made_is_named(heads, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResidualError, match=r"The folder '.*file' can't be made: '.*file' is no folder"):
        save_figure(grid_figure(heads, "x", "t"), tmp_path / "file", "grid")


def test_without_matplotlib_it_says_what_to_install(heads, shapes, monkeypatch):
    check_matplotlib()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r"figures needs matplotlib, which isn't installed: pip install 'residual-vit\[figures\]'"
    with pytest.raises(ResidualError, match=message):
        check_matplotlib()
    for draw in (
        lambda: grid_figure(heads, "x", "t"),
        lambda: geometry_figure(shapes, "t"),
        lambda: blocks_figure({"a": heads}, "x", "t"),
        lambda: layers_figure({"a": heads}, "x", "t"),
    ):
        with pytest.raises(ResidualError, match=message):
            draw()


# Tables


def test_means_and_deviations_by_kind_and_layer(shapes):
    got = layer_means(shapes, list(MEASURES))
    groups: dict[tuple, dict[str, list[float]]] = {}
    for row in shapes.to_dict("records"):
        key = row["kind"], None if pd.isna(row["layer"]) else row["layer"]
        for name in MEASURES:
            groups.setdefault(key, {}).setdefault(name, []).append(row[name])
    assert len(got) == len(groups) == 1 + 2 * LAYERS
    columns = [each for name in MEASURES for each in (name, f"{name}_deviation")]
    assert sorted(got.columns) == sorted(["kind", "layer", *columns])
    for row, (key, values) in zip(got.to_dict("records"), groups.items(), strict=True):
        assert (row["kind"], None if pd.isna(row["layer"]) else row["layer"]) == key
        for name, numbers in values.items():
            assert row[name] == pytest.approx(statistics.fmean(numbers))
            spread = statistics.stdev(numbers) if len(numbers) > 1 else math.nan
            assert row[f"{name}_deviation"] == pytest.approx(spread, nan_ok=True)


def shown(table) -> list[str]:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def test_the_table_of_shapes_in_the_terminal(shapes):
    title, heading, *rows = shown(layers_table(shapes, "tiny [bold]on[/bold] tiny"))
    assert title.strip() == "tiny [bold]on[/bold] tiny"
    assert heading.split() == ["units", "layer", "linear", "TwoNN", "ratio", "first", "EVR", "PR"]
    kinds = ["embedding", *["MLP"] * LAYERS, *["heads"] * LAYERS]
    assert [row.split()[0] for row in rows] == kinds
    assert [row.split()[1] for row in rows[1:]] == 2 * ["0", "1", "2"]
    mean, spread = (call(shapes.loc[4:7, "two_nn"]) for call in (statistics.fmean, statistics.stdev))
    assert f"{mean:.3g} (SD {spread:.1g})" in rows[1 + LAYERS]
    assert "SD" not in "".join(rows[: 1 + LAYERS])  # one of each


def test_the_table_of_similarities_in_the_terminal(similar):
    _, heading, *rows = shown(layers_table(similar, "two", similar=True))
    for words in ("spectral cosine", "mean angle", "cosine of means", "distance of means"):
        assert words in heading
    assert [row.split()[0] for row in rows] == ["MLP"] * LAYERS + ["heads"] * LAYERS
    mean = similar.loc[similar["kind"] == "head"].iloc[:HEADS]["mean_distance"].mean()
    assert f"{mean:.3g} (SD " in rows[LAYERS]


def test_what_is_missing_in_a_table_is_a_dash(shapes):
    table = shapes.copy()
    table.loc[table["kind"] == "mlp", "two_nn"] = math.nan
    rows = shown(layers_table(table, "t"))[2:]
    assert all("–" in row for row in rows[1 : 1 + LAYERS])
    assert not any("–" in row for row in rows[1 + LAYERS :])


def test_records_are_plain_json(shapes):
    table = shapes.copy()
    table.loc[3, "two_nn"] = math.nan
    read = json.loads(json.dumps(records(table), allow_nan=False))
    assert len(read) == len(table)
    assert (read[0]["kind"], read[0]["layer"], read[0]["head"]) == ("emb", None, None)
    assert (read[1]["layer"], read[1]["head"]) == (0, None)
    assert (read[4]["layer"], read[4]["head"]) == (0, 0)
    assert read[3]["two_nn"] is None
    assert read[4]["two_nn"] == table.loc[4, "two_nn"]
    assert read[4]["linear_dimension"] == table.loc[4, "linear_dimension"]


def test_json_has_no_nan(tmp_path):
    """Other readers of JSON refuse it; in tables it is a dash."""
    missing = {"x": [math.nan, {"y": (math.inf, np.float64("nan"))}], "z": 1.5}
    write_json(tmp_path / "a.json", missing)
    content = (tmp_path / "a.json").read_text()
    assert json.loads(content, parse_constant=pytest.fail) == {"x": [None, {"y": [None, None]}], "z": 1.5}
    assert "| d | – |" in datasets_markdown({"d": {"x": math.nan}}, ["x"], "t")


def test_a_markdown_table_has_a_row_a_dataset():
    rows = {"mixed, halves": {"samples": 1200, "a": 0.123456}, "flags": {"samples": 40, "a": 12.3456}}
    assert datasets_markdown(rows, ["samples", "a"], "tiny") == (
        "tiny\n\n"
        "| dataset | samples | a |\n"
        "| --- | ---: | ---: |\n"
        "| mixed, halves | 1200 | 0.123 |\n"
        "| flags | 40 | 12.3 |\n"
    )
    lines = datasets_markdown({"x": {"b": math.nan, "a|b": 1}}, ["a|b"], "t").splitlines()
    assert lines[2:] == [r"| dataset | a\|b |", "| --- | ---: |", "| x | 1 |"]


def test_a_latex_table_has_its_signs_escaped():
    assert datasets_latex({"a_b": {"S|T 5 %": 0.25}}, ["S|T 5 %"], "tiny & more") == (
        "\\begin{table}\n\\centering\n\\caption{tiny \\& more}\n\\begin{tabular}{lr}\n\\toprule\n"
        "dataset & S$\\mid$T 5 \\% \\\\\n\\midrule\na\\_b & 0.25 \\\\\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def test_every_measure_has_a_name():
    assert set(MEASURES) <= set(unit_geometry(_few()).columns)
    assert len(set(MEASURES.values())) == len(MEASURES)
    assert len(set(SIMILARITIES.values())) == len(SIMILARITIES)


def _few() -> MemoryStore:
    return encode_dataset(tiny_encoder(dtype=torch.float32), TinyImages(6))


def test_the_embedding_alone_has_no_layers(shapes):
    geometry_figure(shapes[shapes["kind"] == "emb"], "t")


def test_long_titles_are_all_on_the_page(heads):
    long = "picto: letters/val and stores/picto/house-numbers-train-20000-of-another-run"
    is_good(grid_figure(heads, "x", long), "x")
    is_good(layers_figure({"a": heads}, "x", "tiny: spectral cosine of heads with mixed, mean of heads"), "x")


@pytest.mark.parametrize("draw", [grid_figure, blocks_figure, layers_figure])
def test_nothing_but_missing_numbers(heads, draw):
    table = heads.assign(value=math.nan)
    draw(table if draw is grid_figure else {"a": table}, "x", "t")


def test_no_deviation_in_the_terminal_is_in_powers_of_ten(shapes):
    """ "20.3 (SD 1e+01)": `_spread` formats deviations of 9.5 and more with `.1g`."""

    table = shapes.assign(linear_dimension=shapes["linear_dimension"] + 15 * (shapes["unit"] % 4))
    assert "e+" not in "".join(shown(layers_table(table, "t")))


def test_the_long_name_of_a_folder_leaves_room_for_the_figure(tmp_path):
    name = f"folder:/{'long/' * 40}pictures"
    rows = {name: pd.DataFrame({"layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], "value": [0.1, 0.2, 0.3, 0.4]})}
    for kind in (layers_figure, blocks_figure):
        figure = kind(rows, "value", "Heads")
        save_figure(figure, tmp_path, kind.__name__)  # a layout without room is a warning, which is an error
        (label,) = figure.axes[0].get_yticklabels()
        assert len(label.get_text()) == 32
        assert name.endswith(label.get_text().removeprefix("…"))


def test_letters_that_the_font_lacks(heads, tmp_path, monkeypatch):
    """They are drawn with another font; what none has is told once, and the figure is drawn all the same."""
    other = sorted(fonts._letters_of("STIXGeneral") - fonts._letters_of("DejaVu Sans"))[0]
    rows = {f"folder:{other}": heads.assign(value=1.0)}
    figure = layers_figure(rows, "TwoNN", "кот")
    save_figure(figure, tmp_path, "other")  # a warning is an error here
    families = {text.get_text(): text.get_fontfamily() for text in figure.findobj(Text)}
    assert len(families[f"folder:{other}"]) == 2
    assert families["кот"] == families["layer"]
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    stale = [FontEntry(fname=str(path), name="AAA") for path in (broken, tmp_path / "removed.ttf")]
    monkeypatch.setattr(fontManager, "ttflist", stale + fontManager.ttflist)
    fonts._installed.cache_clear()
    save_figure(layers_figure(rows, "TwoNN", "кот"), tmp_path, "beside")
    monkeypatch.setattr(fonts, "_installed", lambda: ("DejaVu Sans",))
    with pytest.warns(UserWarning, match="No installed font has 犬 猫: they are boxes in figures") as told:
        save_figure(layers_figure({"猫犬": rows[f"folder:{other}"]}, "TwoNN", "猫"), tmp_path, "boxes")
    assert len(told) == 1
    assert (tmp_path / "boxes.png").is_file()
