"""The scoreboard of one store: what `residual heads` shows."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from residual.adapters import Coarse, FitSettings, fit
from residual.heads.comparison import Scoreboard, ScoreboardSettings, check_alike, scoreboard
from residual.heads.selections import jaccard_table
from residual.progress import Progress
from residual.report.figures import grid_figure, save_figure
from residual.report.geometry import records
from residual.report.scoreboard_figures import LABELS, scoreboard_figure
from residual.spectral.bases import SpectralBases
from residual.spectral.fit import fit_bases
from residual.store.base import Store
from residual.store.disk import ResidualStore
from residual.text.classifier import ZeroShotClassifier
from residual.text.dictionary import TextDictionary
from residual.workflows.store_origin import classifier_of, encoder_of


@dataclass(frozen=True)
class Board:
    """What was found: a `Scoreboard`, and `result` for JSON."""

    title: str
    board: Scoreboard
    result: dict[str, Any]

    def draw(self, folder: Path) -> list[Path]:
        """All figures, as PNG and SVG."""
        paths = save_figure(scoreboard_figure(self.board.rows, self.title), folder, "scoreboard")
        for name in [name for name in LABELS if name in self.board.scores]:
            values = self.board.scores.assign(value=self.board.scores[name])
            figure = grid_figure(values, LABELS[name], self.title)
            paths += save_figure(figure, folder, f"scores-{name}")
        return paths


def board_of_stores(
    address: str,
    test: str | None,
    train: str | None,
    dictionary: str | None,
    settings: ScoreboardSettings,
    *,
    encoder: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Board:
    """Compare all ways to choose heads for the classes of a store.

    Args:
        address: of the store that heads are chosen by.
        test: of the one they are tested on; None halves the first.
        train: of one that weights of heads are trained on, for (O), the first being validation.
        dictionary: for (P), as `TextDictionary.encode` takes it.
        settings: what is compared.
        encoder: its name, where it isn't the store's.
        device: where to compute.
        progress: told of every pass.

    Raises:
        ResidualError: as `scoreboard`, `encoder_of` and `classifier_of`.
    """
    store = ResidualStore.open(address)
    others = {name: ResidualStore.open(place) for name, place in (("test", test), ("train", train)) if place}
    for other in others.values():
        check_alike(store, other)
    start = time.perf_counter()
    loaded = encoder_of(store, encoder, device)
    classifier = classifier_of(others.get("train", store), loaded)
    ways: dict[str, Any] = {}
    if train or dictionary:
        ways["bases"] = bases = fit_bases(others.get("train", store), settings.kinds, device=device)
        if dictionary:
            ways["dictionary"] = TextDictionary.encode(loaded, dictionary)
        if train:
            ways["trained"] = coarse_weights(bases, others["train"], store, classifier, settings.seed)
    board = scoreboard(
        store, classifier, others.get("test"), settings, device=device, progress=progress, **ways
    )
    result = {
        "store": address,
        "test": test,
        "encoder": store.encoder_name,
        "dataset": store.dataset,
        "samples": len(store),
        "tested": len(others.get("test", store)),
        "settings": asdict(settings),
        "rows": records(board.rows),
        "scores": records(board.scores),
        "selections": board.selections,
        "jaccard": jaccard_table(board.selections).to_dict(),
        "seconds": round(time.perf_counter() - start, 3),
    }
    where = others["test"].dataset if test else f"the other half of {store.dataset}"
    return Board(f"{store.encoder_name}: heads chosen on {store.dataset}, tested on {where}", board, result)


def coarse_weights(
    bases: SpectralBases, train: Store, val: Store, classifier: ZeroShotClassifier, seed: int = 0
) -> Any:
    """One trained weight a unit of `bases`: (O), from `Coarse` with the paper's settings."""
    coarse = Coarse(bases, seed=seed)
    settings = FitSettings(seed=seed, missing="ignore")  # a store may be a small sample
    fit(coarse, train, val, classifier, settings)
    return coarse.lambdas.detach()
