"""Classifiers made of text, and text that describes directions."""

from residual.text.classifier import ZeroShotClassifier

__all__ = ["ZeroShotClassifier"]
