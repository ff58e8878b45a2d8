"""Experiment 3: which heads a task needs, what is left without the others, and what texts say of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from residual.adapters import FitSettings, ResiDual, adapted_output, fit
from residual.errors import ResidualError
from residual.experiments.base import Experiment, Page, Tables
from residual.experiments.head_pages import overlap_pages, part_of, study_pages
from residual.experiments.head_studies import SAMPLES, STUDIES, Studies, accuracies_of, text_rows, unit_row
from residual.experiments.plan import Plan, Work
from residual.experiments.results import outputs_path, read_outputs
from residual.heads.comparison import Scoreboard, ScoreboardSettings, scoreboard
from residual.heads.selections import COUNTINGS, SHARES, ablations, are_shares, jaccard_table
from residual.report.geometry import records
from residual.report.scoreboards import LABELS, ablations_figure, matrix_figure, scoreboard_figure
from residual.report.tables import METHOD_NAMES
from residual.settings import MOST_SEEDS, PAPER, check_settings, setting
from residual.spectral.bases import SpectralBases
from residual.spectral.fit import fit_bases
from residual.store.base import Store
from residual.text.classifier import ZeroShotClassifier, check_class_names
from residual.text.dictionary import TextDictionary
from residual.text.pursuit import omp, somp, text_span, weighted_components
from residual.workflows.heads import coarse_weights
from residual.workflows.store_origin import classifier_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BASES = ("mlp", "head")
_SHOWN = 0.05  # the share of heads whose figures are in the summary
_BEST = 0.1  # the share of heads whose selections are compared and described
_LATE = 2  # layers at the end


@dataclass(frozen=True)
class HeadsSettings:
    """How heads are chosen and named; the defaults are the paper's, where it has any.

    Args:
        shares: of the heads, that are kept.
        seeds: halvings of the samples, and draws of random heads.
        seed: of all of that.
        atoms: texts of a unit, by SOMP.
        rank: of TextSpan.
        dictionary: as `TextDictionary.encode` takes it.
        adapted: methods whose output on test is described beside the encoder's own; all but "residual" by
            what experiment 4 kept.
        alone: correlate units with the sum of these units alone as well, see `ScoreboardSettings`.
        counting: how many heads a share is; "published" counts them as the published code does.
        studies: more parts of a cell, see `STUDIES`.

    Raises:
        ResidualError: one is out of range, or an unknown method.
    """

    shares: tuple[float, ...] = setting(
        SHARES,
        holds=lambda shares: are_shares(shares) and {_SHOWN, _BEST} <= set(shares),
        takes=f"a list of numbers, each above 0 and at most 1, {_SHOWN} and {_BEST} among them",
        source=PAPER,
    )
    seeds: int = setting(10, least=2, most=MOST_SEEDS, source=PAPER)
    seed: int = setting(0, least=0)
    atoms: int = setting(10, least=1, source=PAPER)
    rank: int = setting(80, least=1, source=PAPER)
    dictionary: str = "words"
    adapted: tuple[str, ...] = setting(("residual",), choices=tuple(METHOD_NAMES))
    alone: bool = False
    counting: str = setting("rounded", choices=COUNTINGS)
    studies: tuple[str, ...] = setting((), choices=tuple(STUDIES))

    def __post_init__(self):
        check_settings(self)

    def scoreboard(self, mode: str = "zero") -> ScoreboardSettings:
        """What the scoreboard compares."""
        return ScoreboardSettings(
            self.shares, self.seeds, self.seed, mode, self.atoms, alone=self.alone, counting=self.counting
        )


class Heads(Experiment):
    """All selections and ablations of heads for every dataset, and texts of those that are chosen.

    Heads are chosen on val and tested on test; Coarse, for (O), and ResiDual are trained on train. A cell's
    table has one kind of row for each `part`: "accuracy" (the scoreboard), "score" (a unit's scores),
    "ablation" (accuracy on test without some units), "jaccard" (of two selections), "text" (of a chosen head
    or an MLP), "late" (a late head by SOMP, TextSpan and OMP, with its spectrum) and "adapted" (texts of the
    output of the encoder alone, "zero_shot", and after each method of `adapted`); and one for each of
    `studies`.
    """

    folder = "3_heads"
    settings_of = HeadsSettings
    later = ("alone", "counting", "studies")

    def depends_on(self, plan: Plan, cell: str) -> tuple[tuple[str, str], ...]:
        """All splits of the dataset, and the reference, which bases are of."""
        return ((plan.reference, "train"), *((cell, split) for split in ("train", "val", "test")))

    def cells(self, plan: Plan) -> tuple[str, ...]:
        """The datasets; the reference has no classes to tell apart."""
        return plan.datasets

    def measure(self, work: Work, cell: str) -> pd.DataFrame:
        """Every part of one dataset."""
        settings, device, encoder = self.settings, work.plan.device, work.encoder
        outputs = self._kept(work, cell)
        train, val, test = (work.store(cell, split=split) for split in ("train", "val", "test"))
        outputs["zero_shot"] = test.output()
        reference = work.store(work.plan.reference, split="train")
        bases = work.once("bases", self._bases, work)
        own = fit_bases(val, _BASES, device=device) if encoder.has_text else None
        heads = bases.select(val.units["unit"][val.units["kind"] == "head"].tolist())
        classifier = classifier_of(train, encoder, work.dataset(cell, "train"))
        texts, late = None, pd.DataFrame()
        if own is not None:
            texts = work.once("texts", self._texts, work)
            late = _late_heads(val, own, texts, settings.atoms, settings.rank)
        trained = coarse_weights(heads, train, val, classifier, settings.seed)
        adapter = None
        if encoder.has_text and ("residual" in settings.adapted or "adapted_heads" in settings.studies):
            adapter = _residual(bases, train, val, classifier, settings.seed)
            outputs["residual"] = adapted_output(adapter, test)

        def compared(mode: str) -> Scoreboard:
            return scoreboard(
                val, classifier, test, settings.scoreboard(mode), trained=trained, bases=heads,
                dictionary=texts, device=device,
                progress=lambda stage, done, n: work.progress(f"{work.name}: {stage} of {cell}", done, n),
            )  # fmt: skip

        board = compared("zero")
        named = ((name.rpartition(" "), chosen) for name, chosen in board.selections.items())
        best = {way: chosen for (way, _, share), chosen in named if share == f"{_BEST:g}"}
        overlap = jaccard_table(best).rename_axis("a").reset_index()
        parts: dict[str, pd.DataFrame] = {
            "accuracy": board.rows.assign(classes=len(classifier)),
            "score": board.scores,
            "ablation": accuracies_of(test, classifier, ablations(test.units), device),
            "jaccard": overlap.melt("a", var_name="b", value_name="jaccard"),
        }
        if own is not None and texts is not None:
            chosen = {unit for way, units in best.items() if way != "random" for unit in units}
            mlps = val.units["unit"][val.units["kind"] == "mlp"].tolist()
            shown = {name: outputs[name] for name in ("zero_shot", *settings.adapted)}
            parts["text"] = _unit_texts(own, val.units, sorted(chosen) + mlps, texts, settings.atoms)
            parts["late"] = late
            parts["adapted"] = _adapted_texts(shown, test.labels, classifier, texts, settings.atoms)
        stores = {"train": train, "val": val, "test": test, "reference": reference}
        made = Studies(stores, classifier, texts, settings.atoms, best, adapter, device)
        for study in settings.studies:
            if study == "mean":
                table = compared("mean").rows
            else:
                table = work.once("mlps", made.mlps) if study == "mlps" else made.measure(study)
            if len(table):  # an encoder without text names nothing
                parts[study] = table
        return pd.concat([table.assign(part=name) for name, table in parts.items()], ignore_index=True)

    def reads(self, encoder: str, cell: str) -> tuple[Path, ...]:
        """The outputs that experiment 4 kept."""
        kept = (method for method in self.settings.adapted if method != "residual")
        return tuple(outputs_path(encoder, f"{cell}.{method}", "test") for method in kept)

    def stores(self, work: Work, cell: str) -> tuple[tuple[str, str, str], ...]:
        """The dataset's before the reference."""
        reference, *own = super().stores(work, cell)
        return (*own, reference)

    def check(self, work: Work, cell: str) -> None:
        """Outputs of experiment 4 are kept; and a classifier can be made."""
        self._kept(work, cell)
        work.check_classes(cell)
        images = work.dataset(cell, "train")
        check_class_names(work.encoder, images.class_names, images.templates)

    def _bases(self, work: Work) -> SpectralBases:
        return fit_bases(work.store(work.plan.reference, split="train"), _BASES, device=work.plan.device)

    def _texts(self, work: Work) -> TextDictionary:
        return TextDictionary.encode(
            work.encoder, self.settings.dictionary, progress=work.stage("encode texts")
        )

    def _kept(self, work: Work, cell: str) -> dict[str, Tensor]:
        """The test samples' outputs after methods, as experiment 4 kept them."""
        outputs = {}
        for method in self.settings.adapted if work.encoder.has_text else ():
            if method == "residual":
                continue
            kept = read_outputs(work, f"{cell}.{method}", "test")
            if kept is None:
                raise ResidualError(
                    f"No output of {work.name} after {method} on {cell} is kept in '{work.plan.out}': run "
                    "experiment 4 with the same folder, datasets and limit first."
                )
            outputs[method] = kept.features
        return outputs

    @staticmethod
    def figures(tables: Tables) -> Iterable[tuple[str, Figure]]:
        """Accuracy by share for every dataset; means of ablations and of overlaps over datasets."""
        for encoder, rows in tables.items():
            for dataset, table in rows.items():
                title = f"{encoder} on {dataset}: heads chosen on val, tested on test"
                part = part_of(table, "accuracy")
                yield f"{encoder}-{dataset}", scoreboard_figure(part, title, _chance(part))
            every = pd.concat(
                [part_of(table, "ablation").assign(dataset=name) for name, table in rows.items()]
            )
            title = f"{encoder}: accuracy without some units, mean of {len(rows)} datasets"
            chance = pd.Series([_chance(part_of(table, "accuracy")) for table in rows.values()]).mean()
            yield f"{encoder}-ablations", ablations_figure(every, title, chance)
            overlaps = pd.concat([part_of(table, "jaccard") for table in rows.values()])
            mean = overlaps.pivot_table(index="a", columns="b", values="jaccard", aggfunc="mean", sort=False)
            title = f"{encoder}: overlap of the best {_BEST:.0%} of heads, mean of {len(rows)} datasets"
            named = mean.rename(index=LABELS, columns=LABELS)
            yield f"{encoder}-overlaps", matrix_figure(named, "Jaccard index", title)

    @staticmethod
    def summary(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, int | float]]:
        """Accuracies on test: of everything, of all heads, and of the best 5 % of heads by every score."""
        return {dataset: _shown(part_of(table, "accuracy")) for dataset, table in tables.items()}

    @staticmethod
    def more(tables: Tables) -> dict[str, list[Page]]:
        """`accuracy.md`: all shares of heads; `overlaps.md`: how alike the best heads of datasets are; and a
        file for each study."""
        return {**overlap_pages(tables, _BEST), **study_pages(tables)}

    @staticmethod
    def details(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
        """The scoreboard of every dataset."""
        return {dataset: records(part_of(table, "accuracy")) for dataset, table in tables.items()}


def _shown(rows: pd.DataFrame) -> dict[str, int | float]:
    shown = rows[rows["share"].isna() | (rows["share"] == _SHOWN)]
    named: Mapping[str, Any] = shown.set_index("way")["accuracy"].to_dict()
    return {LABELS[way]: float(named[way]) for way in LABELS if way in named}


def _chance(accuracies: pd.DataFrame) -> float:
    """What guessing gets, where the cell tells the number of classes."""
    return 1 / int(accuracies["classes"].iloc[0]) if "classes" in accuracies else math.nan


def _unit_texts(
    bases: SpectralBases, units: pd.DataFrame, chosen: Sequence[int], texts: TextDictionary, atoms: int
) -> pd.DataFrame:
    """Texts of some units by SOMP on their weighted components, in the order chosen."""
    rows = []
    for unit in chosen:
        components = weighted_components(bases, unit)
        if len(components):
            found = somp(components, texts, min(atoms, len(texts)), "std", centre=False)
            rows += [{**unit_row(units, unit), **row} for row in text_rows(found)]
    return pd.DataFrame(rows)


def _late_heads(
    store: Store, bases: SpectralBases, texts: TextDictionary, atoms: int, rank: int
) -> pd.DataFrame:
    """Heads of the last layers by SOMP, TextSpan and OMP, with their first explained variance ratio and
    participation ratio."""
    units = store.units
    last = int(units["layer"][units["kind"] == "head"].max())
    late = units["unit"][(units["kind"] == "head") & (units["layer"] > last - _LATE)].tolist()
    samples, rows = slice(0, SAMPLES), []
    k = min(atoms, len(texts))
    for unit in late:
        x = store.contributions(samples, [unit])[:, 0]
        own = bases.select([unit]).eigenvalues[0]
        if not len(own):
            continue
        spectrum = {
            "first_explained_variance_ratio": (own[0] / own.sum()).item(),
            "participation_ratio": (own.sum() ** 2 / own.square().sum()).item(),
        }
        found = {
            "somp": somp(x, texts, k),
            "omp": omp(x, texts, k),
            "text_span": text_span(x, texts, k, rank),
        }
        for method, pursuit in found.items():
            rows += [
                {**unit_row(units, unit), "method": method, **spectrum, **row} for row in text_rows(pursuit)
            ]
    return pd.DataFrame(rows)


def _adapted_texts(
    outputs: Mapping[str, Float[Tensor, "n d"]],
    labels: Int[np.ndarray, " n"],
    classifier: ZeroShotClassifier,
    texts: TextDictionary,
    atoms: int,
) -> pd.DataFrame:
    """Texts of the output by SOMP before and after it was adapted, and the accuracy of each.

    Args:
        outputs: of the test samples, by name.
        labels: theirs.
        classifier: of their classes.
        texts: to name with.
        atoms: how many.
    """
    rows = []
    for name, output in outputs.items():
        accuracy = classifier.to(output.device).accuracy(output, labels)
        found = somp(output[:SAMPLES], texts, min(atoms, len(texts)))
        rows += [{"name": name, "accuracy": accuracy, **row} for row in text_rows(found)]
    return pd.DataFrame(rows)


def _residual(
    bases: SpectralBases, train: Store, val: Store, classifier: ZeroShotClassifier, seed: int
) -> ResiDual:
    """ResiDual of heads and MLPs, fitted here."""
    adapter = ResiDual(bases, seed=seed)
    settings = FitSettings(seed=seed, missing="ignore")  # a store may be a small sample
    fit(adapter, train, val, classifier, settings)
    return adapter
