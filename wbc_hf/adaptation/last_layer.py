"""Move a network's last layer to a laboratory: by its cells without labels, and by labels where there are few."""

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from torch import nn
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.adaptation.fine_tuning import look_at_turns, smooth_labels
from wbc_hf.adaptation.progress import ProgressCallback, no_progress
from wbc_hf.adaptation.prototypes import assign_by_prototypes, fit_last_layer

_MOST_CELLS = 2000  # that it is fitted to: more take memory, and say the same
_LABEL_WEIGHT = 10  # cells without a label that one with a label counts for


@torch.no_grad()
def move_last_layer(
    network: ResNetForImageClassification,
    squares: torch.Tensor,
    cell_of: np.ndarray,
    labels: np.ndarray,
    processor: BaseImageProcessor,
    *,
    seed: int = 0,
    progress: ProgressCallback = no_progress,
) -> np.ndarray:
    """Fit the last layer to the prototypes of cells, in place; cells with a label are what it says.

    Args:
        network: A ResNet of the five classes.
        squares: uint8 (m, 3, edge, edge), with `resized_edge` of the processor.
        cell_of: Index of the cell that each square shows, int (m,), ascending.
        labels: Of the cells, int (n,), class indices, -1 where unknown.
        processor: The network's.
        seed: Random seed.
        progress: Called with what is being done and the share that is done, 0 to 1.

    Returns:
        Estimated class proportions, float (classes,), sum 1.
    """
    # Those with labels first, then any.
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    chosen = np.sort(shuffled[np.argsort(labels[shuffled] < 0, kind="stable")][:_MOST_CELLS])
    shown = np.isin(cell_of, chosen)
    cell_of, labels = np.searchsorted(chosen, cell_of[shown]), labels[chosen]
    logits, features = look_at_turns(network, squares[torch.from_numpy(shown)], processor, progress=progress)

    views = np.bincount(cell_of)[:, None]
    scores, middles = np.zeros((len(chosen), logits.shape[2])), np.zeros((len(chosen), features.shape[2]))
    np.add.at(scores, cell_of, log_softmax(logits.astype(float), axis=2).mean(1))
    np.add.at(middles, cell_of, features.mean(1))
    layer = network.classifier[-1]
    assert isinstance(layer, nn.Linear)
    weight, bias = layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()
    assigned, proportions = assign_by_prototypes(softmax(scores / views, axis=1), middles / views, weight)

    known = labels >= 0
    assigned[known] = smooth_labels(labels[known])
    counts = np.where(known, _LABEL_WEIGHT, 1)
    rows = np.repeat(np.arange(len(cell_of)), counts[cell_of])
    with torch.enable_grad():
        weight, bias = fit_last_layer(
            features[rows].reshape(-1, features.shape[2]),
            np.repeat(assigned[cell_of[rows]], features.shape[1], axis=0),
            weight,
            bias,
            cells=int(counts.sum()),
        )
    layer.weight.copy_(torch.from_numpy(weight))
    layer.bias.copy_(torch.from_numpy(bias))
    return proportions
