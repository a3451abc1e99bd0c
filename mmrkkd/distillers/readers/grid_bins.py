"""How far each side of a box is from its cell, as a distribution."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .grid_mapping import GridMapping
from .heads import cells
from .loss_tap import by_class

# Their second output has 4 (reg_max + 1) logits for each cell.
HEADS_WITH_BINS = {'GFLHead': True}


def check_bins(
    loss: str, head: nn.Module, other: nn.Module, mapping: GridMapping
) -> None:
    """Refuses heads without distributions, or with unlike ones.

    Args:
        loss: Name of the loss that compares them.
        head: The student's.
        other: The teacher's.
        mapping: Which cells are compared.

    Raises:
        TypeError: see above.
    """
    for owner, each in (('student', head), ('teacher', other)):
        if not by_class(HEADS_WITH_BINS, each):
            raise TypeError(
                f'{loss} compares the distributions of the sides of boxes, '
                f"and the {owner}'s {type(each).__name__} has none: it is "
                'for GFL. Leave it out'
            )
    if mapping:
        raise TypeError(
            f'{loss} needs heads with the same cells, not {mapping}'
        )
    if head.reg_max != other.reg_max:
        raise TypeError(
            f'{loss} compares distributions over the same distances: the '
            f"student's reg_max is {head.reg_max}, the teacher's "
            f'{other.reg_max}. Use a teacher with the same'
        )


@contextmanager
def noted_outputs(head: nn.Module, wanted: bool) -> Iterator[list[Sequence]]:
    """Notes what a head puts out inside the block, if it is wanted."""
    seen = []
    if not wanted:
        yield seen
        return
    handle = head.register_forward_hook(
        lambda module, args, outputs: seen.append(outputs)
    )
    try:
        yield seen
    finally:
        handle.remove()


def side_bins(head: nn.Module, outputs: Sequence) -> Tensor:
    """The logits of the distances, (N, 4, K), in the order of the cells."""
    width = 4 * (head.reg_max + 1)
    rows = [cells(maps, width).flatten(1, 3) for maps in outputs[1]]
    return torch.cat(rows, 1).flatten(0, 1).unflatten(1, (4, -1))
