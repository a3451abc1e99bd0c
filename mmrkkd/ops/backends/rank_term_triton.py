"""The whole ranking term on a CUDA device, in two Triton kernels.

From raw logits to the weighted term of each row and its gradient at the raw
logits: standardisation with its floor, masks, pairs, weights and the
derivative of the standardisation. The first kernel has a program for TILE
classes of one row, the second one for each row. Both read a row again
where they need its mean and deviation: a row is short and lies in a cache.

Importing this module needs Triton.
"""

import torch
import triton
from torch import Tensor

from .rank_term_kernels import pairs_kernel, rows_kernel

# 2 k times the range of a row, up to which the exponentials and the product
# of two denominators are normal float32 numbers.
NEAR_BOUND = 80.0
# Classes of a row that are read at a time.
MOST_AT_ONCE = 1024
# Up to so many classes: classes of a program, classes a step, warps. With 32
# classes a step each thread has one of them, and TILE / warps classes i.
TILES = (
    (16, 16, 16, 1),
    (128, 32, 32, 2),
    (1 << 31, 64, 32, 4),
)


def rank_term_triton(
    student_logits: Tensor,
    teacher_logits: Tensor,
    kept: Tensor | None,
    chosen: Tensor | None,
    weight: Tensor | None,
    divisor: Tensor | None,
    scale: float,
    steepness: float,
    form: int,
    normalize: bool,
    eps: float,
    floor: float,
    relative: bool,
) -> tuple[Tensor, Tensor]:
    """The terms of all rows and their gradients, in two launches.

    ::

        term_n = scale w_n tau_n / divisor,   0 where w_n is 0

    Args:
        student_logits: (N, C), float32, float16 or bfloat16, on a CUDA
            device.
        teacher_logits: (N, C), any of these types.
        kept: Bool, (C,), at least two True: the classes that exist. None
            for all.
        chosen: Bool, (N, C): the classes that are ranked, after
            normalisation over all that are kept. None for all.
        weight: (N,), >= 0, or None for 1. A row of weight 0 may hold
            anything.
        divisor: A number in a tensor; 0 counts as 1. None for 1.
        scale: Of every term.
        steepness: k > 0.
        form: 1, 2 or 3.
        normalize: Standardise rows over the classes that are kept.
        eps: Added to a deviation.
        floor: The least deviation of the student, 0 for none.
        relative: The floor is times the teacher's deviation.

    Returns:
        (N,) and (N, C), float32. A row that holds NaN or infinity in a
        class that is kept is NaN in both.
    """
    rows, classes = student_logits.shape
    student, teacher = (
        _unit_stride(student_logits),
        _unit_stride(teacher_logits),
    )
    terms = student.new_empty(rows, dtype=torch.float32)
    gradient = student.new_empty(rows, classes, dtype=torch.float32)
    if not rows:
        return terms, gradient
    tile, step, warps = next(
        shape for most, *shape in TILES if classes <= most
    )
    blocks = triton.cdiv(classes, tile)
    at_once = min(triton.next_power_of_2(classes), MOST_AT_ONCE)
    agreement_sums = terms.new_empty(rows, blocks)
    slope_sums = torch.empty_like(gradient)
    # What is None is not read: any pointer will do.
    masks = [
        student if mask is None else mask.contiguous().view(torch.uint8)
        for mask in (kept, chosen)
    ]
    weights = student if weight is None else weight.contiguous()
    limits = torch.finfo(torch.float32)
    shared = dict(
        NORMALIZE=normalize,
        RELATIVE=relative,
        KEPT=kept is not None,
        CHOSEN=chosen is not None,
        WEIGHTED=weight is not None,
        AT_ONCE=at_once,
    )
    with torch.cuda.device_of(student):
        pairs_kernel[(rows, blocks)](
            student,
            teacher,
            *masks,
            weights,
            agreement_sums,
            slope_sums,
            classes,
            student.stride(0),
            teacher.stride(0),
            min(max(2 * steepness, limits.tiny), limits.max),
            eps,
            floor,
            FORM=form,
            NEAR_BOUND=NEAR_BOUND,
            TILE=tile,
            STEP=step,
            num_warps=warps,
            **shared,
        )
        rows_kernel[(rows,)](
            student,
            teacher,
            *masks,
            weights,
            student if divisor is None else divisor,
            agreement_sums,
            slope_sums,
            terms,
            gradient,
            classes,
            blocks,
            student.stride(0),
            teacher.stride(0),
            scale,
            1.0 if form == 2 else 2 * steepness,
            eps,
            floor,
            DIVIDED=divisor is not None,
            BLOCKS=triton.next_power_of_2(blocks),
            **shared,
        )
    return terms, gradient


def _unit_stride(logits: Tensor) -> Tensor:
    """As it is where the classes of a row lie side by side."""
    return logits if logits.stride(1) == 1 else logits.contiguous()
