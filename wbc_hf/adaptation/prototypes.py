"""A classifier's last layer for a laboratory without labels: fitted to what the laboratory's own cells have in common.

The network's features tell types apart also where another stain moves them all; its last layer then draws the
borders in the wrong place. Prototypes of the classes, the mean directions of their cells in feature space, move along
(Liang et al. 2020, arXiv:2002.08546). They are estimated together with the class proportions by expectation
maximisation, as a mixture of von Mises-Fisher distributions, in which the network's probabilities are the evidence.
The last layer is fitted to the outcome, and stays nearer to what it was the fewer cells there are.

See docs/unseen-laboratory.md for what else was tried, and where the constants were chosen.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax

_STEPS = 10
_CONCENTRATION = 5.0  # of the directions of a class's cells
_PRIOR_POWER = 0.5  # of the class proportions: with 1 rare classes would vanish
_OWN_CELLS = 10.0  # that the direction of a class in the last layer counts for, beside the cells
_BALANCED = 0.5  # share of the mean over classes in the origin of directions, beside the mean over cells
_RARE = 3.0  # cells: a class with fewer hardly moves that mean
_STIFFNESS, _STIFF_CELLS = 0.003, 100  # of the last layer, and the number of cells at which it is that
_FIT_STEPS = 100


def assign_by_prototypes(
    probabilities: np.ndarray, features: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Assign cells to classes by the network's probabilities and by the prototypes of the classes among these cells.

    Args:
        probabilities: Of the network, float (n, classes), rows sum to 1.
        features: Before the last layer, float (n, d).
        weight: Of the last layer, float (classes, d).

    Returns:
        Probabilities, float64 (n, classes), and the estimated class proportions, (classes,), sum 1.
    """
    evidence = np.log(np.maximum(probabilities.astype(float), 1e-9))
    features, weight = features.astype(float), weight.astype(float)
    directions = _directions(features - _origin(probabilities, features))
    known = _directions(weight - weight.mean(0))
    assigned = probabilities
    for _ in range(_STEPS):
        proportions = (assigned.sum(0) + 1) / (len(assigned) + assigned.shape[1])
        prototypes = _directions(assigned.T @ directions + _OWN_CELLS * known)
        scores = evidence + _CONCENTRATION * directions @ prototypes.T + _PRIOR_POWER * np.log(proportions)
        assigned = softmax(scores, axis=1)
    return assigned, proportions


def fit_last_layer(
    features: np.ndarray, targets: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, cells: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a last layer to soft labels by penalised maximum likelihood; the penalty is on what changes.

    Args:
        features: One row a view, float (m, d).
        targets: Probabilities for each row, float (m, classes).
        weight, bias: Of the last layer as it is, (classes, d) and (classes,).
        cells: Number of cells that the views show.

    Returns:
        The new weight and bias, float32.
    """
    inputs, soft_labels, before, offset = (
        torch.from_numpy(np.ascontiguousarray(each, dtype=np.float64)) for each in (features, targets, weight, bias)
    )
    change, shift = (torch.zeros_like(each, requires_grad=True) for each in (before, offset))
    stiffness, scale = _STIFFNESS * _STIFF_CELLS / cells, inputs.pow(2).mean()
    optimizer = torch.optim.LBFGS([change, shift], max_iter=_FIT_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = inputs @ (before + change).T + offset + shift
        penalty = scale * change.pow(2).sum() + shift.pow(2).sum()
        value = F.cross_entropy(logits, soft_labels) + stiffness * penalty
        value.backward()
        return value

    optimizer.step(loss)
    return (before + change).detach().float().numpy(), (offset + shift).detach().float().numpy()


def _origin(probabilities: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The middle from which directions are taken: half-way between the mean of all cells and that of the classes."""
    counts = probabilities.sum(0)
    of_classes = probabilities.T @ features / counts[:, None]
    balance = counts / (counts + _RARE)
    return (1 - _BALANCED) * features.mean(0) + _BALANCED * balance @ of_classes / balance.sum()


def _directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
