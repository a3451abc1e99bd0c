"""What the log says about how well the student follows its teacher."""

import torch
from torch import Tensor

from mmrkkd.ops import (
    binary_kl_divergence,
    exact_kendall_tau,
    kl_divergence,
    top1_agreement,
)

# Exact tau looks at every pair of classes of a row: this many pairs a step
# bound its cost, and few rows are left of a thousand classes.
PAIRS_PER_STEP = 2**21
ROWS_PER_STEP = 256
DIVERGENCES = dict(softmax=kl_divergence, sigmoid=binary_kl_divergence)


@torch.no_grad()
def agreement(
    student_logits: Tensor,
    teacher_logits: Tensor,
    every_row: bool = False,
    activation: str = 'softmax',
    counts: Tensor | None = None,
) -> dict[str, Tensor]:
    """Agreement of two sets of logits, as means over the rows.

    Args:
        student_logits: (..., C); leading dimensions are rows.
        teacher_logits: Same shape.
        every_row: Look at every row. By default at most 256 rows, evenly
            spread, so that the cost of a step is bounded.
        activation: Of the logits, 'softmax' or 'sigmoid'. Defaults to
            'softmax'.
        counts: (...) bool, the rows that count; a GPU is not waited for.
            Defaults to None, all.

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
    most = max(len(student), 1)
    if not every_row:
        rows = PAIRS_PER_STEP // student.shape[-1] ** 2
        most = min(max(rows, 1), ROWS_PER_STEP, most)
    if counts is None:
        stride = max(1, -(-len(student) // most))
        student, teacher = student[::stride], teacher[::stride]
        number = max(len(student), 1)
    else:
        rows, counts = spread_rows(counts.flatten(), most)
        student, teacher = student[rows], teacher[rows]
        number = counts.sum().clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        if counts is not None:
            values = values.masked_fill(~counts, 0.0)
        return values.sum() / number

    divergence = mean(DIVERGENCES[activation](student, teacher))
    if student.shape[-1] == 1:
        return {'kd/kl': divergence}
    same = mean(top1_agreement(student, teacher))
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
