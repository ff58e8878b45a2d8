"""The model card of an adapted encoder, from its config."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from residual.adapters.training_record import TrainingRecord
from residual.encoders.aliases import ALIASES

_CALLED = {
    "residual": "ResiDual: principal components of the encoder's units, each re-weighted by one number",
    "residual_star": "ResiDual\\*: principal components of heads, each re-weighted by one number",
    "coarse": "Coarse: the encoder's heads, each re-weighted by one number",
    "linear": "a linear map of the encoder's output",
    "spectral": "a spectral map: the output's principal components, each re-weighted by one number",
    "fine_tuning": "full fine-tuning: these are the weights of the image tower",
    "none": "none: the encoder as it is, with a classifier",
}


def model_card(config: dict[str, Any], place: str) -> str:
    """Markdown with a header that the hub reads; `place` is where it will be loaded from."""
    encoder, adapter, record = config["encoder"], config["adapter"], config["training"] or {}
    method = TrainingRecord.of_json(record).trained_by(config["method"])
    dataset, classes = record.get("dataset", ""), config["class_names"] or []
    title = f"{encoder['name']} adapted to {dataset}" if dataset else f"{encoder['name']}, adapted"
    lines = [
        _header(config),
        f"# {_plain(title)}",
        "",
        f"Method: {_CALLED[method]}.",
        "",
        "Made with residual-vit (ResiDual: Basile et al. 2025, arXiv 2411.00246).",
        "",
        "```python",
        "from residual import AdaptedEncoder",
        "",
        f"adapted = AdaptedEncoder.from_pretrained({json.dumps(place)})",
        "images = adapted.pixels([image])  # image: a PIL image",
        "logits = adapted(images)" if classes else "features = adapted(images)",
        "```",
        "",
        "## What it is",
        "",
        f"- encoder `{encoder['name']}`, fingerprint `{encoder['fingerprint'][:16]}`, centering "
        f"`{encoder['split']}`, pooling `{encoder['pooling']}`, output width {encoder['output_dim']}",
        f"- trained numbers: {config['trained_weights']:,}",
    ]
    if adapter and "others" in adapter:
        lines.append(
            f"- {len(adapter['ranks'])} units with a basis, {sum(adapter['ranks']):,} components; units "
            f"without one: {adapter['others']}; components beyond the rank: {adapter['tail']}; means: "
            f"{adapter['mean']}"
        )
    if bases := config["bases"]:
        lines.append(f"- bases from {bases['samples']:,} pictures of {_plain(', '.join(bases['datasets']))}")
    if classes:
        shown = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
        lines.append(f"- {len(classes)} classes: {_plain(shown)}")
    if settings := record.get("settings"):
        lines.append(f"- settings of the fit: `{json.dumps(settings)}`".replace("\n", " "))
    lines += ["", *_results(record), *_limits(record, bool(classes))]
    return "\n".join(lines) + "\n"


def hub_name(encoder: str) -> str | None:
    """The hub's repository that an encoder of this name is loaded from, where the name says so."""
    spec = ALIASES[encoder].spec if encoder in ALIASES else encoder
    form, _, place = spec.partition(":")
    if form in ("open_clip", "timm"):
        if not place.startswith("hf-hub:"):
            return None
        place = place.removeprefix("hf-hub:")
    elif form != "hf" or Path(place).expanduser().is_dir():
        return None
    repo = place.partition("@")[0]
    return repo if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", repo) else None


def _header(config: dict[str, Any]) -> str:
    kind = "image-classification" if config["class_names"] else "image-feature-extraction"
    header = ["---", "library_name: residual-vit", f"pipeline_tag: {kind}"]
    header += ["tags:", *(f"- {tag}" for tag in ("residual-vit", "vision-transformer", config["method"]))]
    if base := hub_name(config["encoder"]["name"]):
        relation = "finetune" if config["method"] == "fine_tuning" else "adapter"
        header += [f"base_model: {json.dumps(base)}", f"base_model_relation: {relation}"]
    return "\n".join([*header, "---", ""])


def _results(record: dict[str, Any]) -> list[str]:
    accuracy, interval = record.get("accuracy") or {}, record.get("interval") or {}
    if not accuracy:
        return []
    about = f" on {record['n_test']:,} pictures" if record.get("n_test") else ""
    seeds = record.get("seeds") or ()
    means = f", means over {len(seeds)} seeds" if len(seeds) > 1 else ""
    rows = []
    for name, value in accuracy.items():
        half = interval.get(name)
        reach = "" if half is None else f" ± {100 * half:.1f}"
        rows.append(f"| {_plain(name)} | {100 * value:.1f}{reach} |")
    return [
        "## Accuracy",
        "",
        f"On the test split of {_plain(record.get('dataset') or 'the dataset')}{about}{means}, in percent"
        f"{'; ± is half the 95 % interval' if any(v is not None for v in interval.values()) else ''}.",
        "",
        "| method | accuracy |",
        "| --- | ---: |",
        *rows,
        "",
    ]


def _limits(record: dict[str, Any], classes: bool) -> list[str]:
    limits = [
        "- Pictures of another kind than those of the dataset were not looked at, nor were other classes."
        if classes
        else "- Pictures of another kind than those that it was fitted on were not looked at.",
        "- Logits are cosines times a factor; whether they are calibrated as probabilities was not measured.",
    ]
    if not record.get("accuracy"):
        limits.insert(0, "- No accuracy was handed over with it.")
    elif any(value is not None for value in (record.get("interval") or {}).values()):
        limits.append("- Intervals are over the seeds of the fit, not over the choice of pictures.")
    else:
        limits.append("- Accuracies are of one fit each: how far they'd scatter is not known.")
    return ["## What this doesn't show", "", *limits]


def _plain(text: str) -> str:
    """Text that stays text in Markdown, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))
