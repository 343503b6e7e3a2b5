"""Domain adaptation of a model to another laboratory, its evaluation, and the laboratories that are kept by name."""

from typing import TYPE_CHECKING

from wbc_hf.lazy_names import lazy_names

if TYPE_CHECKING:
    from wbc_hf.adaptation.adaptation import ADAPTATION_FILE, adapt
    from wbc_hf.adaptation.adaptation_cell import MIN_CELLS, MIN_CLASSES, MIN_UNLABELLED, AdaptationCell
    from wbc_hf.adaptation.card import describe_adaptation
    from wbc_hf.adaptation.laboratories import Laboratories, laboratories_folder
    from wbc_hf.adaptation.laboratory import CountRecord, Laboratory, normalise_laboratory
    from wbc_hf.adaptation.results import SCORES, Adaptation, Scores
    from wbc_hf.adaptation.reviewed_cells import KeptCell
    from wbc_hf.adaptation.specimens import (
        MIN_PICTURES,
        TWO_LABORATORIES,
        CellSupply,
        cells_to_learn,
        count_supply,
        gather_cells,
        labels_needed,
        only_reviewed,
    )

__all__ = [
    "ADAPTATION_FILE",
    "MIN_CELLS",
    "MIN_CLASSES",
    "MIN_PICTURES",
    "MIN_UNLABELLED",
    "SCORES",
    "TWO_LABORATORIES",
    "Adaptation",
    "AdaptationCell",
    "CellSupply",
    "CountRecord",
    "KeptCell",
    "Laboratories",
    "Laboratory",
    "Scores",
    "adapt",
    "cells_to_learn",
    "count_supply",
    "describe_adaptation",
    "gather_cells",
    "labels_needed",
    "laboratories_folder",
    "normalise_laboratory",
    "only_reviewed",
]

__getattr__ = lazy_names(__name__)
