"""What a row allows: does it hold an order, would its squares overflow."""

import torch
from torch import Tensor


def wide_dtype(device: torch.device) -> torch.dtype:
    """What long sums are taken in: float64, which MPS does not have."""
    return torch.float32 if device.type == 'mps' else torch.float64


@torch.no_grad()
def flatness_and_scale(values: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """Whether rows hold no order, and what to divide them by.

    Args:
        values: Any shape, float32 or float64.
        dim: The dimension of a row's entries.

    Returns:
        Two tensors of the shape of ``values`` with 1 entry along ``dim``:
        bool, whether the values differ by rounding only (max - min within
        four units in the last place of the largest magnitude); and the
        scale, which is 1, or the largest magnitude where squares of the
        values would overflow.
    """
    largest = values.amax(dim, keepdim=True)
    smallest = values.amin(dim, keepdim=True)
    magnitude = torch.maximum(largest, -smallest)
    limits = torch.finfo(values.dtype)
    rounding = 4 * limits.eps * magnitude
    flat = (largest - smallest <= rounding) & (magnitude < torch.inf)
    # Up to the limit, sums of 1e7 squares stay in the range.
    limit = 1e-4 * limits.max**0.5
    return flat, torch.where(magnitude > limit, magnitude, 1.0)
