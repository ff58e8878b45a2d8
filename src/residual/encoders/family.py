"""What a model family declares: its classes, its towers' anatomies, how they are called, how it is loaded.

Families are files in `residual.encoders.families`; a new one is one short file there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from residual.encoders.anatomy import Anatomy
from residual.encoders.preprocess import Preprocess


@dataclass(frozen=True)
class Tower:
    """One side of a model.

    Args:
        anatomy: where its parts are.
        encode: `(module, inputs) -> (n, d)`; inputs are pixels `(n, 3, h, w)` or token ids `(n, t)`.
        weights: prefixes of the parameters that its output depends on; empty for all.
        adjust: the anatomy of this very module, where models of the family differ (pooling, a norm's place).
    """

    anatomy: Anatomy
    encode: Callable[[Any, Tensor], Tensor]
    weights: tuple[str, ...] = ()
    adjust: Callable[[Any, Anatomy], Anatomy] | None = None

    def anatomy_of(self, module: nn.Module) -> Anatomy:
        """The anatomy of `module`."""
        return self.adjust(module, self.anatomy) if self.adjust else self.anatomy


@dataclass(frozen=True)
class Family:
    """A kind of model.

    Args:
        name: how messages call it.
        classes: the model classes it handles, as "package.Class" (names, so that asking imports nothing).
        image: the vision tower.
        text: the text tower, or None.
        no_text_parts: why the text tower, though there is one, can't be split; empty if it can.
        image_size: `(height, width)` that the module takes, or None if it takes any.
        settings: what else the output depends on, such as the activation: part of the fingerprint.
        logit_scale: the module's logit scale (a logarithm), or None without one.
        preprocess: what a model that comes without settings of its own was trained with.
        tokenize: `(tokenizer, module) -> (texts -> token ids)`.
        saved_as: transformers' `model_type` and the class that loads it; empty if loaded otherwise.
        saved_with_classifier: the same for models that keep their classifier.
        tuning_batch: pictures a step of fine-tuning, as in Basile et al. 2025, arXiv 2411.00246.
    """

    name: str
    classes: tuple[str, ...]
    image: Tower
    text: Tower | None = None
    no_text_parts: str = ""
    image_size: Callable[[Any], tuple[int, int] | None] = lambda module: None
    settings: Callable[[Any], str] = lambda module: ""
    logit_scale: Callable[[Any], float] | None = None
    preprocess: Callable[[Any], Callable[[Any], Tensor]] = field(
        default=lambda module: Preprocess.square(224)
    )
    tokenize: Callable[[Any, Any], Callable[[list[str]], Tensor]] | None = None
    saved_as: dict[str, str] = field(default_factory=dict)
    saved_with_classifier: dict[str, str] = field(default_factory=dict)
    tuning_batch: int = 128

    def handles(self, module: nn.Module) -> bool:
        """Whether `module` is of one of the family's classes, or derived from one."""
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(module).__mro__}
        return not kinds.isdisjoint(self.classes)
