"""Make a model that suits another laboratory, and measure what that changed."""

from wbc_hf.adaptation.adapting import adapt_to_cells, adapt_to_folder
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
    "adapt_to_cells",
    "adapt_to_folder",
    "describe_adaptation",
    "enough_labelled",
]
