"""Soft Kendall's tau in bounded memory with plain tensor operations.

The fallback where there is neither a C compiler nor Triton. It computes
what autograd would, a block of pairs at a time, with the gradient made
beside the value so that nothing of size C^2 outlives its block.
"""

import torch
from torch import Tensor

# Pairs held at a time; about five tensors of this size live at once, so in
# float32 the CPU needs 20 MB and an accelerator 320 MB.
PAIRS_ON_CPU = 2**20
PAIRS_ON_ACCELERATOR = 2**24


def kendall_tau_chunked(
    student_logits: Tensor,
    teacher_logits: Tensor,
    class_mask: Tensor | None,
    steepness: float,
    form: int,
) -> tuple[Tensor, Tensor]:
    """tau of each row and its gradient.

    Args:
        student_logits: (N, C), float32 or float64.
        teacher_logits: (N, C), same dtype.
        class_mask: Bool, (N, C), or None.
        steepness: k > 0.
        form: 1, 2 or 3.

    Returns:
        tau, (N,), and d tau / d student_logits, (N, C).
    """
    rows, classes = student_logits.shape
    tau = student_logits.new_zeros(rows)
    gradient = torch.zeros_like(student_logits)
    if class_mask is None:
        chosen = classes
    else:
        chosen = class_mask.sum(-1)
        student_logits = student_logits.masked_fill(~class_mask, 0)
        teacher_logits = teacher_logits.masked_fill(~class_mask, 0)
    on_cpu = student_logits.device.type == 'cpu'
    pairs = PAIRS_ON_CPU if on_cpu else PAIRS_ON_ACCELERATOR
    rows_at_once = max(1, pairs // classes**2)
    classes_at_once = max(1, min(classes, pairs // classes))
    for row in range(0, rows, rows_at_once):
        some = slice(row, row + rows_at_once)
        for first in range(0, classes, classes_at_once):
            left = slice(first, first + classes_at_once)
            agreement, slope = _block(
                student_logits[some],
                teacher_logits[some],
                left,
                steepness,
                form,
            )
            if class_mask is not None:
                counts = (
                    class_mask[some, left, None] & class_mask[some, None, :]
                )
                agreement.masked_fill_(~counts, 0)
                slope.masked_fill_(~counts, 0)
            tau[some] += agreement.sum((-2, -1))
            gradient[some, left] = slope.sum(-1)
    factor = 2.0 if form == 2 else 2 * steepness
    ordered_pairs = chosen * (chosen - 1)
    if class_mask is None:
        return tau / ordered_pairs, gradient * (factor / ordered_pairs)
    # In the type of the logits: a number over integers would be float32.
    ordered_pairs = ordered_pairs.clamp(min=1).to(gradient.dtype)
    return tau / ordered_pairs, gradient * (factor / ordered_pairs).unsqueeze(
        -1
    )


def _block(
    student: Tensor, teacher: Tensor, left: slice, steepness: float, form: int
) -> tuple[Tensor, Tensor]:
    """Agreements of classes ``left`` with all, and their slopes.

    The slopes are d agreement_ij / d s_i, over k but for form 2.
    """
    ds, dt = _differences(student, left), _differences(teacher, left)
    if form == 2:
        agreement = (ds * dt).mul_(steepness).tanh_()
        # k now, not after the sum: a sum of huge dt would overflow.
        slope = dt.mul_(steepness)
    else:
        agreement = ds.mul_(steepness).tanh_()
        slope = dt.sign_() if form == 3 else dt.mul_(steepness).tanh_()
    flatness = 1 - agreement * agreement
    if form != 2:
        agreement.mul_(slope)
    return agreement, slope.mul_(flatness)


def _differences(values: Tensor, left: slice) -> Tensor:
    # Finite, as in the eager form: infinity times a tie would be NaN.
    largest = torch.finfo(values.dtype).max
    differences = values[:, left, None] - values[:, None, :]
    return differences.clamp_(-largest, largest)
