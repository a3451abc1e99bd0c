"""Which cells of two dense heads are compared where they differ."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmrkkd.ops.checks import check_choice

from .heads import anchors_of, grid_of

ANCHORS = ('same', 'max')
LEVELS = ('same', 'shared')
# Of the sides of anchors: MMDetection 1's are a pixel less.
TOLERANCE = 0.1


class GridMapping:
    """Brings two grids to the cells that both have.

    Experimental: no paper has numbers of it.

    Args:
        anchors: 'same', the anchors of a place one by one; 'max', the
            highest score of each class among them. Defaults to 'same'.
        levels: 'same', all; 'shared', those of strides that both have.
            Defaults to 'same'.
    """

    def __init__(self, anchors: str = 'same', levels: str = 'same') -> None:
        check_choice('anchors', anchors, ANCHORS)
        check_choice('levels', levels, LEVELS)
        self.anchors, self.levels = anchors, levels

    def __bool__(self) -> bool:
        return (self.anchors, self.levels) != ('same', 'same')

    def __str__(self) -> str:
        return f'anchors {self.anchors}, levels {self.levels}'

    def check(self, head: nn.Module, other: nn.Module) -> None:
        """Refuses heads that state other cells.

        What they do not state shows in the shapes of the first batch.

        Raises:
            ValueError: the strides or the anchors differ. One anchor a cell
                may have other sides: its score is of the same place.
        """
        ours, theirs = grid_of(head), grid_of(other)
        if ours is None or theirs is None:
            if self.levels == 'shared':
                raise ValueError(
                    "levels='shared' needs heads that state their strides: "
                    f'{type(other if ours else head).__name__} does not'
                )
            return
        pairs = _pairs(head, other)
        if self.anchors == 'same':
            _check_sides(head, other, pairs)
        if ours == theirs:
            return
        ways = []
        if self.levels == 'same' and ours[0] != theirs[0]:
            ways.append("levels='shared'")
        if self.anchors == 'same' and any(
            ours[1][i] != theirs[1][j] for i, j in pairs
        ):
            ways.append("anchors='max'")
        if ways or not pairs:
            raise ValueError(
                'student and teacher have other cells: '
                f'{type(head).__name__} has levels of strides {ours[0]} with '
                f'{ours[1]} anchors in a cell, {type(other).__name__} of '
                f'strides {theirs[0]} with {theirs[1]}. Use a teacher with '
                'the same levels and anchors, or distil features'
                + (
                    '; as an experiment there is '
                    f"matching=dict(type='grid', {', '.join(ways)})"
                    if pairs
                    else ''
                )
            )

    def __call__(
        self,
        levels: Sequence[Tensor],
        others: Sequence[Tensor],
        head: nn.Module,
        other: nn.Module,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The levels of both that are compared.

        Args:
            levels: The student's, (B, H, W, A, C) each.
            others: The teacher's.
            head: The student's head.
            other: The teacher's head.
        """
        if self.levels == 'shared':
            pairs = _pairs(head, other)
            levels = [levels[i] for i, _ in pairs]
            others = [others[j] for _, j in pairs]
        if self.anchors == 'max':
            levels = [level.amax(3, keepdim=True) for level in levels]
            others = [level.amax(3, keepdim=True) for level in others]
        return list(levels), list(others)


def _check_sides(
    head: nn.Module, other: nn.Module, pairs: Sequence[tuple[int, int]]
) -> None:
    """Refuses as many anchors in a cell of other shapes, or in another order.

    Raises:
        ValueError: some sides differ by more than a tenth; the message has
            those of the first such level.
    """
    ours, theirs = anchors_of(head), anchors_of(other)
    if ours is None or theirs is None:
        return
    for i, j in pairs:
        one, another = _sides(ours[i]), _sides(theirs[j])
        if one.shape != another.shape or len(one) == 1:
            continue
        if not torch.allclose(one, another, rtol=TOLERANCE, atol=0):
            raise ValueError(
                'student and teacher have other anchors in a cell, and the '
                'scores of one would be compared with those of another: '
                f'{type(head).__name__} has {_listed(one)}, '
                f'{type(other).__name__} {_listed(another)} (width x height '
                f'in pixels, at the stride {grid_of(head)[0][i]}). Give both '
                'the same prior_generator; as an experiment there is '
                "matching=dict(type='grid', anchors='max')"
            )


def _sides(boxes: Tensor) -> Tensor:
    """(A, 4), the corners -> (A, 2), width and height."""
    return (boxes[:, 2:] - boxes[:, :2]).cpu()


def _listed(sides: Tensor) -> str:
    return ', '.join(f'{width:.4g} x {height:.4g}' for width, height in sides)


def _pairs(head: nn.Module, other: nn.Module) -> list[tuple[int, int]]:
    """The levels of the same stride, if both say their strides."""
    ours, theirs = grid_of(head), grid_of(other)
    if ours is None or theirs is None:
        return []
    return [
        (i, theirs[0].index(stride))
        for i, stride in enumerate(ours[0])
        if stride in theirs[0]
    ]
