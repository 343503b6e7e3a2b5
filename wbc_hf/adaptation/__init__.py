"""Domain adaptation of a model to another laboratory, its evaluation, and the laboratories that are kept by name."""

from wbc_hf.adaptation.adaptation import ADAPTATION_FILE, adapt
from wbc_hf.adaptation.card import describe_adaptation
from wbc_hf.adaptation.cells import MIN_CELLS, MIN_CLASSES, AdaptationCell, enough_labelled
from wbc_hf.adaptation.laboratories import Laboratories, laboratories_folder
from wbc_hf.adaptation.laboratory import CountRecord, Laboratory, normalise_laboratory
from wbc_hf.adaptation.results import SCORES, Adaptation, Scores
from wbc_hf.adaptation.self_training import MIN_UNLABELLED
from wbc_hf.adaptation.specimens import (
    MIN_PICTURES,
    cells_to_learn,
    count_usable_labels,
    is_reviewed,
    labels_needed,
    with_usable_labels,
)

__all__ = [
    "ADAPTATION_FILE",
    "MIN_CELLS",
    "MIN_CLASSES",
    "MIN_PICTURES",
    "MIN_UNLABELLED",
    "SCORES",
    "Adaptation",
    "AdaptationCell",
    "CountRecord",
    "Laboratories",
    "Laboratory",
    "Scores",
    "adapt",
    "cells_to_learn",
    "count_usable_labels",
    "describe_adaptation",
    "enough_labelled",
    "is_reviewed",
    "labels_needed",
    "laboratories_folder",
    "normalise_laboratory",
    "with_usable_labels",
]
