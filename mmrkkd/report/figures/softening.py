"""From logits to what the losses compare."""

import numpy as np
import torch

from mmrkkd.ops import standardize
from mmrkkd.ops.divergence import DIVERGENCES


def probabilities(
    logits: np.ndarray, temperature: float = 1.0, activation: str = 'softmax'
) -> np.ndarray:
    """softmax(z / T), or sigmoid(z / T).

    Args:
        logits: (N, C).
        temperature: T > 0. Defaults to 1.0.
        activation: 'softmax' or 'sigmoid'. Defaults to 'softmax'.

    Returns:
        (N, C), in [0, 1].
    """
    softened = torch.from_numpy(logits) / temperature
    if activation == 'sigmoid':
        return softened.sigmoid().numpy()
    return softened.softmax(-1).numpy()


def divergence(
    student: np.ndarray,
    teacher: np.ndarray,
    temperature: float = 1.0,
    activation: str = 'softmax',
) -> np.ndarray:
    """KL(teacher || student) of each sample, without the factor T^2.

    Args:
        student: (N, C), logits.
        teacher: (N, C).
        temperature: T > 0. Defaults to 1.0.
        activation: 'softmax', or 'sigmoid', where it is the sum of each
            class's own. Defaults to 'softmax'.

    Returns:
        (N, ), in nats.
    """
    values = DIVERGENCES[activation](
        torch.from_numpy(student), torch.from_numpy(teacher), temperature
    )
    return values.numpy()


def standardized(logits: np.ndarray) -> np.ndarray:
    """Each row minus its mean, over its deviation (divisor C - 1).

    Args:
        logits: (N, C).
    """
    return standardize(torch.from_numpy(logits)).numpy()
