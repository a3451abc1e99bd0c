"""Per-sample standardisation of logits over the classes."""

import torch
from torch import Tensor

from .backends.standardize_fused import standardize_fused
from .standardize_eager import standardize_eager

FUSED_DTYPES = (torch.float32, torch.float64)


def standardize(logits: Tensor, eps: float = 1e-7) -> Tensor:
    """Each row minus its mean, divided by its standard deviation.

    ::

        z_hat = (z - mean_c z) / (std_c z + eps)

    with the unbiased standard deviation (divisor C - 1). The gradient flows
    through the mean and the deviation; with g the gradient at z_hat it is
    ``(g - mean g - z_hat (g . z_hat) / (C - 1)) / std`` as eps -> 0. It may
    be differentiated again.

    A row whose spread is only rounding (max - min within four units in the
    last place of its largest magnitude) holds no order to learn from. It
    gives zeros and a zero gradient; dividing by eps would multiply its
    gradient by 1e7. A row with NaN or infinity is NaN.

    On the CPU, forward and backward are one pass of C code each, which
    works in float64 inside; elsewhere it is the equation by autograd.

    Args:
        logits: (..., C), C >= 2, float32 or float64.
        eps: Added to the deviation, in logits. Defaults to 1e-7.

    Returns:
        (..., C), dimensionless: mean 0, unbiased deviation 1.

    Source: Guan et al., arXiv:2409.17823, algorithm 1 (which prints neither
        eps nor the divisor); both are those of the public code of logit
        standardisation, Sun et al., arXiv:2403.01427.
    """
    on_cpu = logits.device.type == 'cpu' and logits.dtype in FUSED_DTYPES
    if on_cpu and logits.dim() and logits.shape[-1] > 1:
        return standardize_fused(logits, eps)
    return standardize_eager(logits, eps)
