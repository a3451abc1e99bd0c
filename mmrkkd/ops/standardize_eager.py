"""The equations of standardisation, written as they are read.

This file is the oracle for the C code: it favours being evidently right.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .rows import flatness_and_scale


class CenteredRows(NamedTuple):
    """What both passes are made of.

    Args:
        centered: The logits minus their mean over the scale, (..., C).
        deviation: What they are divided by, over the scale, (..., 1): their
            unbiased deviation, or the floor; 1 for a row without order.
        flat: Bool, (..., 1), whether the row holds no order and has no
            floor: all of it is 0.
        raised: Bool, (..., 1), whether the deviation is the floor, a
            constant.
        scale: (..., 1), 1 unless squares would overflow.
    """

    centered: Tensor
    deviation: Tensor
    flat: Tensor
    raised: Tensor
    scale: Tensor


def standardize_eager(
    logits: Tensor, eps: float, floor: Tensor | None = None
) -> Tensor:
    """z_hat by autograd; see :func:`mmrkkd.ops.standardize`."""
    rows = centered_rows(logits, floor)
    width = rows.deviation + eps / rows.scale
    return (rows.centered / width).masked_fill(rows.flat, 0.0)


def centered_rows(logits: Tensor, floor: Tensor | None) -> CenteredRows:
    """Rows minus their mean, and what to divide them by.

    Args:
        logits: (..., C).
        floor: The least deviation of each row, (...), >= 0, or None.
    """
    flat, scale = flatness_and_scale(logits)
    scaled = logits / scale
    centered = scaled - scaled.mean(-1, keepdim=True)
    variance = centered.square().sum(-1, keepdim=True) / (logits.shape[-1] - 1)
    # Squares of tiny numbers may be 0 as well.
    flat = flat | (variance == 0)
    raised = torch.zeros_like(flat)
    if floor is not None:
        floor = floor.detach().unsqueeze(-1) / scale
        raised = (floor > 0) & (variance.detach().sqrt() <= floor)
        flat = flat & ~raised
    # The variance is replaced before the root, so that its backward pass
    # never divides by 0.
    deviation = variance.masked_fill(flat | raised, 1.0).sqrt()
    if floor is not None:
        deviation = torch.where(raised, floor, deviation)
    return CenteredRows(centered, deviation, flat, raised, scale)


def standardize_vjp_eager(
    gradient: Tensor, logits: Tensor, eps: float, floor: Tensor | None = None
) -> Tensor:
    """The gradient at the logits, of operations that autograd knows.

    With g the gradient at z_hat and c the centred logits::

        d L / d z_i = [g_i - mean g - c_i (g . c)
                       / ((std + eps) (C - 1) std)] / (std + eps)

    and without the third term where the floor stands for std.

    Args:
        gradient: g, (..., C).
        logits: (..., C).
        eps: Added to the deviation.
        floor: (...), >= 0, or None.

    Returns:
        (..., C), differentiable in the first two.
    """
    centered, deviation, flat, raised, scale = centered_rows(logits, floor)
    product = (gradient * centered).sum(-1, keepdim=True)
    width = deviation + eps / scale
    along = centered * product / (width * (logits.shape[-1] - 1) * deviation)
    across = gradient - gradient.mean(-1, keepdim=True)
    change = across - along.masked_fill(raised, 0.0)
    return (change / width / scale).masked_fill(flat, 0.0)
