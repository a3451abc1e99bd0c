"""Labels of the cells of a grid, as the head's own loss shows them.

Heads flatten their levels and images in either order, and leave some out;
which call of the loss belongs to which cells is found by comparing values.
"""

import inspect
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

# What MMDetection's heads call their classification losses.
LOSSES = ('loss_cls', 'initial_loss_cls')
ORDERS = ('by level', 'by image')


class LossCall(NamedTuple):
    """What a classification loss was called with, for n cells."""

    scores: Tensor  # (n, C)
    labels: Tensor  # (n,)
    counts: Tensor  # (n,), bool: the head's loss counts the cell.


class Targets(NamedTuple):
    """What the head's loss says of B images with R cells each."""

    labels: Tensor | None = None  # (B R,)
    counts: Tensor | None = None  # (B R,), bool
    order: str = 'none'


class GridLossTap:
    """Notes the calls of a head's classification losses."""

    def __init__(self) -> None:
        self.calls: list[LossCall] = []

    def see(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Hook before a loss: forward(scores, target, weight=None, ...)."""
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        values = list(bound.arguments.values())
        if len(values) < 2 or not isinstance(values[0], Tensor):
            return
        scores, target = values[:2]
        labels = _labels(target, scores)
        if labels is not None:
            named = bound.arguments
            # GHM-C has another name for it.
            weight = named.get('weight', named.get('label_weight'))
            counts = torch.ones_like(labels, dtype=torch.bool)
            if isinstance(weight, Tensor) and len(weight) == len(labels):
                counts = weight.reshape(len(labels), -1).amax(1) > 0
            self.calls.append(LossCall(scores.detach(), labels, counts))

    def targets(self, rows: Tensor, levels: Sequence[int]) -> Targets:
        """The labels of cells, or none if the loss did not see these cells.

        Args:
            rows: (B, R, C), the scores as the head gave them.
            levels: Cells of an image in each level, R in all.
        """
        images, total = rows.shape[:2]
        calls = self._last(images * total)
        wanted = [images * n for n in levels], [total] * images
        for order, sizes in zip(ORDERS, wanted, strict=True):
            pieces = _pieces(calls, sizes)
            if pieces is None:
                continue
            by_level = order == ORDERS[0]
            if _same_scores(pieces, rows, levels if by_level else None):
                return Targets(
                    *(
                        _in_rows([piece[i] for piece in pieces], images)
                        if by_level
                        else torch.cat([piece[i] for piece in pieces])
                        for i in (1, 2)
                    ),
                    order,
                )
        return Targets()

    def _last(self, cells: int) -> list[LossCall]:
        """The last calls, together of this many cells.

        PAA's head asks its loss about candidates first.
        """
        start = len(self.calls)
        while cells > 0 and start > 0:
            start -= 1
            cells -= len(self.calls[start].scores)
        return self.calls[start:] if cells == 0 else []


def _labels(target: object, scores: Tensor) -> Tensor | None:
    """(n,), from labels, (labels, quality) or scores (n, C) of the classes."""
    if isinstance(target, (tuple, list)) and target:
        target = target[0]
    if not isinstance(target, Tensor) or scores.dim() != 2:
        return None
    if target.is_floating_point() and target.shape == scores.shape:
        best = target.max(1)
        return best.indices.masked_fill(best.values <= 0, scores.shape[1])
    is_label = not target.is_floating_point() and target.dim() == 1
    return target if is_label and len(target) == len(scores) else None


def _pieces(
    calls: Sequence[LossCall], sizes: Sequence[int]
) -> list[LossCall] | None:
    """The calls cut into pieces of these sizes; None if they do not fit."""
    pieces, left = [], list(sizes)
    for call in calls:
        cut = []
        while left and sum(cut) < len(call.scores):
            cut.append(left.pop(0))
        if sum(cut) != len(call.scores):
            return None
        parts = (each.split(cut) for each in call)
        pieces += map(LossCall._make, zip(*parts, strict=True))
    return pieces if pieces and not left else None


def _same_scores(
    pieces: Sequence[LossCall], rows: Tensor, levels: Sequence[int] | None
) -> bool:
    """Whether the pieces are the levels, or the images, of these scores."""
    if any(piece.scores.shape[1] != rows.shape[2] for piece in pieces):
        return False
    parts = rows.unbind(0) if levels is None else rows.split(list(levels), 1)
    same = [
        (piece.scores.reshape(part.shape) == part.to(piece.scores.dtype)).all()
        for piece, part in zip(pieces, parts, strict=True)
    ]
    # One synchronisation with the device for all of them.
    return bool(torch.stack(same).all())


def _in_rows(levels: Sequence[Tensor], images: int) -> Tensor:
    """(B n,) of each level -> (B R,)."""
    return torch.cat([each.view(images, -1) for each in levels], 1).flatten()
