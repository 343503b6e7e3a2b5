"""Batch-norm statistics of a network that was trained from scratch, estimated anew on training images as they are.

In training each batch-norm layer keeps a running mean over the last ten batches or so, of augmented views. What it has
at the end is an accident of these batches, and of images unlike those that are predicted: from epoch to epoch
validation jumps by a point while the weights hardly change any more. One mean over many images, without augmentation,
is steadier ("precise" batch norm, Wu & Johnson 2021, arXiv:2105.07576). See docs/decisions.md for what it gave.
"""

import copy

import numpy as np
import torch
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Leucocytes, read_image
from wbc_hf.evaluation import LeucocyteMetrics
from wbc_hf.inference import Predictor, batches

IMAGES, BATCH_SIZE = 1024, 64


def settle_batch_norm(
    network: ResNetForImageClassification, processor: BaseImageProcessor, leucocytes: Leucocytes, seed: int
) -> bool:
    """Estimate the statistics of all batch-norm layers on up to `IMAGES` training images, where validation agrees.

    Args:
        network: As it was trained, changed in place.
        processor: Of the network.
        leucocytes: With the splits `train` and `validation`.
        seed: Random seed of the choice of images.

    Returns:
        Whether macro F1 on validation is at least what it was. If it is not, the network is as before.
    """
    predictor = Predictor(network, processor, "trained")
    before, macro_f1 = copy.deepcopy(network.state_dict()), _macro_f1(predictor, leucocytes)
    layers = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over all batches
    rows = leucocytes["train"]
    # In random order: of batches of one class the variances would be too small. In whole batches, which count alike.
    count = min(IMAGES, len(rows))
    chosen = np.random.default_rng(seed).permutation(len(rows))[: max(count // BATCH_SIZE * BATCH_SIZE, BATCH_SIZE)]
    network.train()
    with torch.no_grad():
        for batch in batches((rows[int(index)] for index in chosen), BATCH_SIZE):
            network(predictor.pixels([read_image(row["image"]) for row in batch]))
    network.eval()
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    if _macro_f1(predictor, leucocytes) >= macro_f1:
        return True
    network.load_state_dict(before)
    return False


def _macro_f1(predictor: Predictor, leucocytes: Leucocytes) -> float:
    """On validation; without the confidence intervals of `evaluate_predictor`, which nobody reads here."""
    rows = leucocytes["validation"]
    predictions = predictor.probabilities(read_image(row["image"]) for row in rows).argmax(1)
    return LeucocyteMetrics().compute(predictions=predictions, references=rows["label"])["macro_f1"]
