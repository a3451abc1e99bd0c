"""The parts of a teacher that its logits are made by."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from ..readers.box_heads import REFUSED, box_stages
from ..readers.grid_levels import training_levels
from ..readers.heads import dense_head
from ..readers.loss_tap import by_class


class Parts(NamedTuple):
    """Where a teacher's time goes.

    Args:
        body: What makes its features, each with whether its output leaves
            for float32 arithmetic.
        heads: What makes its scores of them.
    """

    body: dict[nn.Module, bool]
    heads: list[nn.Module]


def find_parts(model: nn.Module, with_heads: bool = True) -> Parts:
    """The parts of a teacher that may run in a reduced precision.

    Only backbone, neck, and the heads whose scores the readers of boxes, of
    cells and of images take: whatever else a teacher has runs as it is.

    Args:
        model: The teacher.
        with_heads: False keeps the heads out. Defaults to True.
    """
    body = [
        part
        for part in (
            getattr(model, name, None) for name in ('backbone', 'neck')
        )
        if isinstance(part, nn.Module) and _has_weights(part)
    ]
    leaves = {part: part is body[-1] for part in body}
    if not with_heads:
        return Parts(leaves, [])
    if hasattr(model, 'roi_head'):
        # Stages that refine boxes for each other are no heads for scores.
        if by_class(REFUSED, model.roi_head):
            return Parts(leaves, [])
        shared = getattr(model.roi_head, 'shared_head', None)
        if isinstance(shared, nn.Module) and _has_weights(shared):
            leaves[shared] = True
        return Parts(leaves, [head for _, head in box_stages(model)])
    head = dense_head(model) or getattr(model, 'head', None)
    known = isinstance(head, nn.Module) and _has_weights(head)
    return Parts(leaves, [head] if known else [])


def scores_by(
    model: nn.Module, head: nn.Module
) -> Callable[[Sequence[Tensor]], list[Tensor]] | None:
    """A function of a head's inputs that runs it for its scores alone.

    Args:
        model: The teacher.
        head: One of the heads of its parts.

    Returns:
        The function; None where a head has no other branch.
    """
    if hasattr(model, 'roi_head'):
        return lambda inputs: [head(*inputs)[0]]
    return partial(training_levels, head) if dense_head(model) else None


def _has_weights(part: nn.Module) -> bool:
    return next(part.parameters(), None) is not None
