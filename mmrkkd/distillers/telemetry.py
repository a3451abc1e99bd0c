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
) -> dict[str, Tensor]:
    """Agreement of two sets of logits, as means over the rows.

    Args:
        student_logits: (..., C); leading dimensions are rows.
        teacher_logits: Same shape.
        every_row: Look at every row. By default at most 256 rows, evenly
            spread, so that the cost of a step is bounded.
        activation: Of the logits, 'softmax' or 'sigmoid'. Defaults to
            'softmax'.

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
    if not every_row:
        rows = PAIRS_PER_STEP // student.shape[-1] ** 2
        rows = min(max(rows, 1), ROWS_PER_STEP)
        stride = max(1, -(-len(student) // rows))
        student, teacher = student[::stride], teacher[::stride]
    count = max(len(student), 1)
    divergence = DIVERGENCES[activation](student, teacher).sum() / count
    if student.shape[-1] == 1:
        return {'kd/kl': divergence}
    same = top1_agreement(student, teacher).sum() / count
    # nanmean of no number is NaN, which would spoil the mean over processes.
    tau = exact_kendall_tau(student, teacher).nanmean().nan_to_num(0.0)
    return {
        # NaN among the logits is no constant row: it must show.
        'kd/tau': torch.where(same.isnan(), same, tau),
        'kd/top1_agreement': same,
        'kd/kl': divergence,
    }
