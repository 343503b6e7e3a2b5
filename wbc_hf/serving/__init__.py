"""Answers: the predictor and the page.

`wbc_hf.serving.page` is imported by its own name: it brings Gradio along, which training and commands can spare.
"""

from wbc_hf.serving.predictor import BATCH_SIZE, Prediction, Predictor

__all__ = ["BATCH_SIZE", "Prediction", "Predictor"]
