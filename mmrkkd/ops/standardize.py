"""Per-sample standardisation of logits over the classes."""

import torch
from torch import Tensor


def standardize(logits: Tensor, eps: float = 1e-7) -> Tensor:
    """Each row minus its mean, divided by its standard deviation.

    ::

        z_hat = (z - mean_c z) / (std_c z + eps)

    with the unbiased standard deviation (divisor C - 1). The gradient flows
    through the mean and the deviation; with g the gradient at z_hat it is
    ``(g - mean g - z_hat (g . z_hat) / (C - 1)) / std``.

    A row whose spread is only rounding (max - min within four units in the
    last place of its largest magnitude) holds no order to learn from. It
    gives zeros and a zero gradient; dividing by eps would multiply its
    gradient by 1e7.

    Args:
        logits: (..., C), C >= 2, float32 or float64.
        eps: Added to the deviation, in logits. Defaults to 1e-7.

    Returns:
        (..., C), dimensionless: mean 0, unbiased deviation 1.

    Source: Guan et al., arXiv:2409.17823, algorithm 1 (which prints neither
        eps nor the divisor); both are those of the public code of logit
        standardisation, Sun et al., arXiv:2403.01427.
    """
    with torch.no_grad():
        largest = logits.amax(-1, keepdim=True)
        smallest = logits.amin(-1, keepdim=True)
        rounding = (
            4
            * torch.finfo(logits.dtype).eps
            * torch.maximum(largest.abs(), smallest.abs())
        )
        flat = largest - smallest <= rounding
    centered = logits - logits.mean(-1, keepdim=True)
    variance = centered.square().sum(-1, keepdim=True) / (logits.shape[-1] - 1)
    # Squares of tiny numbers may be 0 as well. The variance is replaced
    # before the root, so that its backward pass never divides by 0.
    flat = flat | (variance == 0)
    deviation = variance.masked_fill(flat, 1.0).sqrt()
    return (centered / (deviation + eps)).masked_fill(flat, 0.0)
