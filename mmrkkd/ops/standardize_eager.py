"""The equations of standardisation, written as they are read.

This file is the oracle for the C code: it favours being evidently right.
"""

from torch import Tensor

from .rows import flatness_and_scale


def standardize_eager(logits: Tensor, eps: float) -> Tensor:
    """z_hat by autograd; see :func:`mmrkkd.ops.standardize`."""
    centered, deviation, flat, scale = centered_and_deviation(logits)
    return (centered / (deviation + eps / scale)).masked_fill(flat, 0.0)


def centered_and_deviation(logits: Tensor) -> tuple[Tensor, ...]:
    """What both passes are made of.

    Args:
        logits: (..., C).

    Returns:
        The logits minus their mean, (..., C); their unbiased deviation,
        (..., 1), both divided by the scale; whether the row holds no order,
        bool, (..., 1), where the deviation is 1 in its place; and the scale,
        (..., 1), which is 1 unless squares would overflow.
    """
    flat, scale = flatness_and_scale(logits)
    scaled = logits / scale
    centered = scaled - scaled.mean(-1, keepdim=True)
    variance = centered.square().sum(-1, keepdim=True) / (logits.shape[-1] - 1)
    # Squares of tiny numbers may be 0 as well. The variance is replaced
    # before the root, so that its backward pass never divides by 0.
    flat = flat | (variance == 0)
    return centered, variance.masked_fill(flat, 1.0).sqrt(), flat, scale


def standardize_vjp_eager(
    gradient: Tensor, logits: Tensor, eps: float
) -> Tensor:
    """The gradient at the logits, of operations that autograd knows.

    With g the gradient at z_hat and c the centred logits::

        d L / d z_i = [g_i - mean g - c_i (g . c)
                       / ((std + eps) (C - 1) std)] / (std + eps)

    Args:
        gradient: g, (..., C).
        logits: (..., C).
        eps: Added to the deviation.

    Returns:
        (..., C), differentiable in both.
    """
    centered, deviation, flat, scale = centered_and_deviation(logits)
    product = (gradient * centered).sum(-1, keepdim=True)
    width = deviation + eps / scale
    along = centered * product / (width * (logits.shape[-1] - 1) * deviation)
    across = gradient - gradient.mean(-1, keepdim=True)
    return ((across - along) / width / scale).masked_fill(flat, 0.0)
