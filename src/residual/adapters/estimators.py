"""Maps of features as scikit-learn's estimators: `fit(X, y)`, `predict(X)`, in its pipelines and searches.

Needs scikit-learn (`pip install 'residual-vit[sklearn]'`). What is fitted, and how, is `features.py`'s. As it
wants of estimators, parameters are only kept when one is made, whatever they are, and looked at in `fit`.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch

from residual.adapters.feature_samples import Labelled
from residual.adapters.features import (
    classifier_on,
    make_adapters,
    reference_of_features,
    scores_on,
)
from residual.adapters.fit import fit_many
from residual.adapters.recipes import fitting
from residual.data.splits import stratified_split
from residual.libraries import library

library("sklearn", "residual.adapters.estimators", "sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin  # noqa: E402 (what is missing is told before)
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import check_is_fitted, validate_data  # noqa: E402

__all__ = ["ClassMeansClassifier", "LinearMapClassifier", "SpectralMapClassifier"]


class ClassMeansClassifier(ClassifierMixin, BaseEstimator):
    """The class whose embedding has the largest cosine with a sample's features: nothing is trained.

        logits = scale · x/‖x‖ Wᵀ        with x less the mean of all samples, if they are centred

    Args:
        class_embeddings: `W (c, d)`, in the order of the sorted classes, such as those of texts; None for
            each class's mean feature.
        center: whether the mean of the features is subtracted first; "auto" does where class means classify:
            a cosine tells only directions from the origin apart.
        scale: of the logits.

    Attributes:
        classes_: `(c,)`, sorted.
        n_features_in_: `d`.
        map_, offset_: `(d, d)` and `(d,)`, of `x M + b` before the cosine.
        class_embeddings_: `(c, d)`, of unit length.

    Example:
        >>> import numpy as np
        >>> from residual.adapters.estimators import ClassMeansClassifier
        >>> X, y = np.array([[3.0, 1.0], [4.0, 1.0], [1.0, 3.0]]), ["a", "a", "b"]
        >>> ClassMeansClassifier().fit(X, y).predict([[5.0, 1.0], [1.0, 4.0]]).tolist()
        ['a', 'b']
    """

    _method: ClassVar[str] = ""

    def __init__(self, class_embeddings: Any = None, center: Any = "auto", scale: Any = 100.0):
        self.class_embeddings = class_embeddings
        self.center = center
        self.scale = scale

    def fit(self, X: Any, y: Any) -> ClassMeansClassifier:
        """Take the classes' embeddings, and fit the map where there is one.

        Args:
            X: features `(n, d)`.
            y: a label a sample.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"All samples are of one class, {self.classes_[0]!r}: two classes are needed.")
        if not (isinstance(self.center, bool | np.bool_) or self.center == "auto"):
            raise ValueError(f"center is True, False or 'auto', got {self.center!r}.")
        given = None
        if self.class_embeddings is not None:
            given = torch.tensor(np.asarray(self.class_embeddings, np.float64))
        center = given is None if self.center == "auto" else self.center
        mean = X.mean(0) if center else np.zeros(X.shape[1])
        whole = Labelled(torch.tensor(X - mean), torch.tensor(numbers.astype(np.int64)))
        names = list(map(str, self.classes_))
        matrix, offset, classifier = self._fitted(whole, given, names)
        self.map_, self.offset_ = matrix, offset - mean @ matrix
        self.class_embeddings_ = classifier.weights.double().numpy()
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits `(n, c)`; of two classes how much larger that of the second is, `(n,)`."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """The logits' softmax, `(n, c)`."""
        logits = self._logits(X)
        raised = np.exp(logits - logits.max(1, keepdims=True))
        return raised / raised.sum(1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The class of the largest logit, `(n,)`."""
        chosen = self._logits(X).argmax(1)
        return self.classes_[chosen]

    def _logits(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        mapped = X @ self.map_ + self.offset_
        unit = mapped / np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), 1e-12)
        return self.scale * unit @ self.class_embeddings_.T

    def _fitted(self, whole: Labelled, given: Any, names: list[str]) -> tuple[np.ndarray, np.ndarray, Any]:
        """`M` and `b` of centred features, and the classifier behind them."""
        width = whole.features.shape[1]
        return np.eye(width), np.zeros(width), classifier_on(whole, given, names, self.scale)


class LinearMapClassifier(ClassMeansClassifier):
    """A linear map of the features before a `ClassMeansClassifier`: `o' = o M`, with `M (d, d)` trained.

    `M` starts as the identity. A fifth of the samples, of every class where it has two, chooses the epoch and
    isn't trained on; the classifier's class means are those of the others.

    Args:
        class_embeddings, center, scale: as of `ClassMeansClassifier`.
        recipe: "gentle" or "paper", see `residual.adapters.RECIPES`.
        epochs, learning_rate, batch_size, patience: of the fit; None as the recipe has them.
        random_state: a whole number or a `RandomState`, of the order of samples and of the paper's first
            weights; or None for 0.

    Attributes:
        result_: how the fit went, a `residual.adapters.FitResult`.

    Example:
        >>> import numpy as np
        >>> from residual.adapters.estimators import LinearMapClassifier
        >>> rng = np.random.default_rng(0)
        >>> X, y = rng.normal(size=(60, 4)), np.repeat(["a", "b", "c"], 20)
        >>> X[:, 0] += np.repeat([0.0, 8.0, 16.0], 20)
        >>> LinearMapClassifier(epochs=5).fit(X, y).map_.shape
        (4, 4)
    """

    _method: ClassVar[str] = "linear"

    def __init__(
        self,
        class_embeddings: Any = None,
        center: Any = "auto",
        scale: Any = 100.0,
        recipe: Any = "gentle",
        epochs: Any = 30,
        learning_rate: Any = None,
        batch_size: Any = 64,
        patience: Any = 5,
        random_state: Any = None,
    ):
        super().__init__(class_embeddings, center, scale)
        self.recipe = recipe
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.patience = patience
        self.random_state = random_state

    def _fitted(self, whole: Labelled, given: Any, names: list[str]) -> tuple[np.ndarray, np.ndarray, Any]:
        how = fitting(
            self._method, self.recipe, [_seed(self.random_state)], self._adapter_settings(),
            {name: getattr(self, name) for name in ("epochs", "learning_rate", "batch_size", "patience")},
        )  # fmt: skip
        rows, held = stratified_split(whole.labels.numpy(), (0.8, 0.2))
        train, val = whole.take(rows), whole.take(held if len(held) else rows)
        classifier = classifier_on(train, given, names, self.scale)
        (adapter,) = make_adapters(self._method, how, reference_of_features(train.features), torch.float64)
        scored = scores_on(adapter, train), scores_on(adapter, val)
        (self.result_,) = fit_many([adapter], *scored, classifier, how.fits, device="cpu")
        width = whole.features.shape[1]
        with torch.no_grad():
            offset = adapter(torch.zeros(1, width, dtype=torch.float64))[0]
            matrix = adapter(torch.eye(width, dtype=torch.float64)) - offset
        return matrix.numpy(), offset.numpy(), classifier

    def _adapter_settings(self) -> dict[str, Any]:
        return {}


class SpectralMapClassifier(LinearMapClassifier):
    """A spectral map before a `ClassMeansClassifier`: one trained weight for each principal component of the
    features, `o' = ((o − m) Φᵀ ⊙ λ) Φ + m`.

    Args:
        rank: how many components: None for all, a whole number, or a share of the variance in (0, 1).
        class_embeddings, center, scale, recipe, epochs, learning_rate, batch_size, patience, random_state: as
            of `LinearMapClassifier`.

    Example:
        >>> import numpy as np
        >>> from residual.adapters.estimators import SpectralMapClassifier
        >>> X, y = np.random.default_rng(0).normal(size=(60, 4)), np.repeat([3, 7], 30)
        >>> SpectralMapClassifier(epochs=2).fit(X, y).classes_.tolist()
        [3, 7]
    """

    _method: ClassVar[str] = "spectral"

    def __init__(
        self,
        rank: Any = None,
        class_embeddings: Any = None,
        center: Any = "auto",
        scale: Any = 100.0,
        recipe: Any = "gentle",
        epochs: Any = 30,
        learning_rate: Any = None,
        batch_size: Any = 64,
        patience: Any = 5,
        random_state: Any = None,
    ):
        super().__init__(
            class_embeddings, center, scale, recipe, epochs, learning_rate, batch_size, patience, random_state
        )
        self.rank = rank

    def _adapter_settings(self) -> dict[str, Any]:
        return {"rank": self.rank}


def _seed(random_state: Any) -> int:
    """A whole number of what scikit-learn calls a random state."""
    if random_state is None:
        return 0
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))
