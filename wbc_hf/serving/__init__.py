"""Answers: the predictor and the page."""

from wbc_hf.serving.predictor import BATCH_SIZE, Prediction, Predictor

__all__ = ["BATCH_SIZE", "Prediction", "Predictor"]
