"""Answers for images: the predictor and its backends, exported models, heat maps, nearest cells, bulk predictions."""

from wbc_hf.inference.evaluating import evaluate_predictor
from wbc_hf.inference.heat_maps import heat_map, overlay
from wbc_hf.inference.predictor import BATCH_SIZE, ModelIdentity, Prediction, Predictor, batches
from wbc_hf.inference.reference_cells import Neighbour, ReferenceCells

__all__ = [
    "BATCH_SIZE",
    "ModelIdentity",
    "Neighbour",
    "Prediction",
    "Predictor",
    "ReferenceCells",
    "batches",
    "evaluate_predictor",
    "heat_map",
    "overlay",
]
