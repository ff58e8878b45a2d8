"""Settings of a training on Lightning, checked where they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from residual.adapters.adapter import check_choice
from residual.adapters.fit_settings import check_settings
from residual.adapters.methods import METHODS
from residual.errors import ResidualError, unknown_name

TRAINERS = ("schedule_free", "adamw")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of `fine_tune` and `train`; `TrainSettings.of(method)` has those of Basile et al. 2025.

    Args:
        learning_rate: 1e-5 for fine-tuning, 0.8 for λ of units, 1e-3 for maps of the output there.
        batch_size: 128 for fine-tuning (32 for BLIP), else 64 there.
        epochs: at most (30 there).
        patience: epochs without a better validation accuracy before stopping (5 there).
        seed: of the order of samples, and of dropout where a model has any.
        clip: the greatest norm of all gradients together; 0 for any (fine-tuning: 1 there).
        precision: "32-true"; "bf16-mixed" or "16-mixed", where the model computes in half precision (on a
            GPU for "16-mixed") and weights stay in single precision.
        optimizer: "schedule_free", schedule-free AdamW as there (Defazio et al. 2024, arXiv 2405.15682), or
            "adamw", with warm-up and a cosine down to zero.
        warmup: for "adamw", the part of all steps on which its learning rate rises.
        weight_decay: decoupled.
        missing: a class without training samples: "raise", or "ignore" and train without.

    Raises:
        ResidualError: a setting isn't positive, or no whole number where it must be one; or an unknown
            choice.
    """

    learning_rate: float | int = 1e-5
    batch_size: int = 128
    epochs: int = 30
    patience: int = 5
    seed: int = 0
    clip: float | int = 0.0
    precision: str = "32-true"
    optimizer: str = "schedule_free"
    warmup: float | int = 0.1
    weight_decay: float | int = 0.0
    missing: str = "raise"

    def __post_init__(self):
        check_settings(self, TRAINERS)
        check_choice("precision", self.precision, PRECISIONS)
        if not 0 <= self.clip < math.inf:
            raise ResidualError(f"clip must be 0 or more, got {self.clip}.")
        for name in ("learning_rate", "clip", "warmup", "weight_decay"):  # 1 and 1.0 are the same settings
            object.__setattr__(self, name, float(getattr(self, name)))

    @classmethod
    def of(cls, method: str, **changes: Any) -> TrainSettings:
        """Those of a method in the paper, but for `changes`.

        Args:
            method: "fine_tuning", "linear", "spectral", "coarse", "residual_star" or "residual".
            changes: other settings, by name.

        Raises:
            ResidualError: an unknown method, or a setting that can't be.
        """
        if method not in METHODS:
            raise unknown_name("method", method, METHODS)
        own: dict[str, Any] = {
            name: getattr(METHODS[method], name) for name in ("learning_rate", "batch_size", "clip")
        }
        return cls(**(own | changes))
