"""Per-sample standardisation of logits over the classes."""

import torch
from torch import Tensor

from .backends.standardize_fused import standardize_fused
from .checks import check_non_negative
from .standardize_eager import centered_rows, standardize_eager

FUSED_DTYPES = (torch.float32, torch.float64)


def standardize(
    logits: Tensor, eps: float = 1e-7, floor: float | Tensor | None = None
) -> Tensor:
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

    The gradient is divided by the deviation: nearly constant logits, as an
    untrained layer may give, have a huge one. A floor bounds it::

        z_hat = (z - mean_c z) / (max(std_c z, floor) + eps)

    Where the deviation is not above its floor it counts as a constant, and
    the gradient is ``(g - mean g) / (floor + eps)``. That holds for a row
    without order too, which has a gradient then.

    On the CPU, forward and backward are one pass of C code each, which
    works in float64 inside; elsewhere it is the equation by autograd.

    Args:
        logits: (..., C), C >= 2, float32 or float64.
        eps: Added to the deviation, in logits. Defaults to 1e-7.
        floor: The least deviation, in logits, >= 0: one number, or one for
            each row, (...), which gets no gradient; NaN is none. Defaults
            to none.

    Returns:
        (..., C), dimensionless: mean 0, unbiased deviation 1, or less where
        the floor is higher.

    Raises:
        ValueError: floor is a number below 0 or not finite, or a tensor of
            another shape than the rows.

    Source: Guan et al., arXiv:2409.17823, algorithm 1 (which prints neither
        eps nor the divisor); both are those of the public code of logit
        standardisation, Sun et al., arXiv:2403.01427.
    """
    if floor is not None:
        floor = _checked_floor(floor, logits)
    on_cpu = logits.device.type == 'cpu' and logits.dtype in FUSED_DTYPES
    if on_cpu and logits.dim() and logits.shape[-1] > 1:
        return standardize_fused(logits, eps, floor)
    return standardize_eager(logits, eps, floor)


@torch.no_grad()
def deviation(logits: Tensor) -> Tensor:
    """The unbiased standard deviation of each row, without gradient.

    Args:
        logits: (..., C), C >= 2, float32 or float64.

    Returns:
        (...), in logits; 0 for a row that holds no order, see
        :func:`standardize`.
    """
    _, width, flat, _, scale = centered_rows(logits, None)
    return (scale * width).masked_fill(flat, 0.0).squeeze(-1)


def _checked_floor(floor: float | Tensor, logits: Tensor) -> Tensor:
    """One for each row, in the type of the logits."""
    rows = logits.shape[:-1]
    if not isinstance(floor, Tensor):
        return logits.new_full(rows, check_non_negative('floor', floor))
    if floor.shape != rows:
        raise ValueError(
            'floor must be a number or have one value for each row, shape '
            f'{tuple(rows)}, got {tuple(floor.shape)}'
        )
    return floor.detach().to(logits)
