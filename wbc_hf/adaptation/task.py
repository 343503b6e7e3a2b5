"""What both kinds of domain adaptation share: a model, the cells of another laboratory, and the new calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from transformers import ResNetForImageClassification

from wbc_hf.adaptation.adaptation_cell import AdaptationCell
from wbc_hf.adaptation.progress import ProgressCallback
from wbc_hf.inference import Predictor
from wbc_hf.modeling import (
    OUT_OF_DISTRIBUTION_SHARE,
    Calibration,
    LaboratoryDistance,
    OutOfDistributionScore,
    centre_squares,
)


@dataclass(frozen=True)
class Task:
    """A model and the cells that it is adapted to.

    Attributes:
        predictor: Of the model, whose network is changed in place.
        cells: Of the other laboratory, n.
        labels: int64 (n,), -1 where unknown.
        seed: Random seed.
        progress: Callback.
    """

    predictor: Predictor
    cells: Sequence[AdaptationCell]
    labels: np.ndarray
    seed: int
    progress: ProgressCallback

    @cached_property
    def squares(self) -> torch.Tensor:
        """The views of the cells, uint8 (m, 3, edge, edge)."""
        return centre_squares((view for cell in self.cells for view in cell.views), self.predictor.processor)

    @property
    def cell_of(self) -> np.ndarray:
        """Index of the cell of each view, int64 (m,), ascending."""
        return np.repeat(np.arange(len(self.cells)), [len(cell.framings) for cell in self.cells])

    @property
    def network(self) -> ResNetForImageClassification:
        """The predictor's network."""
        return self.predictor.resnet

    def logits_and_features(
        self, chosen: np.ndarray | None = None, predictor: Predictor | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits and features of cells by a network as it is.

        Args:
            chosen: Indices of the cells; by default all.
            predictor: Of the network; by default the task's own.

        Returns:
            float (n, classes), the mean over the views of each cell; and (n, d), those of its first view.
        """
        predictor = predictor or self.predictor
        predictor.resnet.eval()
        cells = self.cells if chosen is None else [self.cells[index] for index in chosen]
        logits, features = predictor.logits_and_features(view for cell in cells for view in cell.views)
        counts = np.array([len(cell.framings) for cell in cells])
        first = np.cumsum(counts) - counts
        return np.add.reduceat(logits, first) / counts[:, None], features[first]

    def calibration(
        self,
        features: np.ndarray,
        predicted: np.ndarray,
        *,
        temperature: float,
        threshold: float,
        target_reached: bool,
        fitted_on: int,
    ) -> Calibration:
        """Calibration of the adapted network, with the laboratory's own cells in distribution.

        Args:
            features: Of all cells by the adapted network, (n, d).
            predicted: Class of each cell by that network, int (n,).
            temperature, threshold, target_reached, fitted_on: As in `Calibration`.
        """
        before = self.predictor.calibration
        trained_on = "cells that its folder does not name" if before is None else before.trained_on
        score = OutOfDistributionScore.fit(features)
        scores = score.leave_one_out(features)
        farthest = float(np.quantile(scores, 1 - OUT_OF_DISTRIBUTION_SHARE))
        return Calibration(
            temperature=temperature,
            review_threshold=threshold,
            target_reached=target_reached,
            out_of_distribution_threshold=farthest,
            fitted_on=fitted_on,
            trained_on=f"{trained_on}, adapted to {len(features)} cells of another laboratory",
            out_of_distribution_score=score,
            laboratory_distance=LaboratoryDistance.fit_one(scores, predicted),
            spans=() if before is None else before.spans,
        )
