"""Which of the student's queries answers which of the teacher's."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..class_map import ClassMap
from .base import Scores
from .locations import confidence

# Of the costs: DETRDistill's (classes 1, boxes 5 and 2), Mask2Former's dice.
L1_COST, GIOU_COST, DICE_COST = 5.0, 2.0, 5.0
# Masks are compared at 112 x 112 points: as many as Mask2Former draws.
MASK_POINTS = (112, 112)
# Of pairs that must not be: above any sum of costs.
FORBIDDEN = 1e6


class Predictions(NamedTuple):
    """What the queries of one decoder layer say of B images."""

    scores: Tensor  # (B, Q, C), logits
    boxes: Tensor | None = None  # (B, Q, 4): cx, cy, w, h, shares of an image
    masks: Tensor | None = None  # (B, Q, h, w), logits
    counts: Tensor | None = None  # (B, Q), bool: the layer uses the query

    def pick(self, queries: Tensor) -> 'Predictions':
        """The predictions of some queries, (B, K), of each image."""
        return Predictions(
            *(
                None if value is None else picked(value, queries)
                for value in self
            )
        )


def picked(values: Tensor, queries: Tensor) -> Tensor:
    """(B, Q, ...) and the indices (B, K) -> (B, K, ...)."""
    images = torch.arange(len(queries), device=queries.device)
    return values[images[:, None], queries]


def surest(
    layer: Predictions,
    count: int,
    scores: Scores,
    class_map: ClassMap | None = None,
) -> Tensor:
    """(B, K): the ``count`` queries of highest class probability.

    In the order of the queries, which a rounded teacher keeps where it
    confuses two that are about as sure.
    """
    sure = confidence(layer.scores, scores, class_map)
    if layer.counts is not None:
        sure = sure.masked_fill(~layer.counts, -1.0)
    return sure.topk(min(count, sure.shape[1]), 1).indices.sort(1).values


@torch.no_grad()
def matched(
    students: Sequence[Predictions],
    teachers: Sequence[Predictions],
    scores: Scores,
) -> list[Tensor]:
    """The student's queries that answer the teacher's, at least cost.

    ::

        cost = CE(p_t; p_s) + 5 |b_t - b_s|_1 + 2 (1 - GIoU(b_t, b_s))

    with CE the cross entropy with the teacher's probabilities, summed over
    the classes, and boxes in shares of the image; masks have
    ``5 (1 - dice)`` in place of the boxes. One assignment an image and
    layer; the costs go to the host together, so that the step waits once.

    Args:
        students: Predictions of each layer, (B, Q, ...).
        teachers: Predictions of the queries to be answered, (B, K, ...)
            with K <= Q, of each layer, in the same channels.
        scores: What the scores mean.

    Returns:
        (B, K) of each layer, the index of the student's query.

    Source: Chang et al. (DETRDistill), arXiv:2211.10156, section 3.2; Cheng
        et al. (Mask2Former), arXiv:2112.01527, for masks.
    """
    with torch.autocast(students[0].scores.device.type, enabled=False):
        costs = torch.stack(
            [
                pair_costs(student, teacher, scores)
                for student, teacher in zip(students, teachers, strict=True)
            ]
        )
    found = _assigned(costs.flatten(0, 1)).to(costs.device)
    return list(found.unflatten(0, costs.shape[:2]))


def pair_costs(
    student: Predictions, teacher: Predictions, scores: Scores
) -> Tensor:
    """(B, K, Q), the cost of each pair of a layer; see :func:`matched`."""
    cost = class_cost(student.scores, teacher.scores, scores.activation)
    if teacher.boxes is not None:
        cost = cost + box_cost(student.boxes, teacher.boxes)
    if teacher.masks is not None:
        cost = cost + DICE_COST * (1 - dice(student.masks, teacher.masks))
    if student.counts is not None:
        cost = cost.masked_fill(~student.counts[:, None], FORBIDDEN)
    return cost


def class_cost(student: Tensor, teacher: Tensor, activation: str) -> Tensor:
    """Cross entropy of the student's scores with the teacher's.

    Args:
        student: (B, Q, C), logits.
        teacher: (B, K, C), logits.
        activation: 'softmax', or 'sigmoid': each class by itself.

    Returns:
        (B, K, Q), >= 0.
    """
    student, teacher = student.float(), teacher.float()
    if activation == 'softmax':
        return -teacher.softmax(-1) @ student.log_softmax(-1).mT
    present = teacher.sigmoid() @ functional.logsigmoid(student).mT
    return -present - (-teacher).sigmoid() @ functional.logsigmoid(-student).mT


def box_cost(student: Tensor, teacher: Tensor) -> Tensor:
    """(B, Q, 4) and (B, K, 4), cx, cy, w, h -> (B, K, Q)."""
    student, teacher = student.float(), teacher.float()
    distance = torch.cdist(teacher, student, p=1)
    return L1_COST * distance + GIOU_COST * (1 - _giou(student, teacher))


def corners(boxes: Tensor) -> Tensor:
    """(..., 4), cx, cy, w, h -> x1, y1, x2, y2."""
    centers, sizes = boxes.split(2, -1)
    return torch.cat([centers - sizes / 2, centers + sizes / 2], -1)


def _giou(student: Tensor, teacher: Tensor) -> Tensor:
    """Generalised IoU of each pair, (B, K, Q), in [-1, 1]."""
    ours, theirs = (
        corners(box) for box in (student[:, None], teacher[:, :, None])
    )
    inner = torch.minimum(ours, theirs)[..., 2:]
    inner = inner - torch.maximum(ours, theirs)[..., :2]
    outer = torch.maximum(ours, theirs)[..., 2:]
    outer = outer - torch.minimum(ours, theirs)[..., :2]
    both = inner.clamp(min=0).prod(-1)
    union = student[:, None, :, 2:].prod(-1) + teacher[:, :, None, 2:].prod(-1)
    union, hull = (union - both).clamp(min=1e-9), outer.prod(-1)
    return both / union - (hull - union) / hull.clamp(min=1e-9)


def dice(student: Tensor, teacher: Tensor) -> Tensor:
    """How much masks overlap: 2 |A B| / (|A| + |B|), in [0, 1].

    Args:
        student: (B, Q, h, w), logits.
        teacher: (B, K, h', w'), logits.

    Returns:
        (B, K, Q).
    """
    ours, theirs = (
        functional.interpolate(
            masks.float(), MASK_POINTS, mode='bilinear', align_corners=False
        )
        .sigmoid()
        .flatten(2)
        for masks in (student, teacher)
    )
    sizes = theirs.sum(-1)[:, :, None] + ours.sum(-1)[:, None]
    # 1 on both sides: two empty masks are equal.
    return (2 * theirs @ ours.mT + 1) / (sizes + 1)


def _assigned(costs: Tensor) -> Tensor:
    """(M, K, Q) -> (M, K), the columns of least cost, each used once."""
    from scipy.optimize import linear_sum_assignment

    # A diverged student's NaN would end the run here, before its loss shows.
    costs = costs.nan_to_num(FORBIDDEN, FORBIDDEN, -FORBIDDEN).cpu()
    return torch.stack(
        [
            torch.as_tensor(linear_sum_assignment(each)[1])
            for each in costs.numpy()
        ]
    )
