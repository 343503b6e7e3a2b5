"""Adapted models without a training: what `adapt` would have written, by small changes of another model's weights."""

import copy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.adaptation import Adaptation, Scores
from wbc_hf.adaptation.weight_difference import round_to_difference
from wbc_hf.files import write_json
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Calibration, LaboratoryDistance, OutOfDistributionScore, build_from_scratch


@dataclass(frozen=True)
class AdaptedModel:
    """What `adapt` leaves. Not to be changed: several tests read it.

    Attributes:
        base: The model before.
        folder: Of the adapted model.
        adaptation: What `adapt` would return.
        version: Of the adapted model.
    """

    base: Predictor
    folder: Path
    adaptation: Adaptation
    version: str


def build_tiny_model() -> tuple[ResNetForImageClassification, BaseImageProcessor]:
    """An untrained network of the five classes, with one block a stage: to adapt or convert it takes a third.

    It answers as one of sixteen blocks does, since untrained ones only pass on what they get.
    """
    network, processor = build_from_scratch(0.0625, image_size=32)
    for stage in network.resnet.encoder.stages:
        del stage.layers[1:]
    network.config.depths = [1] * len(network.config.depths)
    return network, processor


def write_tiny_model(folder: Path) -> ResNetForImageClassification:
    """Write an untrained network with its processor, and nothing of a calibration, to a new folder."""
    network, processor = build_tiny_model()
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return network


def change_weights(network: torch.nn.Module, seed: int, share: float = 0.05) -> None:
    """Add noise to all parameters, of `share` of their size: about as much as a fine-tuning changes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(share * (parameter.square().mean().sqrt() + 1e-3) * noise)


def make_adapted(base: Predictor, folder: Path, *, seed: int = 0, cells: int = 20) -> AdaptedModel:
    """Write an adapted model to a new folder."""
    network = copy.deepcopy(base.model)
    before = copy.deepcopy(network.state_dict())
    change_weights(network, seed)
    round_to_difference(network, before)
    network.save_pretrained(folder)
    base.processor.save_pretrained(folder)
    dimensions = sum(network.config.hidden_sizes[-3:])
    features = np.random.default_rng(seed).random((cells, dimensions), dtype=np.float32)
    Calibration(
        temperature=1.1,
        review_threshold=0.8 + seed / 100,
        target_reached=True,
        out_of_distribution_threshold=0.5,
        fitted_on=cells,
        trained_on="painted cells",
        out_of_distribution_score=OutOfDistributionScore.fit(features),
        laboratory_distance=LaboratoryDistance(np.zeros(cells, np.int8), (1.0,), 2.0),
    ).save(folder)
    intervals = {"accuracy": [0.8, 0.95], "balanced_accuracy": None, "macro_f1": None}
    scores = Scores(0.9, 0.8, 0.7, intervals, dict.fromkeys(CLASS_NAMES, 0.9))
    adaptation = Adaptation(
        model=base.identity.name,
        version=base.identity.version,
        software=base.identity.software,
        made="2026-01-02T03:04:05+00:00",
        seed=seed,
        cells=cells,
        unreadable=0,
        not_cells=1,
        review_threshold=0.8,
        target_reached=True,
        remarks=("A remark.",),
        labelled={"basophil": 2, "eosinophil": cells - 4, "lymphocyte": 0, "monocyte": 0, "neutrophil": 0},
        held_back=cells - 2,
        folds=2,
        temperature=1.1,
        scores_before=scores,
        scores_after=scores,
    )
    write_json(folder / "adaptation.json", asdict(adaptation))
    return AdaptedModel(base, folder, adaptation, Predictor.from_pretrained(folder, "torch").identity.version)
