"""Train on Lightning: all of an encoder, or an adapter on its scores. The first call loads Lightning."""

from residual.adapters.training.settings import TrainSettings
from residual.adapters.training.train import fine_tune, train

__all__ = ["TrainSettings", "fine_tune", "train"]
