"""The pages of runs by one encoder: with the texts of its units, which are found once for all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from residual.encoders.encoder import Encoder
from residual.heads import DescribeSettings, UnitTexts, unit_texts
from residual.heads.suits import suited
from residual.progress import Progress, named
from residual.report import write_run_page
from residual.text.dictionary import TextDictionary
from residual.workflows.run import Run

DICTIONARY, ATOMS = "attributes", 5  # a list that ships, and how many of its texts tell a unit


class RunPages:
    """Writes the page of one run after another.

    Args:
        encoder: of all of them; without a text tower pages have no texts of units.
        progress: told of the texts that are embedded, and of the pictures that are mapped.
    """

    def __init__(self, encoder: Encoder, progress: Progress | None = None):
        self.encoder, self.progress = encoder, progress
        self._texts: dict[int, UnitTexts] | None = None

    def write(self, path: str | Path, run: Run, overwrite: bool = False) -> Path:
        """The page of a run, see `write_run_page`.

        Raises:
            ResidualError: the place can't be written to.
        """
        return write_run_page(
            path, run.summary, run.adapters, run.changes, run.task.stores["train"], run.task.datasets,
            run.task.classifier, self._texts_of(run), overwrite, encoder=self.encoder,
            progress=self.progress,
        )  # fmt: skip

    def _texts_of(self, run: Run) -> dict[int, UnitTexts] | None:
        """By the bases of the run, which are those of all runs; named only where the dictionary can describe
        the run's pictures.
        """
        weighted = [each for each in run.adapters.values() if each.of_units]
        if self._texts is None and weighted and self.encoder.has_text:
            bases = max((each.bases for each in weighted), key=len)
            embed = named(self.progress, "embed texts")
            self._dictionary = TextDictionary.encode(self.encoder, DICTIONARY, progress=embed)
            self._texts = unit_texts(bases, self._dictionary, ATOMS)
        if not self._texts:
            return self._texts
        store, settings = run.task.stores["train"], DescribeSettings(atoms=ATOMS)
        fits = suited(store, self._dictionary, run.task.classifier, settings)
        unsuited = "" if fits is None or fits.suits else fits.verdict
        return {unit: replace(told, unsuited=unsuited) for unit, told in self._texts.items()}
