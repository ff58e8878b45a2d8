"""The scoreboard of one store: what `residual heads` shows."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from residual.adapters import Coarse, FitSettings, fit
from residual.errors import printable
from residual.files import shareable
from residual.heads.comparison import Scoreboard, ScoreboardSettings, check_alike, scoreboard
from residual.heads.selections import jaccard_table
from residual.progress import Progress, named
from residual.report import records
from residual.spectral.bases import SpectralBases
from residual.spectral.fit import fit_bases
from residual.store.base import Store
from residual.store.disk import ResidualStore
from residual.store.shared import Seen, check_apart
from residual.text.classifier import ZeroShotClassifier, check_class_names
from residual.text.dictionary import TextDictionary
from residual.workflows.store_origin import StoreDataset, classifier_of, dataset_of, encoder_of


@dataclass(frozen=True)
class StoreScoreboard:
    """A store's `Scoreboard`, what it is of, what is known of its dataset, `result` for JSON, and what
    guessing gets.
    """

    title: str
    board: Scoreboard
    origin: StoreDataset
    result: dict[str, Any]
    chance: float


def scoreboard_of_stores(
    address: str,
    test: str | None,
    train: str | None,
    dictionary: str | None,
    settings: ScoreboardSettings,
    *,
    encoder: str | None = None,
    dataset: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> StoreScoreboard:
    """Compare all ways to choose heads for the classes of a store.

    Args:
        address: of the store that heads are chosen by.
        test: of the one they are tested on; None halves the first.
        train: of one that weights of heads are trained on, for (O), the first being validation.
        dictionary: for (P), as `TextDictionary.encode` takes it.
        settings: what is compared.
        encoder: its name, where it isn't what the stores note, or isn't listed by the library.
        dataset: its name, for the templates of one that doesn't ship; see `dataset_of`.
        device: where to compute.
        progress: told of every pass.

    Raises:
        ResidualError: as `scoreboard`, `encoder_of`, `dataset_of` and `classifier_of`.
    """
    addresses = {"store": address, "test": test, "train": train}
    stores = {name: ResidualStore.open(each) for name, each in addresses.items() if each}
    store = stores["store"]
    for other in stores.values():
        check_alike(store, other)
    tested = stores.get("test", store)
    if train:
        check_apart(Seen.of(stores["train"]), Seen.of(tested), "weights of heads are fitted on")
    start = time.perf_counter()
    trained_on = stores.get("train", store)
    origin = dataset_of(trained_on, name=dataset)
    loaded = encoder_of(store, encoder, device)
    check_class_names(loaded, store.class_names, origin.templates)  # before the long work
    bases = None
    if train or dictionary:
        bases = fit_bases(trained_on, settings.kinds, device=device, progress=progress)
    classifier = classifier_of(trained_on, loaded, origin, named(progress, "embed classes"))
    leaks = {
        "(O): the epoch is chosen by the samples that it is tested on, too.": bool(train and not test),
        "Classes are means of the samples that are tested, too.": tested is trained_on
        and not loaded.has_text,
    }
    notes = [*origin.notes, *(leak for leak, there in leaks.items() if there)]
    ways: dict[str, Any] = {"bases": bases}
    if dictionary:
        ways["dictionary"] = TextDictionary.encode(
            loaded, dictionary, progress=named(progress, "embed texts")
        )
    if train and bases is not None:
        ways["trained"] = coarse_weights(bases, stores["train"], store, classifier, settings.seed, progress)
    board = scoreboard(
        store, classifier, stores.get("test"), settings, device=device, progress=progress, **ways
    )
    overlaps = jaccard_table(board.selections)
    result = {
        "store": shareable(address, path=True),
        "test": test and shareable(test, path=True),
        "encoder": store.encoder_name,
        "dataset": store.dataset,
        "samples": len(store),
        "tested": len(stores.get("test", store)),
        "settings": asdict(settings),
        "rows": records(board.rows),
        "scores": records(board.scores),
        "selections": board.selections,
        "jaccard": overlaps.to_dict(),
        "notes": notes,
        "seconds": round(time.perf_counter() - start, 3),
    }
    of, chosen = result["encoder"], result["dataset"]
    where = stores["test"].dataset if test else f"the other half of {chosen}"
    title = printable(f"{of}: heads chosen on {chosen}, tested on {where}")
    chance = 1 / len(store.class_names)
    return StoreScoreboard(title, board, replace(origin, notes=tuple(notes)), result, chance)


def coarse_weights(
    bases: SpectralBases,
    train: Store,
    val: Store,
    classifier: ZeroShotClassifier,
    seed: int = 0,
    progress: Progress | None = None,
) -> Any:
    """One trained weight a unit of `bases`: (O), from `Coarse` with the paper's settings."""
    coarse = Coarse(bases, seed=seed)
    settings = FitSettings(seed=seed, missing="ignore")  # a store may be a small sample
    fit(coarse, train, val, classifier, settings, named(progress, "fit weights of heads"))
    return coarse.lambdas.detach()
