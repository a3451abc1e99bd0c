"""Generalised IoU of the student's boxes with the teacher's."""

import torch
from torch import Tensor

from mmrkkd.ops.checks import check_flag

from .base import LogitLoss
from .placement import Placement, Select
from .schedule import build_schedule

# Of the area of a union or hull without any.
EPS = 1e-7


class BoxGIoULoss(LogitLoss):
    """Boxes of the same cells should be the same.

    With b_s, b_t the boxes of a cell, x1, y1, x2, y2::

        loss_box_giou = w sum_i v_i (1 - GIoU(b_s, b_t)) / N+
        v_i = max_c |p_t(c) - p_s(c)|

    over all cells: where the two agree of the classes, v is small. N+ is the
    number of positives, in a detector. With ``difference=False`` v is what
    ``locations`` says; CrossKD has w = 1 (RetinaNet, ATSS) and
    ``locations='confidence'``, the teacher's highest score.

    In a detector its samples are the boxes of all cells, or the boxes that a
    two-stage detector samples, as each head moves them; there N+ is the sum
    of the weights, so that it is a mean. A coordinate of -inf bounds no box
    and gives NaN.

    Args:
        difference: Weigh each cell by the greatest difference of the two
            probabilities of a class, without gradient. Defaults to True.
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 4.0, as published by Yang et al.

    Log keys: ``loss_box_giou``.

    Source: Yang et al. (BCKD), arXiv:2308.14286, section 3.3; Wang et al.
        (CrossKD), arXiv:2306.11369.
    """

    activations = ('softmax', 'sigmoid')
    asks_for = ('boxes',)
    default_normalizer = 'positives'
    # Of a detector's classes; a box has four numbers.
    min_classes = 1
    apart = True
    activation = 'sigmoid'

    def __init__(
        self, difference: bool = True, loss_weight: float | dict = 4.0
    ) -> None:
        super().__init__()
        self.difference = check_flag('difference', difference)
        self.loss_weight = build_schedule('loss_weight', loss_weight)

    def suit(self, activation: str) -> None:
        """See :meth:`Placed.suit`; probabilities are made by it."""
        super().suit(activation)
        self.activation = activation

    def located(
        self, select: Select, boxes: tuple[Tensor, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """See :meth:`Placed.located`.

        Args:
            select: As there; weighs by the difference of its logits.
            boxes: The student's and the teacher's, (N, 4) each.
        """

        def apart(student: Tensor, teacher: Tensor) -> Tensor:
            return greatest_difference(student, teacher, self.activation)

        def select_boxes(placement: Placement) -> tuple:
            # Counted in what a mean over the weights is divided by, too.
            more = (apart,) if self.difference else ()
            *_, weight, total = select(placement, *more)
            return *boxes, None, weight, total

        return super().located(select_boxes)

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`; the first four are the box.

        Raises:
            ValueError: there are fewer.
        """
        if student_logits.shape[1] < 4:
            raise ValueError(
                'BoxGIoULoss compares boxes of four numbers (x1, y1, x2, y2), '
                f'got {student_logits.shape[1]}; for class scores take KDLoss '
                'or BinaryKDLoss'
            )
        apart = 1 - giou(student_logits[:, :4], teacher_logits[:, :4])
        return dict(loss_box_giou=self.now(self.loss_weight) * apart)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return f'difference={self.difference}, loss_weight={self.loss_weight}'


@torch.no_grad()
def greatest_difference(
    student_logits: Tensor, teacher_logits: Tensor, activation: str
) -> Tensor:
    """max_c |p_t(c) - p_s(c)|, (N,), in [0, 1].

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
        activation: Of the logits, 'softmax' or 'sigmoid'.
    """
    student, teacher = (
        logits.float().sigmoid()
        if activation == 'sigmoid'
        else logits.float().softmax(-1)
        for logits in (student_logits, teacher_logits)
    )
    return (student - teacher).abs().amax(-1)


def giou(one: Tensor, other: Tensor) -> Tensor:
    """Generalised IoU of boxes x1, y1, x2, y2, (N, 4) -> (N,), in [-1, 1].

    Equal boxes have 1, also those without area, which the quotients of areas
    say nothing of.

    Source: Rezatofighi et al., arXiv:1902.09630, algorithm 1.
    """
    first = torch.maximum(one[:, :2], other[:, :2])
    last = torch.minimum(one[:, 2:], other[:, 2:])
    both = _area(first, last)
    areas = [_area(box[:, :2], box[:, 2:]) for box in (one, other)]
    union = (areas[0] + areas[1] - both).clamp(min=EPS)
    low = torch.minimum(one[:, :2], other[:, :2])
    high = torch.maximum(one[:, 2:], other[:, 2:])
    hull = _area(low, high).clamp(min=EPS)
    values = both / union - (hull - union) / hull
    return torch.where((one == other).all(1), 1.0, values)


def _area(first: Tensor, last: Tensor) -> Tensor:
    # A box that is turned inside out has none.
    return (last - first).clamp(min=0).prod(1)
