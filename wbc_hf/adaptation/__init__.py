"""Domain adaptation of a model to another laboratory, unsupervised or few-shot, and its evaluation."""

from wbc_hf.adaptation.adaptation import adapt
from wbc_hf.adaptation.card import describe_adaptation
from wbc_hf.adaptation.cells import MIN_CELLS, MIN_CLASSES, AdaptationCell, enough_labelled
from wbc_hf.adaptation.results import SCORES, Adaptation, Scores

__all__ = [
    "MIN_CELLS",
    "MIN_CLASSES",
    "SCORES",
    "Adaptation",
    "AdaptationCell",
    "Scores",
    "adapt",
    "describe_adaptation",
    "enough_labelled",
]
