"""What the log says about how well the student follows its teacher."""

import torch
from torch import Tensor

from mmrkkd.ops import exact_kendall_tau, top1_agreement
from mmrkkd.ops.divergence import DIVERGENCES

ROWS_PER_STEP = 256
# Exact tau alone looks at all C^2 pairs of classes of a row: so many of them
# are 16 rows of 1000 classes, 5 ms of one core.
PAIRS_PER_STEP = 2**24


@torch.no_grad()
def agreement(
    student_logits: Tensor,
    teacher_logits: Tensor,
    every_row: bool = False,
    activation: str = 'softmax',
    counts: Tensor | None = None,
    pairs: int = PAIRS_PER_STEP,
) -> dict[str, Tensor]:
    """Agreement of two sets of logits, as means over the rows.

    Args:
        student_logits: (..., C); leading dimensions are rows.
        teacher_logits: Same shape.
        every_row: Look at every row. By default at most 256 rows, evenly
            spread, so that the cost of a step is bounded; tau at fewer of
            them where classes are many.
        activation: Of the logits, 'softmax' or 'sigmoid'. Defaults to
            'softmax'.
        counts: (...) bool, the rows that count; a GPU is not waited for.
            Defaults to None, all.
        pairs: How many pairs of classes tau looks at, C^2 a row, but at one
            row at least; with ``every_row`` at all.

    Returns:
        ``kd/tau``, the exact Kendall tau-b in [-1, 1] (rows in which a side
        is constant are left out); ``kd/top1_agreement``, the share of rows
        whose highest class is the same; ``kd/kl``, KL(teacher || student)
        at temperature 1, in nats, of a sigmoid's classes the sum. Scalars;
        0 where there is no row, NaN where a row that was looked at holds
        NaN. Of a single class there is ``kd/kl`` alone.
    """
    student = student_logits.detach().float().flatten(0, -2)
    teacher = teacher_logits.detach().float().flatten(0, -2)
    most, few = (
        [max(len(student), 1)] * 2
        if every_row
        else _bounds(student.shape[-1], pairs)
    )
    (student, teacher), counts = _spread(most, counts, student, teacher)
    divergence = _mean(DIVERGENCES[activation](student, teacher), counts)
    if student.shape[-1] == 1:
        return {'kd/kl': divergence}
    same = _mean(top1_agreement(student, teacher), counts)
    (student, teacher), counts = _spread(few, counts, student, teacher)
    taus = exact_kendall_tau(student, teacher)
    if counts is not None:
        taus = taus.masked_fill(~counts, torch.nan)
    # nanmean of no number is NaN, which would spoil the mean over processes.
    tau = taus.nanmean().nan_to_num(0.0)
    return {
        # NaN among the logits is no constant row: it must show.
        'kd/tau': torch.where(same.isnan(), same, tau),
        'kd/top1_agreement': same,
        'kd/kl': divergence,
    }


def rows_looked_at(
    number: int, classes: int, pairs: int = PAIRS_PER_STEP
) -> tuple[int, int]:
    """How many rows :func:`agreement` looks at, all of which count.

    Args:
        number: Of rows.
        classes: C.
        pairs: As there.

    Returns:
        The rows of top-1 agreement and KL, and those of tau among them.
    """
    most, few = _bounds(classes, pairs)
    looked = -(-number // _stride(number, most))
    return looked, -(-looked // _stride(looked, few))


def _bounds(classes: int, pairs: int) -> tuple[int, int]:
    """The most rows at all, and the most for tau."""
    return ROWS_PER_STEP, max(pairs // classes**2, 1)


def _stride(number: int, most: int) -> int:
    return max(1, -(-number // most))


def _spread(
    most: int, counts: Tensor | None, *sides: Tensor
) -> tuple[list[Tensor], Tensor | None]:
    """At most so many rows of each side, and which of them count."""
    if counts is None:
        stride = _stride(len(sides[0]), most)
        return [side[::stride] for side in sides], None
    rows, counts = spread_rows(counts.flatten(), most)
    return [side[rows] for side in sides], counts


def _mean(values: Tensor, counts: Tensor | None) -> Tensor:
    if counts is None:
        return values.sum() / max(len(values), 1)
    return values.masked_fill(~counts, 0.0).sum() / counts.sum().clamp(min=1)


def spread_rows(counts: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Rows that count, evenly spread, without asking how many there are.

    Args:
        counts: (N,) bool.
        most: How many rows are wanted at most, >= 1.

    Returns:
        (n,) indices, n the lesser of N and most: every k-th of the rows that
        count, from the first, with k as small as allows; and (n,) bool,
        which of them count: behind the last one the indices are of any row.
    """
    seen = counts.cumsum(0)
    total = seen[-1:]
    stride = ((total + most - 1) // most).clamp(min=1)
    # The number, from 1, of each wanted row among those that count.
    wanted = torch.arange(min(most, len(counts)), device=counts.device)
    number = wanted * stride + 1
    rows = torch.searchsorted(seen, number)
    return rows.clamp(max=len(counts) - 1), number <= total
