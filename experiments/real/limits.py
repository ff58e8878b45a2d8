"""What separates ResiDual from fine-tuning: what a linear map could read out of each part of an encoder.

Probes are multinomial logistic regressions of standardised features, trained on train, their penalty chosen
on val, tested on test; they are the same every time. Adapters are those of experiment 4, with other choices.
`together` trains the classifier's rows as well as λ, from class means and λ = 1, by the cross-entropy of the
same logits; the epoch is chosen on val. `study` is called by run.py; what its file has isn't measured again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from residual.adapters import Adapter, FitSettings, compute_scores, evaluate, fit
from residual.adapters.methods import AdapterSettings, Reference, make_adapter
from residual.adapters.scores import Scores
from residual.store.base import Store
from residual.text import ZeroShotClassifier

LAYERS = (0, 2, 4, 6, 8, 10, 11)
KEPT = AdapterSettings(mean="keep", init="ones")


@dataclass(frozen=True)
class LimitsSettings:
    """How the study measures.

    Args:
        seeds: of what is random.
        ranks: components of each unit that ResiDual is tried with.
        epochs: of fits at most.
        batch_size: of `together`.
        rate, classifier_rate: of AdamW there, of λ and of the classifier's rows.
        decays: penalties of probes to choose from.
        steps: of their L-BFGS at most.
    """

    seeds: int = 3
    ranks: tuple[int, ...] = (4, 16)
    epochs: int = 30
    batch_size: int = 256
    rate: float = 0.02
    classifier_rate: float = 0.002
    decays: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    steps: int = 150


def study(
    stores: Callable[[str], Mapping[str, Store]],
    poolings: tuple[str, ...],
    file: Path,
    device: str | torch.device,
    settings: LimitsSettings,
    tell: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """A row a measurement, in `file` as soon as it is made.

    Args:
        stores: the splits' coordinates, by pooling; called for what isn't measured yet alone.
        poolings: "own" (the class token here), "avg" (mean of patches).
    """
    done = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    for pooling in poolings:
        parts: Parts | None = None
        for name, measure in MEASURES.items():
            if any((row["measure"], row["pooling"]) == (name, pooling) for row in done):
                continue
            parts = parts or Parts(stores(pooling), device)
            for row in measure(parts, settings):
                found = {"measure": name, "pooling": pooling, **row}
                tell(f"{found['what']} ({pooling}): {[round(100 * each, 1) for each in row['accuracy']]}")
                done.append(found)
            file.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    return done


class Parts:
    """The splits of a dataset in coordinates, and what is made of them."""

    def __init__(self, stores: Mapping[str, Store], device: str | torch.device):
        self.stores, self.device = stores, torch.device(device)
        self.labels = {split: torch.tensor(store.labels, device=device) for split, store in stores.items()}
        self.outputs = {split: store.output().float().to(device) for split, store in stores.items()}
        train = stores["train"]
        self.classifier = ZeroShotClassifier.from_class_means(
            self.outputs["train"], train.labels, train.class_names, fingerprint=train.fingerprint
        )
        self.reference = Reference.of(train, str(device))

    def features(self, store: Store) -> tuple[Tensor, Tensor, Tensor]:
        """Heads' coordinates `(n, L H h)`, MLPs' contributions `(n, L d)`, sums to each layer `(n, L, d)`."""
        linearization, units = store.linearization.to(self.device), store.linearization.units
        heads, mlps, table = units.positions("head"), units.positions("mlp"), store.units
        kept: list[list[Tensor]] = [[], [], []]
        for batch in store.batches(1024):
            here = batch.to(self.device, torch.float32)
            kept[0].append(torch.cat([linearization.features(here, unit)[:, :-2] for unit in heads], 1))
            whole = linearization.contributions(here)
            kept[1].append(whole[:, mlps].flatten(1))
            layers = [
                whole[:, table.index[(table["kind"] == "emb") | (table["layer"] <= layer)].tolist()].sum(1)
                for layer in range(units.layers)
            ]
            kept[2].append(torch.stack(layers, 1))
        heads_, mlps_, stream = (torch.cat(each) for each in kept)
        return heads_, mlps_, stream

    def scores(self, adapter: Adapter) -> dict[str, Scores]:
        return {
            split: compute_scores(adapter, store, device=self.device) for split, store in self.stores.items()
        }


Rows = list[dict[str, Any]]


def untrained(parts: Parts, settings: LimitsSettings) -> Rows:
    """The classifier of class means."""
    accuracy = parts.classifier.to(parts.device).accuracy(parts.outputs["test"], parts.labels["test"])
    return [{"what": "class means", "weights": 0, "accuracy": [accuracy]}]


def probes(parts: Parts, settings: LimitsSettings) -> Rows:
    """Of the output, of all coordinates, and of the stream up to each layer."""
    found = {split: parts.features(store) for split, store in parts.stores.items()}
    layers = found["train"][2].shape[1]
    inputs: dict[str, Callable[[str], Tensor]] = {
        "output": lambda split: parts.outputs[split],
        "all heads": lambda split: found[split][0],
        "all MLPs": lambda split: found[split][1],
        "all heads and MLPs": lambda split: torch.cat(found[split][:2], 1),
    }
    for layer in (layer for layer in LAYERS if layer < layers):
        inputs[f"stream to layer {layer}"] = lambda split, layer=layer: found[split][2][:, layer]
    return [
        {"what": name, **probe({split: get(split) for split in found}, parts.labels, settings)}
        for name, get in inputs.items()
    ]


def probe(
    inputs: Mapping[str, Tensor], labels: Mapping[str, Tensor], settings: LimitsSettings
) -> dict[str, Any]:
    """The logistic regression whose penalty is best on val."""
    mean, scale = inputs["train"].mean(0), inputs["train"].std(0) + 1e-6
    scaled = {split: (each - mean) / scale for split, each in inputs.items()}
    classes, best = int(labels["train"].max()) + 1, {"val_accuracy": -1.0}
    for decay in settings.decays:
        weights = torch.zeros(len(mean), classes, device=mean.device, requires_grad=True)
        bias = torch.zeros(classes, device=mean.device, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weights, bias], max_iter=settings.steps, history_size=10, line_search_fn="strong_wolfe"
        )

        def loss(weights=weights, bias=bias, optimizer=optimizer, decay=decay) -> Tensor:
            optimizer.zero_grad()
            value = cross_entropy(scaled["train"] @ weights + bias, labels["train"])
            value = value + decay / 2 * weights.square().sum()
            value.backward()
            return value

        optimizer.step(loss)  # ty: ignore[invalid-argument-type]
        val, test = (share_right(scaled[split] @ weights + bias, labels[split]) for split in ("val", "test"))
        if val > best["val_accuracy"]:
            best = {
                "accuracy": [test],
                "val_accuracy": val,
                "decay": decay,
                "weights": weights.numel() + classes,
            }
    return best


def adapters(parts: Parts, settings: LimitsSettings) -> Rows:
    """ResiDual and ResiDual* with other choices, the classifier frozen."""
    rows, kept = [], {"means kept, from 1": KEPT}
    few = {f"rank {rank}": AdapterSettings(rank=rank) for rank in settings.ranks}
    tried = {"residual": {"as in the paper": AdapterSettings(), **kept, **few}, "residual_star": kept}
    for method, ways in tried.items():
        for name, how in ways.items():
            made = [make_adapter(method, parts.reference, how, seed) for seed in range(settings.seeds)]
            scores = parts.scores(made[0])
            rows.append(
                {
                    "what": f"{method}, {name}",
                    **fitted(made, scores, [parts.classifier] * len(made), settings),
                }
            )
    return rows


def fitted(
    made: list[Adapter],
    scores: Mapping[str, Scores],
    classifiers: list[ZeroShotClassifier],
    settings: LimitsSettings,
) -> dict[str, Any]:
    """Each adapter fitted by the paper's recipe."""
    accuracy, val = [], []
    for seed, (adapter, classifier) in enumerate(zip(made, classifiers, strict=True)):
        how = FitSettings(seed=seed, epochs=settings.epochs)
        val.append(fit(adapter, scores["train"], scores["val"], classifier, how).val_accuracy)
        accuracy.append(evaluate(adapter, scores["test"], classifier))
    return {"weights": made[0].weights.numel(), "accuracy": accuracy, "val_accuracy": val}


def classifiers(parts: Parts, settings: LimitsSettings) -> Rows:
    """The classifier alone, λ on that classifier, and both together."""
    rows = []
    for method in ("residual_star", "residual"):
        first = make_adapter(method, parts.reference, KEPT)
        scores, seeds = parts.scores(first), range(settings.seeds)
        alone = [together(scores, parts.classifier, settings, seed, False) for seed in seeds]
        both = [together(scores, parts.classifier, settings, seed, True) for seed in seeds]
        trained = [
            ZeroShotClassifier(each["rows"], parts.classifier.class_names, fingerprint=first_print(scores))
            for each in alone
        ]
        made = [make_adapter(method, parts.reference, KEPT, seed) for seed in seeds]
        rows += [
            {"what": f"{method}, classifier alone", **told(alone)},
            {"what": f"{method}, classifier first, then λ", **fitted(made, scores, trained, settings)},
            {"what": f"{method}, classifier and λ together", **told(both)},
        ]
        rows[-2]["weights"] += alone[0]["weights"]
    return rows


def first_print(scores: Mapping[str, Scores]) -> str:
    return scores["train"].fingerprint


def told(fits: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("accuracy", "val_accuracy")
    return {"weights": fits[0]["weights"], **{name: [each[name] for each in fits] for name in names}}


def together(
    scores: Mapping[str, Scores],
    classifier: ZeroShotClassifier,
    settings: LimitsSettings,
    seed: int,
    both: bool,
) -> dict[str, Any]:
    """The classifier's rows trained on scores, and λ with them if `both`."""
    device = scores["train"].scores.device
    parts = {
        split: replace(each, scores=each.scores.float(), rest=each.rest.float())
        for split, each in scores.items()
    }
    directions = parts["train"].directions.float().to(device)
    lambdas = torch.ones(len(directions), device=device, requires_grad=both)
    rows = classifier.weights.to(device).float().clone().requires_grad_()
    groups = [{"params": [rows], "lr": settings.classifier_rate}]
    groups += [{"params": [lambdas], "lr": settings.rate}] if both else []
    optimizer = torch.optim.AdamW(groups, weight_decay=0)
    generator = torch.Generator().manual_seed(seed)

    def logits(part: Scores, at: Tensor | slice) -> Tensor:
        output = torch.addmm(part.rest[at], part.scores[at] * lambdas, directions)
        return classifier.scale * normalize(output, dim=1) @ normalize(rows, dim=1).T

    best: dict[str, Any] = {"val_accuracy": -1.0}
    train = parts["train"]
    for _ in range(settings.epochs):
        for at in torch.randperm(len(train), generator=generator).to(device).split(settings.batch_size):
            loss = cross_entropy(logits(train, at), train.labels[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            val, test = (
                share_right(logits(parts[split], slice(None)), parts[split].labels)
                for split in ("val", "test")
            )
        if val > best["val_accuracy"]:
            best = {"accuracy": test, "val_accuracy": val, "rows": rows.detach().clone()}
    return {**best, "weights": rows.numel() + (lambdas.numel() if both else 0)}


def share_right(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).double().mean().item()


MEASURES: dict[str, Callable[[Parts, LimitsSettings], Rows]] = {
    "untrained": untrained,
    "probe": probes,
    "adapter": adapters,
    "classifier": classifiers,
}
