"""Answers: the predictor, the specimen with its cells and its differential, what is taken away, and the page.

`wbc_hf.serving.page` is imported by its own name: it brings Gradio along, which training and commands can spare.
"""

from wbc_hf.serving.counting import Examiner
from wbc_hf.serving.differential import DEFAULT_RANGES, ReferenceRanges, check_leucocytes, load_ranges
from wbc_hf.serving.looking import batches, look_at
from wbc_hf.serving.predictor import BATCH_SIZE, ModelIdentity, Prediction, Predictor
from wbc_hf.serving.record import Record, take_down
from wbc_hf.serving.reference_cells import ReferenceCells
from wbc_hf.serving.specimen import Specimen

__all__ = [
    "BATCH_SIZE",
    "DEFAULT_RANGES",
    "Examiner",
    "ModelIdentity",
    "Prediction",
    "Predictor",
    "Record",
    "ReferenceCells",
    "ReferenceRanges",
    "Specimen",
    "batches",
    "check_leucocytes",
    "load_ranges",
    "look_at",
    "take_down",
]
