"""Settings of a fit and of fine-tuning, checked where they are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from residual.adapters.adapter import Adapter
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.settings import PAPER, check_settings, setting

OPTIMIZERS = ("schedule_free", "adamw", "lbfgs")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
MISSING = ("raise", "ignore")
TOWARDS = ("zero", "start")


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit; the defaults are those of Basile et al. 2025, arXiv 2411.00246.

    Args:
        learning_rate: None for the adapter's own: 0.8 for λ of units and 1e-3 for maps of the output, as
            there; 1 for "lbfgs".
        batch_size: 64 there; all samples at once for "lbfgs".
        epochs: at most (30 there); for "lbfgs" its iterations.
        patience: epochs without a better validation accuracy before stopping (5 there).
        seed: of the order of samples.
        optimizer: "schedule_free", schedule-free AdamW as there (Defazio et al. 2024, arXiv 2405.15682);
            "adamw", with warm-up and a cosine down to zero; or "lbfgs", with a strong-Wolfe line search that
            begins at `learning_rate`.
        warmup: for "adamw", the part of all steps on which its learning rate rises.
        weight_decay: decoupled; 0 for "lbfgs". None for none towards "zero", as there, and the adapter's own
            towards the "start", see `pull_of`.
        missing: a class without training samples: "raise", or "ignore" and train without.
        decay_towards: what weight decay pulls to: "zero", or the "start", the first weights (L2-SP, Li et al.
            2018, arXiv 1802.01483).
        or_start: whether the first weights are a candidate themselves: tried on the validation samples before
            the first epoch, and kept unless an epoch is better.

    Raises:
        ResidualError: a setting isn't positive, or no whole number where it must be one; or an unknown
            choice; or a weight decay for "lbfgs".
    """

    learning_rate: float | int | None = setting(None, above=0, source=PAPER)
    batch_size: int = setting(64, least=1, source=PAPER, only={"optimizer": OPTIMIZERS[:2]})
    epochs: int = setting(30, least=1, source=PAPER)
    patience: int = setting(5, least=1, source=PAPER)
    seed: int = setting(0, least=0, below=2**63)
    optimizer: str = setting("schedule_free", choices=OPTIMIZERS, source=PAPER)
    warmup: float | int = setting(0.1, least=0, below=1, only={"optimizer": ("adamw",)})
    weight_decay: float | int | None = setting(None, least=0)
    missing: str = setting("raise", choices=MISSING)
    decay_towards: str = setting("zero", choices=TOWARDS)
    or_start: bool = False

    def __post_init__(self):
        check_settings(self)
        if self.optimizer == "lbfgs" and self.weight_decay:
            raise ResidualError(f"lbfgs takes no weight_decay, got {self.weight_decay}: leave it out.")

    def rate_of(self, adapter: Adapter) -> float:
        """The learning rate for an adapter."""
        if self.learning_rate is not None:
            return float(self.learning_rate)
        return 1.0 if self.optimizer == "lbfgs" else adapter.learning_rate

    def decay_of(self, adapter: Adapter) -> float:
        """The weight decay for an adapter."""
        if self.weight_decay is not None:
            return float(self.weight_decay)
        return adapter.decay if self.decay_towards == "start" and self.optimizer != "lbfgs" else 0.0

    def pull_of(self, adapter: Adapter, samples: int) -> float:
        """The weight decay of each step.

        Towards the "start" it is that of 1,000 training samples, and of `n` samples 1000 / n of it, at most
        what leads there in one step: a prior weighs less the more is seen (the mean loss of `n` samples and
        1 / n of a penalty are the posterior of a Gaussian prior).
        """
        decay = self.decay_of(adapter)
        if self.decay_towards == "zero":
            return decay
        return min(decay * 1000 / samples, 1 / self.rate_of(adapter))


@dataclass(frozen=True)
class TrainSettings:
    """Settings of `fine_tune`; the defaults are those of Basile et al. 2025, arXiv 2411.00246.

    Args:
        learning_rate: 1e-5 there.
        batch_size: None for the one there: 128, and 32 for BLIP (`Family.tuning_batch`).
        epochs: at most (30 there).
        patience: epochs without a better validation accuracy before stopping (5 there).
        seed: of the order of samples, and of dropout where a model has any.
        clip: the greatest norm of all gradients together (1 there); 0 for any.
        precision: "32-true"; "bf16-mixed" or "16-mixed", where the model computes in half precision (on a
            GPU for "16-mixed") and weights stay in single precision.
        optimizer: "schedule_free" or "adamw", see `FitSettings`.
        warmup: for "adamw", the part of all steps on which its learning rate rises.
        weight_decay: decoupled, towards zero.
        missing: a class without training samples: "raise", or "ignore" and train without.
        micro_batch: of how many pictures of a batch gradients are computed at a time, which changes memory
            and speed but not the numbers (beyond rounding, and which random numbers dropout draws). None for
            as many as there is memory for; where those are few, blocks are run again instead of remembered.

    Raises:
        ResidualError: a setting isn't positive, or no whole number where it must be one; or an unknown
            choice.
    """

    learning_rate: float | int = setting(1e-5, above=0, source=PAPER)
    batch_size: int | None = setting(None, least=1, source=PAPER)
    epochs: int = setting(30, least=1, source=PAPER)
    patience: int = setting(5, least=1, source=PAPER)
    seed: int = setting(0, least=0, below=2**63)
    clip: float | int = setting(1.0, least=0, source=PAPER)
    precision: str = setting("32-true", choices=PRECISIONS)
    optimizer: str = setting("schedule_free", choices=OPTIMIZERS[:2], source=PAPER)
    warmup: float | int = setting(0.1, least=0, below=1, only={"optimizer": ("adamw",)})
    weight_decay: float | int = setting(0.0, least=0)
    missing: str = setting("raise", choices=MISSING)
    micro_batch: int | None = setting(None, least=1)

    def __post_init__(self):
        check_settings(self)
        for name in ("learning_rate", "clip", "warmup", "weight_decay"):  # 1 and 1.0 are the same settings
            object.__setattr__(self, name, float(getattr(self, name)))

    def batch_of(self, encoder: Encoder) -> int:
        """Pictures a step."""
        return self.batch_size or encoder.family.tuning_batch

    def noted(self, encoder: Encoder) -> dict[str, Any]:
        """What the weights of an encoder depend on, by name."""
        noted = {**asdict(self), "batch_size": self.batch_of(encoder)}
        return {name: value for name, value in noted.items() if name != "micro_batch"}
