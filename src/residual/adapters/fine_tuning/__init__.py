"""Fine-tuning of a whole image tower, on Lightning."""

from residual.adapters.fine_tuning.fine_tune import fine_tune

__all__ = ["fine_tune"]
