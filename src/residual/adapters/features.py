"""Fits on features of your own, of any model: no encoder, no store, only rows of numbers and their labels.

The output is all that there is, so that maps of the output can be fitted (`LinearMap`, `SpectralMap`): in the
space of scores, by `fit_many`, with the library's recipes. `estimators.py` is the same for scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from residual.adapters.adapter import OutputMap
from residual.adapters.adapter_settings import Reference
from residual.adapters.early_stopping import FitResult
from residual.adapters.feature_samples import (
    Features,
    Labelled,
    as_features,
    as_labelled,
    classes_of,
    listed,
    parted,
)
from residual.adapters.fit import adapted_output, fit_many
from residual.adapters.fit_settings import FitSettings
from residual.adapters.matching import few_shot
from residual.adapters.methods import METHODS, make_adapter
from residual.adapters.recipes import Fitting, fitting
from residual.adapters.scores import Scores
from residual.errors import ResidualError, unknown_name
from residual.intervals import mean_and_interval, over_pictures, over_seeds, wilson
from residual.progress import Progress, named
from residual.spectral.bases import SpectralBases
from residual.spectral.pca import pca
from residual.text.classifier import CLIP_SCALE, ZeroShotClassifier

FEATURE_METHODS = ("linear", "spectral")
_ALONE = "features"  # in place of an encoder's fingerprint


@dataclass(frozen=True)
class FeatureFit:
    """A method's fits, one a seed, and what they have right of the test samples.

    Attributes:
        method: "linear" or "spectral"; or what there is without a fit, "zero_shot" or "class_means".
        label: how tables call it.
        shots: training samples of each class; None for all.
        per_seed: accuracy of each fit.
        accuracy: their mean.
        over_seeds: half its 95 % interval over fits, by Student's t; None of one fit.
        over_pictures: the ends of its 95 % interval over test samples, by Wilson.
        weights: how many are trained.
        adapters, results, classifiers: of each fit.
    """

    method: str
    label: str
    shots: int | None
    per_seed: tuple[float, ...]
    accuracy: float
    over_seeds: float | None
    over_pictures: tuple[float, float]
    weights: int
    adapters: tuple[OutputMap, ...] = field(default=(), repr=False)
    results: tuple[FitResult, ...] = field(default=(), repr=False)
    classifiers: tuple[ZeroShotClassifier, ...] = field(default=(), repr=False)

    @property
    def best(self) -> int:
        """The fit that does best on the validation samples."""
        return max(range(len(self.results)), key=lambda fit: self.results[fit].merit, default=0)


@dataclass(frozen=True)
class FeatureFits:
    """What `fit_features` found; printed, it is a table.

    Attributes:
        classes: `(c,)`, the labels as they were given.
        n_train, n_val, n_test: samples.
        fits: of the classifier alone first, then of each method, and of each number of shots.
    """

    classes: np.ndarray
    n_train: int
    n_val: int
    n_test: int
    fits: tuple[FeatureFit, ...]

    def __getitem__(self, method: str) -> FeatureFit:
        """The first fit of a method: on all training samples, where that was asked for."""
        found = [each for each in self.fits if each.method == method]
        if not found:
            raise unknown_name("method", method, {each.method for each in self.fits})
        return found[0]

    def predict(self, features: Features, method: str) -> np.ndarray:
        """The class of each row, as labels were given, by the fit of a method that is best on val.

        Raises:
            ResidualError: that method wasn't fitted; or features of another width, or NaN.
        """
        fit, rows = self[method], as_features(features)
        output = fit.adapters[fit.best](rows) if fit.adapters else rows
        return self.classes[fit.classifiers[fit.best].logits(output).argmax(1).numpy()]

    def __str__(self) -> str:
        some_shots = any(each.shots is not None for each in self.fits)
        rows = [["method", *(["shots"] if some_shots else []), "accuracy", "over test samples", "weights"]]
        for each in self.fits:
            shots = ["all" if each.shots is None else str(each.shots)] if some_shots else []
            share = f"{100 * each.accuracy:.1f}{over_seeds(each.over_seeds)} %"
            rows.append([each.label, *shots, share, over_pictures(each.over_pictures), f"{each.weights:,}"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        return "\n".join([
            f"{len(self.classes)} classes: trained on {self.n_train:,} samples, chosen on {self.n_val:,}, "
            f"tested on {self.n_test:,}",
            *lines,
            "± is the 95 % interval over seeds; the range is that over test samples (Wilson).",
        ])  # fmt: skip


def fit_features(
    features: Features,
    labels: Iterable[Any],
    *,
    val: tuple[Features, Iterable[Any]] | None = None,
    test: tuple[Features, Iterable[Any]] | None = None,
    class_embeddings: Features | None = None,
    class_names: Sequence[str] | None = None,
    methods: str | Sequence[str] = FEATURE_METHODS,
    shots: int | Sequence[int | None] | None = None,
    seeds: Sequence[int] = range(5),
    recipe: str = "gentle",
    settings: dict[str, Any] | None = None,
    scale: float | int = CLIP_SCALE,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> FeatureFits:
    """Fit maps of features that you have, of whatever model: trained on train, chosen on val, tested on test.

    The rules are those of the library's own fits. A map `o' = o M` (linear) or `o' = ((o − m) Φᵀ ⊙ λ) Φ`
    (spectral) comes before a classifier that isn't trained, cosines with one embedding a class, and the
    cross-entropy of its logits is minimised over M or λ alone (Basile et al. 2025, arXiv 2411.00246).

    Args:
        features: `(n, d)`, fractions of NumPy or torch; float64 is computed in float64, others in float32.
        labels: `(n,)`, numbers or texts of any kind; they needn't go from 0 on.
        val, test: features and labels likewise. What isn't given is split off `features`, the classes'
            proportions kept and the same every time (seed 42): val and test 20 % each.
        class_embeddings: `(c, d)`, such as those of texts, in the order of `class_names`, or of the labels if
            these are numbers from 0 to c − 1. By default each class's mean feature, of train.
        class_names: which labels there are, in their order; by default those of `labels`, sorted. Labels that
            are whole numbers then count them.
        methods: one or more of `FEATURE_METHODS`.
        shots: fit on so many random samples of each class, drawn anew for every seed; several numbers one
            after another, None among them for all samples. Components and val are those of all samples.
        seeds: a fit each.
        recipe: "gentle" or "paper", see `RECIPES`.
        settings: fields of `FitSettings` that win over the recipe's, such as `{"epochs": 100}`.
        scale: of the logits, `exp(logit_scale)`.
        device: where to compute; by default the GPU if there is one.
        progress: told of every epoch.

    Raises:
        SharedSamplesError: more than a tenth of the samples of `test` are in train or val, too.
        ResidualError: features aren't finite fractions `(n, d)`; there isn't one label a row, there is a
            single class or a label that is none of them; a part has no sample, or train none of a class; or
            an unknown method.

    Example:
        >>> import numpy as np, residual
        >>> rng = np.random.default_rng(0)
        >>> labels = np.repeat(["cat", "dog", "fox"], 100)
        >>> features = np.repeat(rng.normal(size=(3, 16)), 100, 0) + rng.normal(size=(300, 16))
        >>> found = residual.fit_features(features, labels, device="cpu", seeds=[0, 1])
        >>> found.n_train, found.n_test, found["linear"].weights
        (180, 60, 256)
        >>> found.predict(features[:2], "linear").tolist()
        ['cat', 'cat']
    """
    for method in (methods := [methods] if isinstance(methods, str) else methods):
        if method not in FEATURE_METHODS:
            raise unknown_name("method for features", method, FEATURE_METHODS)
    if isinstance(seeds, int) or not len(seeds):
        raise ResidualError(f"seeds are whole numbers, one at least: [0, 1, 2]; got {seeds!r}.")
    for name in settings or {}:
        if name not in (known := {each.name for each in fields(FitSettings)}):
            raise unknown_name("setting", name, known)
    embeddings = None if class_embeddings is None else as_features(class_embeddings, "class_embeddings")
    classes = classes_of(labels := listed(labels), class_names, embeddings)
    whole = as_labelled(features, labels, classes, "training")
    given = [
        as_labelled(*part, classes, what) for part, what in ((val, "validation"), (test, "test")) if part
    ]
    train, chosen, tested = parted(whole, given, val is not None, test is not None)
    names = list(map(str, classes)) if class_names is None else list(class_names)
    reference = reference_of_features(train.features)
    numbers = [shots] if shots is None or isinstance(shots, int) else list(shots)
    fits = [_alone(train, tested, embeddings, names, scale)]
    for number in numbers:
        for method in methods:
            how = fitting(method, recipe, seeds, fit=settings)
            fits.append(
                _fitted(method, how, reference, train, chosen, tested, embeddings, names, number, scale,
                        device, progress)
            )  # fmt: skip
    sizes = (len(part.labels) for part in (train, chosen, tested))
    return FeatureFits(np.asarray(classes), *sizes, tuple(fits))


def reference_of_features(features: Float[Tensor, "n d"]) -> Reference:
    """Principal components of features, of which adapters of the output are made."""
    if len(features) < 2:
        raise ResidualError("Only one sample (n_samples = 1) to train on: two at least are needed.")
    whole = pca(features.double())
    bases = SpectralBases([0], whole.mean[None], [whole.components], [whole.eigenvalues])
    return Reference(bases, whole, ())


def scores_on(adapter: OutputMap, samples: Labelled) -> Scores:
    """What an adapter is fitted on: of its own features."""
    scores, rest = adapter.scored(samples.features)
    return Scores(scores, adapter.directions.detach().to(scores), rest, samples.labels, _ALONE, adapter.ranks)


def make_adapters(method: str, how: Fitting, reference: Reference, dtype: torch.dtype) -> list[OutputMap]:
    """One a fit, with its first weights.

    Raises:
        ResidualError: the features are all alike, and so have no components.
    """
    if method == "spectral" and reference.output is not None and not len(reference.output.components):
        raise ResidualError("The features of all samples are the same: they have no principal components.")
    made = [make_adapter(method, reference, how.adapter, each.seed) for each in how.fits]
    return [each.to(dtype) for each in made if isinstance(each, OutputMap)]


def classifier_on(
    train: Labelled, embeddings: Tensor | None, names: Sequence[str], scale: float | int
) -> ZeroShotClassifier:
    """The classifier of given embeddings, or of train's class means.

    Raises:
        ResidualError: see `ZeroShotClassifier`; or embeddings of another width.
    """
    if embeddings is None:
        return ZeroShotClassifier.from_class_means(*train, names, scale)
    if embeddings.shape[1] != train.features.shape[1]:
        raise ResidualError(
            f"class_embeddings have width {embeddings.shape[1]}, features {train.features.shape[1]}."
        )
    return ZeroShotClassifier(embeddings, names, scale)


def _alone(
    train: Labelled, test: Labelled, embeddings: Tensor | None, names: Sequence[str], scale: float | int
) -> FeatureFit:
    """The classifier without a map before it."""
    classifier = classifier_on(train, embeddings, names, scale)
    method, label = ("class_means", "class means") if embeddings is None else ("zero_shot", "zero-shot")
    accuracy = classifier.accuracy(test.features, test.labels)
    return _measured(method, label, None, [accuracy], len(test.labels), 0, classifiers=(classifier,))


def _fitted(
    method: str,
    how: Fitting,
    reference: Reference,
    train: Labelled,
    val: Labelled,
    test: Labelled,
    embeddings: Tensor | None,
    names: Sequence[str],
    shots: int | None,
    scale: float | int,
    device: str | torch.device | None,
    progress: Progress | None,
) -> FeatureFit:
    """All fits of a method; where each has class means of its own samples, one after another."""
    adapters = make_adapters(method, how, reference, train.features.dtype)
    subsets = [None if shots is None else few_shot(train.labels, shots, each.seed) for each in how.fits]
    if shots is not None and embeddings is None:
        groups = [[place] for place in range(len(adapters))]
    else:
        groups = [list(range(len(adapters)))]
    results, classifiers = [], []
    trained, chosen = (scores_on(adapters[0], part) for part in (train, val))
    stage = f"fit {method}" if shots is None else f"fit {method}, {shots} shots"
    for group in groups:
        subset = subsets[group[0]]
        own = train if subset is None or embeddings is not None else train.take(subset)
        classifier = classifier_on(own, embeddings, names, scale)
        results += fit_many(
            [adapters[place] for place in group], trained, chosen, classifier,
            [how.fits[place] for place in group], named(progress, stage),
            subsets=[subsets[place] for place in group], device=device,
        )  # fmt: skip
        classifiers += [classifier] * len(group)
    tested = scores_on(adapters[0], test)
    accuracies = [
        classifier.accuracy(adapted_output(adapter, tested), test.labels)
        for adapter, classifier in zip(adapters, classifiers, strict=True)
    ]
    label, weights = METHODS[method].label, adapters[0].weights.numel()
    return _measured(
        method, label, shots, accuracies, len(test.labels), weights, tuple(adapters), tuple(results),
        tuple(classifiers),
    )  # fmt: skip


def _measured(
    method: str, label: str, shots: int | None, accuracies: Sequence[float], n: int, weights: int,
    *of_fits: Any, **more: Any,
) -> FeatureFit:  # fmt: skip
    mean, half = mean_and_interval(accuracies)
    _, low, high = wilson(mean * n, n)
    return FeatureFit(
        method, label, shots, tuple(accuracies), mean, half, (low, high), weights, *of_fits, **more
    )
