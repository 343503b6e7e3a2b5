"""Prediction: the predictor and its backends, exporting, heat maps, similar reference cells, bulk prediction."""

from typing import TYPE_CHECKING

from wbc_hf.lazy_names import lazy_names

if TYPE_CHECKING:
    from wbc_hf.inference.backends import BackendName
    from wbc_hf.inference.bulk import (
        CHANGES,
        check_bulk,
        describe_model,
        load_described,
        predict_many,
    )
    from wbc_hf.inference.evaluating import evaluate_predictor
    from wbc_hf.inference.exporting import MAX_FALL, describe_export, export_model
    from wbc_hf.inference.finder_backends import load_finder
    from wbc_hf.inference.heat_maps import heat_map, overlay
    from wbc_hf.inference.jobs import Job, ray_session, run_as_actor
    from wbc_hf.inference.prediction_rows import NUMBER, check_columns, describe_left_out
    from wbc_hf.inference.predictor import BATCH_SIZE, ModelIdentity, Prediction, Predictor, batches, map_ahead
    from wbc_hf.inference.reference_cells import Neighbour, ReferenceCells
    from wbc_hf.inference.sources import ImagePlace, ImageSources, open_file, open_images
    from wbc_hf.inference.training_data import read_training_data

__all__ = [
    "BATCH_SIZE",
    "CHANGES",
    "MAX_FALL",
    "NUMBER",
    "BackendName",
    "ImagePlace",
    "ImageSources",
    "Job",
    "ModelIdentity",
    "Neighbour",
    "Prediction",
    "Predictor",
    "ReferenceCells",
    "batches",
    "check_bulk",
    "check_columns",
    "describe_export",
    "describe_left_out",
    "describe_model",
    "evaluate_predictor",
    "export_model",
    "heat_map",
    "load_described",
    "load_finder",
    "map_ahead",
    "open_file",
    "open_images",
    "overlay",
    "predict_many",
    "ray_session",
    "read_training_data",
    "run_as_actor",
]

__getattr__ = lazy_names(__name__)
