"""The tables in `docs/speed.md`, made from `benchmarks/results`.

python benchmarks/tables.py          # writes them
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/speed.md"
RESULTS = ROOT / "benchmarks/results"


def result(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def speed() -> str:
    rows = []
    for run in result("speed")["runs"]:
        plain, traced = run["ways"]["plain"], run["ways"]["traced"]
        rows.append([run["model"], run["precision"], run["batch"], *_pair(plain, traced)])
    return _table(
        ["model", "precision", "batch", "plain", "traced", "of plain", "memory", "sum misses own", "plain"],
        rows,
    )


def compiled() -> str:
    (run,) = result("speed-compiled")["runs"]
    rows = [
        [
            name,
            _rate(ways),
            f"{ways['of_plain']:.3f}",
            f"{ways['memory_of_plain']:.3f}",
            _percent(ways.get("sum_against_own_output")),
            _percent(_against_float32(ways)),
        ]
        for name, ways in run["ways"].items()
    ]
    heading = f"{run['model']}, {run['precision']}, batch {run['batch']}"
    headings = [heading, "images/s", "of plain", "memory", "sum misses own output by", "misses float32 by"]
    return _table(headings, rows)


def precision() -> str:
    errors = result("precision")["relative_error"]
    float8 = result("float8")["relative_error"]["float8"]
    columns = {**{f"{name}, bfloat16": values for name, values in errors.items()}, "ViT-L/14, float8": float8}
    rows = [[kind, *(_percent(values[kind]) for values in columns.values())] for kind in float8]
    return _table(["relative error of", *columns], rows)


def accuracy() -> str:
    rows = [
        [
            name,
            f"{100 * values['float32']:.1f} %",
            f"{100 * values['bfloat16']:.1f} %",
            f"{values['change']:+.4f}",
        ]
        for name, values in result("precision")["zero_shot_accuracy"].items()
    ]
    mean = result("precision")["mean_change"]
    return _table(["dataset", "float32", "bfloat16", "change"], [*rows, ["mean", "", "", f"{mean:+.4f}"]])


def float8() -> str:
    rows = [[name, _rate(ways)] for name, ways in result("float8")["ways"].items()]
    return _table([f"{result('float8')['model']}, batch {result('float8')['batch']}", "images/s"], rows)


def commands() -> str:
    names = ("speed", "speed-compiled", "precision", "float8")
    lines = [f"    {result(name)['command']}" for name in names]
    versions = ", ".join(f"{key} {value}" for key, value in result("speed")["versions"].items())
    peak = result("speed")["matmul_bf16_tflops"]
    return "\n".join([*lines, "", f"{versions}; an 8,192³ bfloat16 product ran at {peak:.0f} TFLOP/s."])


TABLES = {make.__name__: make for make in (speed, compiled, precision, accuracy, float8, commands)}


def filled(page: str) -> str:
    """The page with every table between its marks made anew."""
    for name, make in TABLES.items():
        mark = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not mark.search(page):
            raise SystemExit(f"{PAGE.name} has no place for the table {name!r}.")
        page = mark.sub(lambda found, make=make: f"{found[1]}\n{make()}\n\n{found[2]}", page)
    return page


def _pair(plain: dict[str, float], traced: dict[str, float]) -> list[str]:
    return [
        _rate(plain),
        _rate(traced),
        f"{traced['of_plain']:.3f}",
        f"{traced['memory_of_plain']:.3f}",
        _percent(traced["sum_against_own_output"]),
        _percent(traced["sum_against_plain"]),
    ]


def _against_float32(ways: dict[str, float]) -> float:
    return ways.get("sum_against_float32", ways.get("output_against_float32", 0.0))


def _rate(ways: dict[str, float]) -> str:
    return f"{ways['images_per_second']:,.0f} ({ways['slowest']:,.0f}–{ways['fastest']:,.0f})"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _table(headings: list[str], rows: list[list[Any]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
