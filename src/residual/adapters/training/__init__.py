"""Train on Lightning: all of an encoder, or an adapter on its scores. The first call loads Lightning."""

from residual.adapters.training.train import fine_tune, train
from residual.adapters.training.train_settings import TrainSettings

__all__ = ["TrainSettings", "fine_tune", "train"]
