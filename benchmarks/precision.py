"""What bfloat16 costs: contributions and zero-shot accuracy against float32.

    python benchmarks/precision.py --out benchmarks/results/precision.json

On the embedded encoder, which is also tested on the test parts of the offline suite, and on open_clip's B/16
with random weights, of which only contributions are compared. Errors are `‖c − c₃₂‖ / ‖c₃₂‖` over all
pictures and all units of a kind.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import open_clip
import torch
from common import command, versions

from residual.data import dataset_names, load_dataset
from residual.devices import find_device
from residual.encoders.encoder import Encoder
from residual.encoders.load import load_encoder, wrap_encoder
from residual.store.encode import encode_dataset
from residual.text import ZeroShotClassifier
from residual.tracing.linearization import Linearization
from residual.tracing.trace import trace
from residual.tracing.units import KINDS

PICTURES = 32


def by_kind(encoders: dict[str, Encoder], images: list) -> dict[str, float]:
    """Relative error of the contributions of each kind of unit, and of the output."""
    contributions, outputs = [], []
    for encoder in encoders.values():
        linearization = Linearization.of(encoder)
        with torch.inference_mode():
            coordinates, output = trace(encoder, encoder.pixels(images))
            contributions.append(linearization.contributions(coordinates))
            outputs.append(output)
    errors = {"output": _miss(outputs[1], outputs[0])}
    for kind in KINDS:
        chosen = linearization.units.positions(kind)
        errors[kind] = _miss(contributions[1][:, chosen], contributions[0][:, chosen])
    errors["sum of units against own output"] = _miss(contributions[1].sum(1), outputs[1])
    return errors


def zero_shot(encoder: Encoder, name: str) -> float:
    """Accuracy on the test part, from class names and templates."""
    dataset = load_dataset(name, "test")
    classifier = ZeroShotClassifier.from_text(encoder, dataset.class_names, dataset.templates)
    store = encode_dataset(encoder, dataset, batch_size=256)
    return classifier.accuracy(store.output(), store.labels)


def _miss(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", default=list(dataset_names()))
    options = parser.parse_args()
    device = find_device(None)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    picto = {name: load_encoder("picto", device, dtype) for name, dtype in dtypes.items()}
    images = [load_dataset(name, "test")[index][0] for name in options.datasets for index in range(PICTURES)]
    torch.manual_seed(0)
    weights = open_clip.create_model("ViT-B-16").state_dict()
    b16 = {}
    for name, dtype in dtypes.items():
        model = open_clip.create_model("ViT-B-16")
        model.load_state_dict(weights)
        b16[name] = wrap_encoder(model.to(device, dtype))
    errors = {"picto": by_kind(picto, images), "ViT-B/16, random weights": by_kind(b16, images[::5])}
    accuracy = {}
    for dataset in options.datasets:
        exact, half = (zero_shot(encoder, dataset) for encoder in picto.values())
        accuracy[dataset] = {"float32": exact, "bfloat16": half, "change": half - exact}
        print(dataset, accuracy[dataset], flush=True)
    changes = [abs(values["change"]) for values in accuracy.values()]
    result = {
        "command": command(),
        "versions": versions(device),
        "relative_error": errors,
        "zero_shot_accuracy": accuracy,
        "largest_change": max(changes),
        "mean_change": sum(values["change"] for values in accuracy.values()) / len(accuracy),
    }
    print(json.dumps(errors, indent=1), result["largest_change"], result["mean_change"])
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
