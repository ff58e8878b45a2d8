"""What a model family declares: its classes, its Anatomy, and how its two towers are called.

Families are listed in `residual.encoders.load`; a new one is one short file like `clip.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from residual.encoders.anatomy import Anatomy


@dataclass(frozen=True)
class Family:
    """A kind of model.

    Args:
        name: how messages call it.
        classes: names of the model classes it handles (names, so that asking imports no model library).
        anatomy: where the parts of the vision tower are.
        vision: prefixes of the parameters that the image's output depends on.
        settings: what else the output depends on, such as the activation: part of the fingerprint.
        encode_image: `(module, pixels (n, 3, h, w)) -> (n, d)`.
        image_size: side of the square image that the module takes.
        encode_text: `(module, token ids (n, t)) -> (n, d)`, or None without a text tower.
        logit_scale: the module's logit scale (a logarithm), or None without a text tower.
    """

    name: str
    classes: tuple[str, ...]
    anatomy: Anatomy
    vision: tuple[str, ...]
    settings: Callable[[nn.Module], str]
    encode_image: Callable[[nn.Module, Tensor], Tensor]
    image_size: Callable[[nn.Module], int]
    encode_text: Callable[[nn.Module, Tensor], Tensor] | None = None
    logit_scale: Callable[[nn.Module], float] | None = None

    def handles(self, module: nn.Module) -> bool:
        """Whether `module` is of one of the family's classes, or derived from one."""
        return any(kind.__name__ in self.classes for kind in type(module).__mro__)
