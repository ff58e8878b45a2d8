"""The tables in `docs/`, made from `benchmarks/results`.

python benchmarks/tables.py          # writes them
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from residual.intervals import mean_and_interval, over_seeds
from residual.report.tables import METHOD_NAMES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"


METHODS = {name: label.replace("*", "\\*") for name, label in METHOD_NAMES.items()}


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


def encoding() -> str:
    found, rows = result("store")["encoding"], []
    for name in ("pixels on cuda:0", "pixels on cpu"):
        values = found[name]
        rows.append(
            [
                {"pixels on cpu": "in memory"}.get(name, "on the card"),
                *(_spread(values[way]) for way in ("forward", "store")),
                f"{values['store_of_forward']:.2f}",
                f"{values['read_back_images_per_second']:,.0f}",
                f"{values['disk_megabytes_per_second']:,.0f} MB/s",
            ]
        )
    headings = ["pixels", "forward, images/s", "store, images/s", "of forward", "read back, images/s", "disk"]
    return _table(headings, rows)


def bases() -> str:
    rows = []
    for where, name in (("H100", "store"), ("two CPU cores", "store-cpu")):
        found = result(name)["bases"]
        for kinds, about in (("head", "384 heads"), ("head,mlp", "384 heads and 24 MLPs")):
            memory = found[kinds]["peak_resident_megabytes"] / 1e3
            rows.append([where, about, f"{_spread(found[kinds]['seconds'], 1)} s", f"{memory:.2f} GB"])
        alone = found["seconds for one SVD of (10,000, d)"]
        rows.append([where, "one SVD of one head's 10,000 × 768 contributions", f"{alone:.2f} s", ""])
    return _table(["on", "what", "time", "memory"], rows)


def roads() -> str:
    rows = []
    for model, found in result("files")["roads"].items():
        if not isinstance(found, dict) or "of_forward" not in found:
            continue
        rates = found["images_per_second"]
        ways = [[_spread(rates[way]), f"{found['of_forward'][way]:.2f}"] for way in ("gpu", "cpu")]
        rows.append([model, found["batch"], _spread(rates["forward"]), *ways[0], *ways[1]])
    return _table(["model", "batch", "forward alone", "`gpu`", "of forward", "`cpu`", "of forward"], rows)


def roads_alone() -> str:
    found = result("files")["roads"]["alone"]
    return _table(["alone", "images/s"], [[name, f"{rate:,.0f}"] for name, rate in found.items()])


def roads_change() -> str:
    rows = []
    for name, found in (result("files").get("change") or result("files-change")["change"]).items():
        errors, cosines = found["features_relative_error"], found["features_cosine"]
        right = ""
        if shares := found.get("accuracy"):
            right = f"{100 * shares['cpu']:.2f} → {100 * shares['gpu']:.2f} % of {found['tested']:,}"
        rows.append(
            [
                name,
                found["images"],
                f"{found['levels']['mean']:.2f}, {found['levels']['largest']}",
                f"{100 * errors['median']:.1f} % (at most {100 * errors['largest']:.1f} %)",
                f"{cosines['median']:.5f} ({cosines['least']:.4f})",
                right,
            ]
        )
    headings = ["encoder, JPEGs", "pictures", "levels: mean, largest", "features, relative error"]
    return _table([*headings, "cosine (least)", "accuracy, `cpu` → `gpu`"], rows)


def roads_command() -> str:
    names = ("files",) if "change" in result("files") else ("files", "files-change")
    return "\n".join([*(f"    {result(name)['command']}" for name in names), "", *_versions("files")])


def size() -> str:
    rows = []
    on_card, beside = result("store")["encoding"]["pixels on cpu"], result("store-cpu")["hdf5"]
    counts = {"bfloat16": result("store")["encoding"]["images"], "float32": beside["samples"]}
    for (precision_, samples), found in zip(counts.items(), (on_card, beside), strict=True):
        written = found.get("bytes_of_hdf5")
        rows.append(
            [
                f"{samples:,} samples of a {precision_} ViT-L/14",
                f"{found['bytes'] / 1e9:.2f} GB",
                f"{found['of_float16_coordinates']:.3f}",
                f"{found['without_linearization']:.4f}",
                f"{written / 1e9:.2f} GB" if written else "",
            ]
        )
    return _table(
        ["", "store", "of the float16 coordinates", "the same without linearization", "contributions"], rows
    )


def packing() -> str:
    found, rows = result("store-packing")["packing"], []
    for label, name in (
        ("the store's own", "ours"),
        ("zarr", "zarr.core.codec_pipeline.BatchedCodecPipeline"),
        ("zarr through zarrs", "zarrs.ZarrsCodecPipeline"),
    ):
        times = [found[name][what] for what in ("write", "whole", "layer", "sample of a layer")]
        rows.append([label, *(f"{time:.1f}" for time in times)])
    return _table(["ms of processor", "written", "read", "one layer of z", "one sample of that"], rows)


def store_commands() -> str:
    names = ("store", "store-cpu", "store-packing")
    lines = [f"    {result(name)['command']}" for name in names]
    return "\n".join([*lines, "", *_versions("store", "store-cpu")])


def dimensions() -> str:
    about = {"linear dimension": 1, "TwoNN dimension": 1, "linear / TwoNN": 2, "participation ratio": 1}
    about |= {"first explained variance ratio": 2}
    chosen = {f"heads: {name}": digits for name, digits in about.items()}
    chosen |= {f"MLPs: {name}": about[name] for name in ("linear dimension", "TwoNN dimension")}
    return _of_datasets("experiment-1", {"samples": 0, **chosen})


def similarity() -> str:
    return _of_datasets("experiment-2", _SIMILAR)


def class_tokens() -> str:
    return _of_datasets("experiment-class-token", _SIMILAR)


_SIMILAR = {
    "spectral cosine": 2,
    "lowest spectral cosine": 2,
    "highest spectral cosine": 2,
    "spectral cosine, unweighted": 2,
    "mean principal angle, degrees": 1,
    "cosine of means": 2,
}


def neighbours() -> str:
    rows = []
    for name, where in (("geometry", "H100, 16 CPU cores"), ("geometry-cpu", "two CPU cores")):
        for data, ways in result(name)["two_nn"]["ways"].items():
            for way, found in ways.items():
                on_card = found.get("peak_megabytes_on_card")
                memory = f"{found['peak_resident_megabytes'] / 1e3:.2f} GB"
                rows.append(
                    [
                        f"{way} {found.get('version', '')}".strip(),
                        where if on_card is None else "H100",
                        data,
                        f"{_spread(found['seconds'], 2)} s",
                        memory + (f", {on_card / 1e3:.2f} GB on the card" if on_card else ""),
                        f"{found['dimension']:.10f}",
                    ]
                )
    return _table(["library", "on", "samples", "time", "memory", "dimension"], rows)


def whole_model() -> str:
    found = result("geometry")["experiment"]
    rows = [[name, f"{seconds:.1f} s"] for name, seconds in found["seconds_of"].items()]
    rows.append(["all", f"{found['seconds']:.1f} s"])
    return _table([f"{found['units']} units, {found['samples']:,} samples, H100", "time"], rows)


def geometry_commands() -> str:
    lines = [f"    {result(name)['command']}" for name in ("geometry", "geometry-cpu")]
    lines += [f"    residual experiment {number}" for number in ("1", "2", "class-token")]
    return "\n".join([*lines, "", *_versions("geometry", "geometry-cpu")])


_WAYS = {"accuracy": "S", "span": "U|T", "correlation": "U", "pursuit": "P", "trained": "O", "effect": "Oσ"}


def best_heads() -> str:
    """Accuracy of the best 5 % of heads, beside random ones and the whole encoder."""
    (datasets,) = result("experiment-3")["details"].values()
    rows = []
    for dataset, found in datasets.items():
        by_way = {row["way"]: row for row in found if row["share"] in (None, 0.05)}
        rows.append(
            [
                dataset,
                *(f"{by_way[way]['accuracy']:.3f}" for way in ("all units", "all heads")),
                *(_with_interval(by_way[way], "accuracy") for way in (*_WAYS, "random")),
            ]
        )
    headings = [
        "dataset",
        "all units",
        "all heads",
        *(name.replace("|", r"\|") for name in _WAYS.values()),
        "R",
    ]
    return _table(headings, rows)


def over_random() -> str:
    """How far the best heads are above the mean of random ones, by share."""
    (datasets,) = result("experiment-3")["details"].values()
    rows = []
    for dataset, found in datasets.items():
        at = {(row["way"], row["share"]): row for row in found}
        cells = [
            _with_interval(at[way, share], "over_random", "+")
            for share in (0.05, 0.25)
            for way in ("accuracy", "span", "correlation")
        ]
        full = [_with_interval(at["accuracy", share], "over_full", "+") for share in (0.05, 0.25)]
        rows.append([dataset, *cells, *full])
    ways = [rf"{name}, {share}" for share in ("5 %", "25 %") for name in ("S", r"U\|T", "U")]
    headings = ["dataset", *ways, "S, 5 %, to all units", "S, 25 %, to all units"]
    return _table(headings, rows)


def _with_interval(row: dict[str, float], name: str, sign: str = "") -> str:
    half = (row[f"{name}_high"] - row[f"{name}_low"]) / 2
    return f"{row[name]:{sign}.2f} ± {half:.2f}"


def head_scores() -> str:
    rows = []
    for name, where in (("heads", "H100"), ("heads-cpu", "two CPU cores")):
        found = result(name)["scores"]
        memory = f"{found['peak_resident_megabytes'] / 1e3:.2f} GB"
        if found["peak_megabytes_on_card"]:
            memory += f", {found['peak_megabytes_on_card'] / 1e3:.2f} GB on the card"
        for what, seconds in found["seconds"].items():
            about = {"correlation": "U", "span": r"U\|T", "accuracy": "S"}
            names = ", ".join(about[each] for each in what.split(", "))
            rows.append([names, where, f"{seconds:.1f} s", memory])
    return _table(["scores", "on", "time", "memory"], rows)


def pursuits() -> str:
    rows = []
    for name, where in (("heads", "H100"), ("heads-cpu", "two CPU cores")):
        for way, found in result(name)["somp"]["ways"].items():
            rows.append([way, where, f"{_spread(found['seconds'], 3)} s"])
    return _table(["10 of 3,500 texts for 50,000 × 768", "on", "time"], rows)


def heads_commands() -> str:
    lines = [f"    {result(name)['command']}" for name in ("heads", "heads-cpu")]
    lines.append("    residual experiment 3")
    return "\n".join([*lines, "", *_versions("heads", "heads-cpu")])


PIPELINES = {
    "one H100, ViT-L/14": "adapters",
    "two cores, Picto": "adapters-cpu",
    "two cores, Picto, ours in float32 too": "adapters-cpu-float32",
}


def pipeline() -> str:
    rows = []
    for where, name in PIPELINES.items():
        found = result(name)["pipeline"]
        slow = found["rerun"]
        ours = sorted(found["ours"], key=lambda each: each["total"])[len(found["ours"]) // 2]
        parts = ", ".join(
            f"{part} {ours['seconds'][part]:.1f}" for part in ("encode", "bases", "scores", "fit")
        )
        rows.append(
            [
                where,
                f"{found['n_train']:,}",
                f"{slow['images_a_second']:,.0f}",
                f"{slow['total']:,.0f} s",
                f"{ours['total']:.1f} s ({parts})",
                _spread(found["times_faster"]),
                _spread(found["times_faster_than_its_training_alone"]),
                f"{ours['at_once']['total']:.1f} s, {ours['at_once']['of_one']:.2f} of one",
            ]
        )
    headings = ["", "training pictures", "re-running: images/s", "re-running", "ours"]
    return _table([*headings, "times faster", "without its validation", "ours, ten seeds"], rows)


def many() -> str:
    found = result("adapters")["many"]
    rows = []
    for name, run in found.items():
        if sizes := re.fullmatch(r"batch (\d+), (\d+) fits", name):
            one = found[f"batch {sizes[1]}, 1 fits"]["seconds_an_epoch"]["median"]
            times = run["seconds_an_epoch"]
            speed = f"{run['samples_a_second']:,.0f}"
            rows.append([sizes[1], sizes[2], _spread(times, 3), speed, f"{times['median'] / one:.1f}"])
    return _table(["batch", "fits at once", "seconds an epoch", "samples a second", "time of one"], rows)


def folded() -> str:
    runs = {
        "ViT-L/14, H100": result("adapted")["large"]["runs"],
        "Picto, two cores": result("adapted-cpu")["picto"]["runs"],
    }
    rows = [
        [
            where,
            run["batch"],
            way,
            _spread(found["images_per_second"]),
            f"{found['median_time_of_median_plain']:.3f}",
        ]
        for where, measured in runs.items()
        for run in measured
        for way, found in run["ways"].items()
    ]
    return _table(["", "batch", "", "images/s", "time of plain"], rows)


def quality() -> str:
    return _accuracies("experiment-4")


def harm() -> str:
    """Accuracy by recipe; marked where the difference to zero-shot is negative beyond its interval."""
    rows = result("harm")["report"]["rows"]
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    before = {row["dataset"]: row["zero_shot"] for row in rows}
    lines = [["zero-shot", *(f"{100 * before[name]:.1f}" for name in names)]]
    for method, recipe in dict.fromkeys((row["method"], row["recipe"]) for row in rows):
        own = [row for row in rows if (row["method"], row["recipe"]) == (method, recipe)]
        cells = [
            f"{100 * row['accuracy']:.1f} ({_points(row, -1):+.1f} to {_points(row, 1):+.1f})" for row in own
        ]
        marked = [f"**{cell}**" if row["below"] else cell for cell, row in zip(cells, own, strict=True)]
        lines.append([f"{METHODS[method]}, {recipe}", *marked])
    return _table(["", *(name.removeprefix("folder:") for name in names)], lines)


def _points(row: dict[str, float], side: int) -> float:
    """An end of the interval of a difference, in points."""
    return round(100 * (row["difference"] + side * row["interval"]), 1) + 0.0  # no -0.0


def harm_command() -> str:
    return f"Made by `{result('harm')['command']}`: {_versions('harm')[0]}"


def tuning_memory() -> str:
    """A step of fine-tuning on 128 pictures, by model and way."""
    found, lines = result("memory"), []
    for name in ("blip-large", "clip-vit-l", "blip-large, bf16-mixed"):
        for row in (each for each in found[name] if each["batch"] == 128):
            numbers = [f"{row['peak_gib']:.1f}", f"{row['seconds']:.2f}", f"{row['difference']:.0e}"]
            lines.append([name, row["way"], row["portions"], *numbers])
    heads = ["model", "asked", "pictures", "GiB", "seconds a step", "difference of gradients"]
    made = f"Made by `{found['command']}`: {_versions('memory')[0]} {found['note']}"
    return "\n".join([_table(heads, lines), "", made])


def released() -> str:
    return _accuracies("experiment-4-released")


def _accuracies(name: str) -> str:
    (rows,) = (encoder["accuracies"] for encoder in result(name)["details"].values())
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["dataset"]: row for row in rows if row["method"] == method}
        cells = [
            f"{100 * own[name]['accuracy']:.1f}" + over_seeds(own[name]["interval"]) for name in datasets
        ]
        mean = sum(row["accuracy"] for row in own.values()) / len(own)
        lines.append([METHODS[method], *cells, f"{100 * mean:.1f}"])
    return _table(["", *datasets, "mean"], lines)


def adapters_commands() -> str:
    lines = [
        f"- `{result(name)['command']}`: {_versions(name)[0]}"
        for name in (*PIPELINES.values(), "adapted", "adapted-cpu")
    ]
    return "\n".join(
        ["Made by", "", *lines, "- `residual experiment 4 --json benchmarks/results/experiment-4.json`."]
    )


def untrained() -> str:
    found = result("published")["untrained"]
    columns = {**found["datasets"], "mean": found["mean"]}
    rows = [[way, *(f"{100 * each[way]:.1f}" for each in columns.values())] for way in found["mean"]]
    return _table(["", *columns], rows)


def centering() -> str:
    found = result("published")["heads"]
    rows = [
        ["spectral cosine of a head's bases, mean", f"{found['spectral cosine']:.3f}"],
        ["of the head that differs most", f"{found['least spectral cosine']:.3f}"],
        *(
            [f'components up to 90 % of variance, "{way}"', f"{count:.1f}"]
            for way, count in found["components"].items()
        ),
    ]
    return _table([f"Picto's {found['heads']} heads", ""], rows)


def correlations() -> str:
    found = result("published")["correlations"]
    rows = [
        [way, f"{each['mean']:.2f}", f"{each['order']:.2f}", f"{each['best']} of 5"]
        for way, each in found.items()
    ]
    columns = ["correlation with", "mean", "rank correlation with the first", "of its best tenth"]
    return _table(columns, rows)


def cosines() -> str:
    (datasets,) = result("experiment-2")["summary"].values()
    others = list(datasets.values())[1:]  # the first is the reference itself
    names = ("spectral cosine", "spectral cosine, unweighted", "root mean square of cosines by index")
    return _table(["", "mean"], [[name, f"{_mean_of(others, name):.3f}"] for name in names])


def _mean_of(rows: list[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def published_commands() -> str:
    options = "--cfg experiments/4_adapters/released.gin --device cpu --json"
    lines = [
        f"- `residual experiment 4 {options} benchmarks/results/experiment-4-released.json`: two cores.",
        f"- `{result('published')['command']}`: {_versions('published')[0]}",
        "- `residual experiment 2 --json benchmarks/results/experiment-2.json`.",
    ]
    return "\n".join(["Made by", "", *lines])


def real_methods() -> str:
    rows = [row for row in _real_accuracies() if not row["shots"]]
    lines = [[_real_name(row), _real_value(row), row["seeds"], f"{row['weights']:,}"] for row in rows]
    return _table(["", "accuracy", "fits", "weights trained"], lines)


def real_few_shot() -> str:
    rows = _real_accuracies()
    shots = sorted({row["shots"] for row in rows} - {0})
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows if row["shots"]):
        own = {row["shots"]: row for row in rows if row["method"] == method}
        lines.append([_real_name(own[0]), *(_real_value(own[each]) for each in (*shots, 0))])
    return _table(["pictures of each class", *map(str, shots), "all"], lines)


def real_limits() -> str:
    found: dict[str, dict[str, Any]] = {}
    for row in result("real")["limits"]:
        found.setdefault(row["what"], {})[row["pooling"]] = row
    names = {"own": "class token", "avg": "mean of patches"}
    poolings = [each for each in names if any(each in row for row in found.values())]
    lines = []
    for what, by_pooling in found.items():
        kept = [by_pooling.get(each) for each in poolings]
        cells = ["" if row is None else _seeds(row["accuracy"]) for row in kept]
        any_of = next(iter(by_pooling.values()))
        name = what if any_of["measure"] != "probe" else f"probe of {what}"
        for method in ("residual_star", "residual"):
            name = name.replace(f"{method},", f"{METHODS[method]},")
        lines.append([name, *cells, f"{any_of['weights']:,}"])
    return _table(["", *(names[each] for each in poolings), "weights trained"], lines)


def real_heads() -> str:
    (values,) = result("real")["experiment 3"]["summary"].values()
    return _table(
        ["heads", "accuracy"],
        [[name.replace("|", "\\|"), f"{100 * value:.1f}"] for name, value in values.items()],
    )


def real_dimensions() -> str:
    columns = {"heads: linear dimension": 1, "heads: TwoNN dimension": 1, "heads: participation ratio": 1}
    if "experiment 1" not in result("real"):
        return "Experiment 1 was cut off in this run."
    return _real_summary("experiment 1", columns)


def real_similarity() -> str:
    columns = {"spectral cosine": 3, "cosine of means": 3, "lowest spectral cosine": 3}
    return _real_summary("experiment 2", columns)


def real_commands() -> str:
    found = result("real")
    about = found["about"]
    seconds = ", ".join(f"{step} {value:,.0f} s" for step, value in found["seconds"].items())
    splits = ", ".join(f"{count:,} {split}" for split, (count, _) in about["splits"].items())
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    return (
        f"`python experiments/real/run.py` on {about['device']}, the encoder in {about['precision']} "
        f"(fingerprint `{about['fingerprint'][:12]}`), pictures as {' and '.join(about['endings'])}: "
        f"{splits}. {versions}. Steps: {seconds}."
    )


def _real_accuracies() -> list[dict[str, Any]]:
    return result("real")["experiment 4"]["details"]["accuracies"]


def _real_name(row: dict[str, Any]) -> str:
    return "class means" if row["method"] == "zero_shot" else METHODS[row["method"]]


def _real_value(row: dict[str, Any]) -> str:
    return f"{100 * row['accuracy']:.1f}{over_seeds(row['interval'])}"


def _seeds(values: list[float]) -> str:
    mean, half = mean_and_interval(values)
    return _real_value({"accuracy": mean, "interval": half})


def _real_summary(experiment: str, columns: dict[str, int]) -> str:
    rows = result("real")[experiment]["summary"]
    lines = [
        [name, *(f"{row[each]:,.{digits}f}" for each, digits in columns.items())]
        for name, row in rows.items()
    ]
    return _table(["dataset", *columns], lines)


def simulation() -> str:
    runs = [result(name)["simulation"] for name in ("scale-before", "scale")]
    sizes = [f"{of['shards']:,} shards, {of['samples'] / 1e6:.0f} M samples" for of in runs]
    steps = [step for step, value in runs[1].items() if isinstance(value, dict)]
    rows = [[step, *(_step(of.get(step)) for of in runs)] for step in steps]
    return _table(["", f"before: {sizes[0]}", f"now: {sizes[1]}"], rows)


def _step(of: dict[str, float] | None) -> str:
    return "" if of is None else f"{of['seconds']:.2f} s, {of['mb']:,} MB"


def merging() -> str:
    runs = [result(name)["merge"] for name in ("scale-before", "scale")]
    rows = [[f"{runs[1]['merged']:,} tasks, tiny moments", "", *(f"{of['seconds']:.1f} s" for of in runs)]]
    for model in ("ViT-B/16", "ViT-L/14", "ViT-H/14"):
        cells = [f"{1000 * of[model]['seconds']:.0f} ms" for of in runs]
        rows.append([f"one more task, heads of {model}", f"{runs[1][model]['mb']:.0f} MB", *cells])
    return _table(["", "moments", "before", "now"], rows)


def scale_stores() -> str:
    rows = []
    for row in result("scale-costs")["costs"]["rows"]:
        sizes = [f"{row[what] / 1e12:.2f} TB" for what in ("read_bytes", "bytes")]
        counts = [f"{row[what]:,}" for what in ("samples_per_shard", "shards", "objects")]
        rows.append([row["dataset"], row["model"], *sizes, f"{row['shard_mb']:.0f} MB", *counts])
    columns = ["files read", "store", "a shard", "samples of it", "shards", "objects"]
    return _table(["dataset", "encoder", *columns], rows)


def scale_money() -> str:
    rows = []
    for row in result("scale-costs")["costs"]["rows"]:
        dollars, of_gpus = row["dollars"], row["of_gpus"]
        times, most = [_hours(of_gpus[gpus]["hours"]) for gpus in ("1", "8", "64")], of_gpus["64"]
        network = f"{most['read_gb_per_second']:.1f} in, {most['written_gb_per_second']:.1f} out"
        money = [f"${dollars[what]:,.2f}" for what in ("gpus", "writing", "reading", "month")]
        rows.append([row["dataset"], row["model"], *times, network, *money])
    columns = [
        "1 GPU",
        "8",
        "64",
        "GB/s of 64",
        "GPUs",
        "PUTs to write",
        "GETs to read it all",
        "a month kept",
    ]
    return _table(["dataset", "encoder", *columns], rows)


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def scale_cuts() -> str:
    found, rows = result("scale-costs")["costs"], []
    for row in found["cuts"]:
        counts = [f"{row[what]:,}" for what in ("samples_per_shard", "shards", "objects")]
        dollars = row["puts"] * found["prices"]["put_1000"] / 1000
        rows.append([row["model"], f"{row['mb']:,} MB", *counts, f"${dollars:,.0f}"])
    columns = ["shards up to", "samples a shard", "shards", "objects", "PUTs to write"]
    return _table(["LAION-400M", *columns], rows)


def scale_rates() -> str:
    found = result("scale-costs")["costs"]["rates"]
    rows = [[name, f"{each['images_per_second']:,.0f}", each["from"]] for name, each in found.items()]
    return _table(["encoder", "images/s to the store", "from"], rows)


def scale_commands() -> str:
    found, costs = result("scale"), result("scale-costs")
    prices = ", ".join(f"{name} ${value}" for name, value in costs["costs"]["prices"].items())
    lines = [
        f"`{found['command']}`: {found['cores']} cores, beside other work. {_versions('scale')[0]}",
        f"`{costs['command']}`: {prices}.",
        f"before: {result('scale-before')['command']}.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def colours() -> str:
    """Means over both datasets and both dictionaries."""
    held = result("colours")
    each = [held[name][texts] for name in ("mixed", "emoji-concepts") for texts in ("attributes", "words")]
    words = list(each[0])
    rows = []
    for way in list(each[0][words[0]])[1:]:
        found = [[one[word][way]["rank correlation"] for one in each] for word in words]
        means = [sum(values) / len(values) for values in found]
        rows.append([way, *(f"{mean:.2f}" for mean in (*means, sum(means) / len(means)))])
    return _table(["ranked by the share along", *words, "mean"], rows)


def colours_command() -> str:
    return "\n".join([f"    {result('colours')['command']}", "", *_versions("colours")])


_MAPS = {
    "class": "a class (less the mean of all)",
    "text": "its text (less a dictionary's mean)",
    "class alone": "a class, nothing taken off",
    "class, for": "a class, what speaks for it only",
    "class, adapted": "a class, by a fitted ResiDual\\*",
    "attention": "raw attention, last layer",
    "rollout": "attention rollout",
    "Grad-CAM": "Grad-CAM, nothing taken off",
    "Grad-CAM of class": "Grad-CAM (less the mean of all)",
    "random": "random numbers",
    "ideal": "the mask itself, by the patch",
}
MAP_MEASURES = {"pixel_accuracy": "accuracy", "mean_iou": "mIoU", "mean_precision": "mAP"}
_MAP_PAIRS = (
    *[(ours, other) for ours in ("class", "class, for") for other in ("attention", "rollout")],
    *[(ours, "Grad-CAM of class") for ours in ("class", "class, for")],
    ("class", "class alone"),
)


def scenes() -> dict[str, Any]:
    """What came of each dataset whose masks are known."""
    found = result("segmentation")
    return {name: found[name] for name in ("counting", "house-numbers", "road-signs")}


def segmentation() -> str:
    return _of_scenes("map of", {label: (way, None) for way, label in _MAPS.items()}, _seeds)


def segmentation_differences() -> str:
    """On the same draws."""
    rows = {f"{_MAPS[ours]} − {_MAPS[other]}": (ours, other) for ours, other in _MAP_PAIRS}
    return _of_scenes("difference", rows, _change)


def _of_scenes(
    heading: str, rows: dict[str, tuple[str, str | None]], shown: Callable[[list[float]], str]
) -> str:
    """A row for each way, or each less another, by what it is called; columns by dataset and measure."""
    columns = [(name, measure) for name in scenes() for measure in MAP_MEASURES]
    lines = []
    for label, (way, other) in rows.items():
        cells = []
        for name, measure in columns:
            ways = scenes()[name]["ways"]
            mine = ways[way][measure]
            theirs = ways[other][measure] if other else [0.0] * len(mine)
            cells.append(shown([a - b for a, b in zip(mine, theirs, strict=True)]))
        lines.append([label, *cells])
    return _table([heading, *(f"{name}: {MAP_MEASURES[measure]}" for name, measure in columns)], lines)


def segmentation_command() -> str:
    found = scenes()
    (one, *_) = found.values()
    shares = ", ".join(f"{100 * each['covered']:.0f} % ({name})" for name, each in found.items())
    accuracies = ", ".join(
        f"{100 * each['accuracy']['before']:.1f} and {100 * each['accuracy']['after']:.1f} % ({name})"
        for name, each in found.items()
    )
    return "\n".join(
        [
            f"In per cent, ± half the 95 % t interval over {one['draws']} draws of {one['pictures']} test",
            "pictures, none in two of them.",
            f"Things cover {shares} of the pixels.",
            "Of these pictures Picto tells right, without the adapter and with it:",
            f"{accuracies}.",
            "",
            f"    {result('segmentation')['command']}",
            "",
            *_versions("segmentation"),
        ]
    )


PAGES = {
    "real": (
        real_methods,
        real_few_shot,
        real_limits,
        real_heads,
        real_dimensions,
        real_similarity,
        real_commands,
    ),
    "adapters": (
        pipeline,
        many,
        folded,
        quality,
        harm,
        harm_command,
        tuning_memory,
        adapters_commands,
    ),
    "speed": (speed, compiled, precision, accuracy, float8, commands),
    "stores": (
        encoding,
        packing,
        roads_change,
        roads,
        roads_alone,
        roads_command,
        bases,
        size,
        store_commands,
    ),
    "scale": (simulation, merging, scale_stores, scale_money, scale_cuts, scale_rates, scale_commands),
    "explore": (colours, colours_command),
    "heads": (best_heads, over_random, head_scores, pursuits, heads_commands),
    "published": (released, untrained, centering, cosines, correlations, published_commands),
    "maps": (segmentation, segmentation_differences, segmentation_command),
    "geometry": (dimensions, similarity, class_tokens, neighbours, whole_model, geometry_commands),
}


def page_of(name: str) -> Path:
    return ROOT / f"docs/{name}.md"


def filled(name: str) -> str:
    """The page with every table between its marks made anew."""
    page = page_of(name).read_text(encoding="utf-8")
    for make in PAGES[name]:
        mark = re.compile(f"(<!-- {make.__name__} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not mark.search(page):
            raise SystemExit(f"docs/{name}.md has no place for the table {make.__name__!r}.")
        page = mark.sub(lambda found, make=make: f"{found[1]}\n{make()}\n\n{found[2]}", page)
    return page


def _of_datasets(name: str, columns: dict[str, int]) -> str:
    """One encoder's summary of an experiment, with so many digits a column."""
    (rows,) = result(name)["summary"].values()
    headings = ["dataset", *columns]
    return _table(
        headings,
        [
            [dataset, *(f"{values[column]:,.{digits}f}" for column, digits in columns.items())]
            for dataset, values in rows.items()
        ],
    )


def _versions(*names: str) -> list[str]:
    return [
        f"{', '.join(f'{key} {value}' for key, value in result(name)['versions'].items())}." for name in names
    ]


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


def _spread(values: dict[str, float], digits: int = 0) -> str:
    return "{median:,.{d}f} ({least:,.{d}f}–{most:,.{d}f})".format(**values, d=digits)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _change(values: list[float]) -> str:
    """The mean of shares or of differences, in points of a per cent, with half its interval."""
    mean, half = mean_and_interval(values)
    return f"{100 * mean:+.1f}{over_seeds(half)}"


def _table(headings: list[str], rows: list[list[Any]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    for name in PAGES:
        page_of(name).write_text(filled(name), encoding="utf-8")
