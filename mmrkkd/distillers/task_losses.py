"""Sums over the losses that a student computes itself."""

from collections.abc import Sequence

from torch import Tensor


def weighted_sum(
    views: Sequence[Tensor | Sequence[Tensor]], weight: float
) -> Tensor | list[Tensor]:
    """A loss of several views, added up and weighted.

    Args:
        views: The loss of each view: a tensor, or a list of tensors where a
            detector has one for each level.
        weight: Multiplies the sum.
    """
    if isinstance(views[0], (list, tuple)):
        return [
            weighted_sum(levels, weight) for levels in zip(*views, strict=True)
        ]
    total = sum(views[1:], start=views[0])
    # Times 1 would still be a step in the graph.
    return total if weight == 1 else weight * total


def total_loss(terms: dict) -> Tensor:
    """What MMEngine makes of some terms: means of all losses, added up."""
    total = 0.0
    for name, value in terms.items():
        if 'loss' in name:
            values = value if isinstance(value, (list, tuple)) else [value]
            total = total + sum(item.mean() for item in values)
    return total
