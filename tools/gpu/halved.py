"""Weights in half the space."""

from torch import Tensor


def halved_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels in float16, everything else as it is.

    Loading into a float32 model turns them back. Statistics stay as they
    are: the variances of batch norm may leave the range of float16.

    Args:
        weights: Key to tensor.
    """
    return {
        key: value.half()
        if value.is_floating_point() and value.ndim > 1
        else value
        for key, value in weights.items()
    }
