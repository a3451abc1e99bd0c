"""Labels of the cells of a grid, as the head's own loss shows them.

Heads flatten their levels and images in either order, and leave some out;
which call of the loss belongs to which cells is found by comparing values.
"""

import inspect
import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmrkkd.ops.late import LateFlag

from .loss_tap import all_equal
from .method_tap import Call

# What MMDetection's heads call their classification losses.
LOSSES = ('loss_cls', 'initial_loss_cls')
ORDERS = ('by level', 'by image')


class LossCall(NamedTuple):
    """What a classification loss was called with, for n cells."""

    scores: Tensor  # (n, C)
    labels: Tensor  # (n,), C for background, -1 for a class given up.
    counts: Tensor  # (n,), bool: the head's loss counts the cell.


class Targets(NamedTuple):
    """What the head's loss says of B images with R cells each."""

    labels: Tensor | None = None  # (B R,)
    counts: Tensor | None = None  # (B R,), bool
    order: str = 'none'


class KnownOrder:
    """The order in which a head calls its loss, once it is known.

    The first step compares all scores, and waits for the device. Those that
    follow take the order for the same, and learn from the next step on
    whether that was right; where it was not, every step compares. Of one
    image both orders are the same: what it shows says nothing of several.
    """

    def __init__(self) -> None:
        # Of steps with several images, and of those with one.
        self.several: str | None = None
        self.alone: str | None = None
        self.same = LateFlag()
        self.trusted = True

    def look(self) -> None:
        """Reads what the last step has asked."""
        if self.same.answer() is False:
            self.several = self.alone = None
            self.trusted = False
            print_log(
                "The student's head called its loss in another order than "
                'before: the labels of one step were those of other cells. '
                'From now on they are compared in every step',
                logger='current',
                level=logging.WARNING,
            )

    def order(self, images: int) -> str | None:
        """That of steps with so many images, None before it is known."""
        return self.alone if images == 1 else self.several

    def confirm(self, order: str, same: Tensor, images: int) -> bool:
        """Whether the scores are the same in this order.

        Args:
            order: One of ORDERS.
            same: A scalar, bool, on the device.
            images: B.
        """
        if order == self.order(images):
            self.same.ask(same)
            return True
        if not bool(same):
            return False
        if self.trusted and images == 1:
            self.alone = order
        elif self.trusted:
            self.several = order
        return True


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

    def give_up(self, levels: Sequence[Call]) -> None:
        """Takes away the labels that the head silences after its loss.

        FSAF's keeps each object on the level where its loss is least.

        Args:
            levels: The calls of its ``reweight_loss_single``, one a level.
        """
        pairs = zip(self.calls, levels, strict=False)
        for index, (seen, call) in enumerate(pairs):
            given_up = (seen.labels < seen.scores.shape[1]) & ~call.result[2]
            self.calls[index] = seen._replace(
                labels=seen.labels.masked_fill(given_up, -1)
            )

    def targets(
        self, rows: Tensor, levels: Sequence[int], known: KnownOrder
    ) -> Targets:
        """The labels of cells, or none if the loss did not see these cells.

        Args:
            rows: (B, R, C), the scores as the head gave them.
            levels: Cells of an image in each level, R in all.
            known: The order of the steps before.
        """
        known.look()
        images, total = rows.shape[:2]
        calls = self._last(images * total)
        wanted = [images * n for n in levels], [total] * images
        orders = zip(ORDERS, wanted, strict=True)
        first = known.order(images)
        for order, sizes in sorted(orders, key=lambda o: o[0] != first):
            pieces = _pieces(calls, sizes)
            if pieces is None:
                continue
            by_level = order == ORDERS[0]
            same = _same_scores(pieces, rows, levels if by_level else None)
            if same is not None and known.confirm(order, same, images):
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
) -> Tensor | None:
    """Whether the pieces are the levels, or the images, of these scores.

    Returns:
        A scalar, bool, on the device; None where the shapes say no.
    """
    if any(piece.scores.shape[1] != rows.shape[2] for piece in pieces):
        return None
    parts = rows.unbind(0) if levels is None else rows.split(list(levels), 1)
    same = [
        all_equal(piece.scores.reshape(part.shape), part)
        for piece, part in zip(pieces, parts, strict=True)
    ]
    return torch.stack(same).all()


def _in_rows(levels: Sequence[Tensor], images: int) -> Tensor:
    """(B n,) of each level -> (B R,)."""
    return torch.cat([each.view(images, -1) for each in levels], 1).flatten()
