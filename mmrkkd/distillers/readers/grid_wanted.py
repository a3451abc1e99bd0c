"""What the cells of dense heads have besides of class scores."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from .base import Match
from .grid_boxes import DECODERS, cell_boxes
from .grid_mapping import GridMapping
from .heads import cells
from .loss_tap import by_class
from .objects import objects_of_cells

# Their second output has 4 (reg_max + 1) logits for each cell.
HEADS_WITH_BINS = {'GFLHead': True}
HEADS_WITH = dict(bins=HEADS_WITH_BINS, boxes=DECODERS)
NAMES = dict(
    bins='the distributions of the sides of boxes, which GFL has',
    boxes='boxes, which are known of RetinaNet, ATSS, GFL, FCOS and heads '
    'with their outputs',
)


def check_wanted(
    what: str,
    loss: str,
    head: nn.Module,
    other: nn.Module,
    mapping: GridMapping,
) -> None:
    """Refuses heads that have not what a loss asks for, or unlike ones.

    Args:
        what: 'groups', 'bins' or 'boxes'.
        loss: Name of the loss.
        head: The student's.
        other: The teacher's.
        mapping: Which cells are compared.

    Raises:
        TypeError: see above.
    """
    if mapping:
        raise TypeError(
            f'{loss} needs heads with the same cells, not {mapping}'
        )
    for owner, each in (('student', head), ('teacher', other)):
        if what in HEADS_WITH and not by_class(HEADS_WITH[what], each):
            raise TypeError(
                f"{loss} compares {NAMES[what]}: the {owner}'s "
                f'{type(each).__name__} has none of these. Leave it out'
            )
    if what == 'bins' and head.reg_max != other.reg_max:
        raise TypeError(
            f'{loss} compares distributions over the same distances: the '
            f"student's reg_max is {head.reg_max}, the teacher's "
            f'{other.reg_max}. Use a teacher with the same'
        )


def add_wanted(
    match: Match,
    wants: Collection[str],
    head: nn.Module,
    pairs: Sequence[tuple[nn.Module, Sequence]],
    levels: Sequence[Tensor],
    data_samples: Sequence,
) -> None:
    """Fills the fields of a match that losses ask for, in place.

    Args:
        match: The cells of both heads.
        wants: Names of the fields.
        head: The student's.
        pairs: The heads that the student's boxes and the teacher's are
            from, each with what it put out.
        levels: The student's scores, (B, H, W, A, C) of each level.
        data_samples: B samples with their annotations.
    """
    if 'bins' in wants:
        match.bins = tuple(side_bins(*pair) for pair in pairs)
    if 'boxes' in wants:
        match.boxes = tuple(cell_boxes(*pair, levels) for pair in pairs)
    if 'groups' in wants:
        match.groups = objects_of_cells(
            head, levels, match.labels, data_samples
        )


def side_bins(head: nn.Module, outputs: Sequence) -> Tensor:
    """The logits of the distances, (N, 4, K), in the order of the cells."""
    width = 4 * (head.reg_max + 1)
    rows = [cells(maps, width).flatten(1, 3) for maps in outputs[1]]
    return torch.cat(rows, 1).flatten(0, 1).unflatten(1, (4, -1))
