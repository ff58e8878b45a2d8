"""Whether a dictionary can describe a dataset at all: what its texts tell of the encoder's output there.

The best ten of a thousand texts explain a quarter of most heads whatever the pictures are, and more than
random directions do: texts lie where an encoder's output lies. What differs from dictionary to dictionary is
how much of the output they tell beside texts that are known to be about the pictures: their classes' names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from residual.errors import ResidualError
from residual.heads.descriptions import DescribeSettings
from residual.store.base import Store
from residual.text.chance import compact
from residual.text.classifier import ZeroShotClassifier
from residual.text.dictionary import TextDictionary
from residual.text.pursuit import somp
from residual.tracing.units import KINDS


@dataclass(frozen=True)
class Suited:
    """What a dictionary tells of the encoder's output on some pictures, beside what names of classes tell.

    Args:
        count: of texts, and of classes' names, each chosen by matching pursuit.
        told: the part of the output's variance that the texts explain.
        by_classes: the part that as many of the classes' names explain.
        least: the part of `by_classes` that texts have to tell; see `DescribeSettings.suits`.
    """

    count: int
    told: float
    by_classes: float
    least: float

    @property
    def suits(self) -> bool:
        """Whether the dictionary may name anything here."""
        return self.told >= self.least * self.by_classes

    @property
    def verdict(self) -> str:
        """Both shares in a sentence."""
        said = (
            f"the best {self.count} of its texts explain {100 * self.told:.0f} % of what varies in the "
            f"encoder's output, as many names of classes {100 * self.by_classes:.0f} %"
        )
        if self.suits:
            return f"The dictionary can describe these pictures: {said}."
        return (
            f"The dictionary can't describe these pictures: {said}. Under {100 * self.least:.0f} % of that "
            "it names no head."
        )


def suited(
    store: Store, dictionary: TextDictionary, classifier: ZeroShotClassifier, settings: DescribeSettings
) -> Suited | None:
    """Compare a dictionary with the names of a store's classes; None where the store lacks units that the
    output is the sum of, or where it doesn't vary.

    Args:
        store: one token an image.
        dictionary: `(m, d)`, by the encoder of the store.
        classifier: of the store's classes, made of texts.
        settings: `atoms`, `samples` and `suits`.

    Raises:
        ResidualError: the classifier has another width than the dictionary.
    """
    if set(store.kinds) != set(KINDS):
        return None
    if classifier.weights.shape[1] != dictionary.embeddings.shape[1]:
        raise ResidualError(
            f"The dictionary's embeddings have width {dictionary.embeddings.shape[1]}, the classifier "
            f"{classifier.weights.shape[1]}."
        )
    rows = _varying(store, settings.samples)
    if not rows.any():
        return None
    names = list(dict.fromkeys(classifier.class_names))
    places = [classifier.class_names.index(name) for name in names]
    classes = TextDictionary(names, normalize(classifier.weights[places].float(), dim=1))
    count = min(settings.atoms, len(names), len(dictionary))
    told, by_classes = (
        somp(rows, texts, count, "std", centre=False).explained_variance[-1].item()
        for texts in (dictionary, classes)
    )
    return Suited(count, told, by_classes, settings.suits)


def _varying(store: Store, most: int) -> Float[Tensor, "k d"]:
    """Few rows with the covariance of the output over samples that are spread evenly."""
    output = store.output().float()
    if len(output) > most:
        output = output[np.linspace(0, len(output) - 1, most).round().astype(np.int64)]
    return compact(output - output.mean(0))
