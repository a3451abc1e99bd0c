"""Vectors of norm 1, and what has no direction."""

import torch
from torch import Tensor
from torch.linalg import vector_norm

# torch's normalize divides by no less.
LEAST = 1e-12


def unit(
    values: Tensor, dim: int | tuple[int, ...] = 1, least: Tensor | float = 0.0
) -> Tensor:
    """Vectors divided by their L2 norm.

    One without length has no direction: it gives zeros and a zero gradient.
    Dividing by a least norm would multiply its gradient by 1e12.

    Args:
        values: Any shape.
        dim: Where the numbers of a vector are. Defaults to 1.
        least: Up to which norm it is rounding, and has no direction; any
            shape that the norms, of 1 at ``dim``, go with. Up to 1e-12
            none has. Defaults to 0.0.

    Returns:
        The same shape, of norm 1 or 0.
    """
    norms = vector_norm(values, dim=dim, keepdim=True)
    with torch.no_grad():
        flat = (norms <= LEAST) | (norms <= least)
    # Divided by infinity, and not masked: no copy of the values.
    return values / norms.masked_fill(flat, torch.inf)
