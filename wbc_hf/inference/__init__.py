"""Prediction: the predictor and its backends, exporting, heat maps, similar reference cells, bulk prediction."""

from wbc_hf.inference.backends import BackendName
from wbc_hf.inference.bulk import check_columns, predict_many
from wbc_hf.inference.evaluating import evaluate_predictor
from wbc_hf.inference.exporting import MAX_FALL, describe_export, export_model
from wbc_hf.inference.finder_backends import RunFinder, load_finder
from wbc_hf.inference.heat_maps import heat_map, overlay
from wbc_hf.inference.predictor import BATCH_SIZE, ModelIdentity, Prediction, Predictor, batches
from wbc_hf.inference.reference_cells import Neighbour, ReferenceCells
from wbc_hf.inference.training_data import read_training_data

__all__ = [
    "BATCH_SIZE",
    "MAX_FALL",
    "BackendName",
    "ModelIdentity",
    "Neighbour",
    "Prediction",
    "Predictor",
    "ReferenceCells",
    "RunFinder",
    "batches",
    "check_columns",
    "describe_export",
    "evaluate_predictor",
    "export_model",
    "heat_map",
    "load_finder",
    "overlay",
    "predict_many",
    "read_training_data",
]
