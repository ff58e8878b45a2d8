"""Classifiers made of text, and text that describes directions."""

from residual.text.chance import Chance
from residual.text.classifier import ZeroShotClassifier
from residual.text.dictionary import TextDictionary, dictionary_names
from residual.text.pursuit import Pursuit, omp, somp, text_span, weighted_components

__all__ = [
    "Chance",
    "Pursuit",
    "TextDictionary",
    "ZeroShotClassifier",
    "dictionary_names",
    "omp",
    "somp",
    "text_span",
    "weighted_components",
]
