"""A linear classifier on the unit sphere whose rows are class embeddings; it is never trained."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import normalize

from residual.encoders.changes import EncoderLike, checked_encoder
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError, SharedNameWarning, told_apart
from residual.finite import SHORTEST, correct
from residual.progress import Progress
from residual.text.embedding import embed_prompts, prompts_of

# exp(logit_scale) of a trained CLIP, which clips it there (Radford et al. 2021, section 2.5).
CLIP_SCALE = 100.0

Labels = Int[np.ndarray, " n"] | Int[Tensor, " n"] | Sequence[int]

# The template where a dataset has none of its own.
PLAIN = ("a photo of a {}.",)

_NAMED = 5  # classes in a message


class ZeroShotClassifier:
    """`logits = exp(logit_scale) · x/‖x‖ Wᵀ` with one row of `W` a class.

    Args:
        weights: `(c, d)`; rows are L2-normalised here, unless `normalized` is False, and float32 at least.
        class_names: one a class, in the order of the labels; several classes may share one, as ImageNet's do.
        scale: `exp(logit_scale)`.
        fingerprint: of the encoder that the embeddings come from, if known.
        normalized: False leaves the rows as long as they are, as the code published with Basile et al. 2025
            does with class means: classes with long means are then favoured.

    Raises:
        ResidualError: names are missing or empty, a row is zero or not finite, or the scale isn't positive.

    Example:
        >>> import torch
        >>> from residual.text import ZeroShotClassifier
        >>> classifier = ZeroShotClassifier(torch.eye(2), ["cat", "dog"], scale=10)
        >>> classifier.logits(torch.tensor([[3.0, 4.0]]))
        tensor([[6., 8.]])
    """

    def __init__(
        self,
        weights: Float[Tensor, "c d"],
        class_names: Sequence[str],
        scale: float | int = CLIP_SCALE,
        fingerprint: str | None = None,
        normalized: bool = True,
    ):
        self.class_names = _checked_names(class_names)
        if len(weights) != len(self.class_names):
            raise ResidualError(f"{len(self.class_names)} classes need as many rows, got {len(weights)}.")
        if not (math.isfinite(scale) and scale > 0):
            raise ResidualError(f"The scale of the logits must be positive, got {scale}.")
        weights = weights.detach().to(torch.promote_types(weights.dtype, torch.float32))
        norms = weights.norm(dim=1)
        if wrong := [
            name
            for name, norm in zip(self.class_names, norms.tolist(), strict=True)
            if not 0 < norm < math.inf
        ]:
            raise ResidualError(
                f"No direction for classes {_some(wrong)}: their rows are zero or not finite."
            )
        self.weights = normalize(weights, dim=1) if normalized else weights
        self.scale, self.normalized = float(scale), normalized
        self.fingerprint = fingerprint

    @classmethod
    def from_text(
        cls,
        encoder: EncoderLike,
        class_names: Sequence[str],
        templates: Sequence[str],
        progress: Progress | None = None,
    ) -> ZeroShotClassifier:
        """Class embeddings from prompts: each prompt's embedding normalised, averaged over templates,
        normalised again (Radford et al. 2021, section 3.1.4). They are kept on disk (`embed_texts`).

        Classes that share a name have the same embedding; a `SharedNameWarning` names them.

        Args:
            encoder: one with a text tower.
            class_names: one a class.
            templates: prompts with `{}` where the class name goes.
            progress: told of the prompts that are done.

        Raises:
            ResidualError: a template without `{}`, none at all, or an encoder without text.
        """
        names, encoder = _checked_names(class_names), checked_encoder(encoder)
        _warn_of_shared(names)
        means = embed_prompts(encoder, names, templates, progress)  # (c, d)
        scale = CLIP_SCALE if encoder.logit_scale is None else math.exp(encoder.logit_scale)
        return cls(means, names, scale, encoder.fingerprint)

    @classmethod
    def from_class_means(
        cls,
        features: Float[Tensor, "n d"],
        labels: Labels,
        class_names: Sequence[str],
        scale: float | int | None = None,
        fingerprint: str | None = None,
        normalized: bool = True,
    ) -> ZeroShotClassifier:
        """Each class's mean feature, for encoders without text (Basile et al. 2025, arXiv 2411.00246).

        Args:
            features: of labelled samples.
            labels: 0 to `c − 1`, each at least once.
            class_names: one a class.
            scale: by default CLIP's, 100; of means as long as they are 1, as in the code published with the
                paper.
            fingerprint: of the encoder.
            normalized: means of unit length.

        Raises:
            ResidualError: a class has no sample, or labels don't fit.
        """
        names = _checked_names(class_names)
        labels = checked_labels(labels, len(features), len(names)).cpu()
        counts = torch.bincount(labels, minlength=len(names))
        if missing := [
            name for name, count in zip(told_apart(names), counts.tolist(), strict=True) if count == 0
        ]:
            raise ResidualError(f"No samples of classes {_some(missing)}: no mean can be had of them.")
        sums = torch.zeros(len(names), features.shape[1], dtype=torch.float64)
        sums.index_add_(0, labels, features.detach().to("cpu", torch.float64))
        means = (sums / counts[:, None]).to(torch.promote_types(features.dtype, torch.float32))
        scale = (CLIP_SCALE if normalized else 1.0) if scale is None else scale
        return cls(means, names, scale, fingerprint, normalized)

    def to(self, device: str | torch.device) -> ZeroShotClassifier:
        """The same classifier, its weights on a device."""
        if self.weights.device == torch.device(device):
            return self
        about = (self.class_names, self.scale, self.fingerprint, self.normalized)
        return ZeroShotClassifier(self.weights.to(device), *about)

    @property
    def dim(self) -> int:
        """Width of the features it takes, `d`."""
        return self.weights.shape[1]

    def logits(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """`exp(logit_scale)` times the cosine of each feature with each class, times the class's length where
        that isn't 1; in float32 at least: half precision has no room for the square of a norm.

        Raises:
            ResidualError: the features have another width.
        """
        if x.shape[1] != self.dim:
            raise ResidualError(f"The classifier takes features of width {self.dim}, got {x.shape[1]}.")
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        norms = vector_norm(x, dim=1, keepdim=True).clamp(min=SHORTEST)
        # Over an infinite norm a feature would be zero, and of the first class.
        unit = x / torch.where(norms.isfinite(), norms, torch.nan)
        return self.scale * unit @ self.weights.to(x).T

    def answers(self, x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """The class with the largest logit, of each feature.

        Raises:
            ResidualError: the features have another width or aren't finite.
        """
        logits = self.logits(x)
        found = logits.argmax(1)
        correct(logits, found)  # which refuses what isn't finite
        return found

    def accuracy(self, x: Float[Tensor, "n d"], labels: Labels) -> float:
        """Part of the features whose class with the largest logit is the labelled one.

        Raises:
            ResidualError: there is no feature, they have another width or aren't finite, or labels that
                don't fit.
        """
        labels = checked_labels(labels, len(x), len(self)).to(x.device)
        return correct(self.logits(x), labels).double().mean().item()

    def __len__(self) -> int:
        return len(self.class_names)


def checked_labels(labels: np.ndarray | Tensor | Sequence[int], samples: int, classes: int) -> Tensor:
    """Labels as int64, on the device that they are on, if they fit samples and classes.

    Raises:
        ResidualError: they don't.
    """
    labels = labels if isinstance(labels, Tensor) else torch.tensor(np.asarray(labels))
    if tuple(labels.shape) != (samples,) or not samples:
        raise ResidualError(
            f"{samples} samples need as many labels in a row, and one at least; got the shape "
            f"{tuple(labels.shape)}."
        )
    if labels.is_floating_point():
        raise ResidualError(f"Labels are class numbers, whole ones; got {labels.dtype}.")
    labels = labels.long()
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ResidualError(f"Labels must be 0 to {classes - 1}, got {labels.min()} to {labels.max()}.")
    return labels


def check_class_names(encoder: Encoder, class_names: Sequence[str], templates: Sequence[str]) -> None:
    """Refuse classes that no classifier can be made of, before anything is encoded for it.

    Where texts classify, a `SharedNameWarning` names the classes that share one.

    Args:
        encoder: with a text tower, or without (then templates aren't needed).
        class_names: one a class.
        templates: prompts with `{}` where the class name goes.

    Raises:
        ResidualError: names are missing or empty; a template without `{}`, or none at all.
    """
    names = _checked_names(class_names)
    if encoder.has_text:
        _warn_of_shared(names)
        prompts_of(names, templates)


def _checked_names(class_names: Sequence[str]) -> tuple[str, ...]:
    names = tuple(class_names)
    if not names:
        raise ResidualError("A classifier needs at least one class, got none.")
    if empty := [place for place, name in enumerate(names) if not name.strip()]:
        raise ResidualError(f"Class names can't be empty: class {empty[0]} of {len(names)} is.")
    return names


def _warn_of_shared(names: Sequence[str]) -> None:
    """Python shows the same sentence once."""
    if shared := sorted(name for name, count in Counter(names).items() if count > 1):
        warnings.warn(
            f"Several classes share a name, and no text tells them apart: {_some(shared)}. Pictures of "
            "either are taken for the first of them.",
            SharedNameWarning,
            stacklevel=1,
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
