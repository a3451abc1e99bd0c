"""Exact measures of agreement between two sets of logits, for telemetry."""

from math import nan

import torch
from torch import Tensor

from .backends.cpu.kendall_tau_native import pair_counts_native
from .backends.cpu.native_library import native_library
from .checks import check_choice, check_logits

# Pair signs held at a time: 2**22 int8 values a side are 4 MiB.
PAIRS_AT_ONCE = 2**22


@torch.no_grad()
def exact_kendall_tau(
    student_logits: Tensor, teacher_logits: Tensor, variant: str = 'b'
) -> Tensor:
    """Kendall's rank correlation, exact and not differentiable.

    With P concordant and Q discordant pairs of the C (C - 1) / 2, and
    S and T pairs untied in the student and in the teacher::

        tau-a = (P - Q) / (C (C - 1) / 2)
        tau-b = (P - Q) / sqrt(S T)

    Args:
        student_logits: (..., C), C >= 2.
        teacher_logits: Same shape and device.
        variant: 'a' or 'b'. Defaults to 'b', which is SciPy's default.

    Returns:
        (...), float32, in [-1, 1]. tau-b of a row in which either side is
        constant is NaN, as nothing is ranked there. A row that holds NaN
        on either side is NaN; infinities have their place in the order.

    Raises:
        TypeError: an input is not a floating point tensor.
        ValueError: variant is neither 'a' nor 'b', or the shapes differ.

    Source: M. G. Kendall, "The treatment of ties in ranking problems",
        Biometrika 33 (1945).
    """
    check_choice('variant', variant, ('a', 'b'))
    check_logits(student_logits, teacher_logits)
    classes = student_logits.shape[-1]
    agreement, student_untied, teacher_untied = (
        torch.ops.mmrkkd.pair_counts(
            student_logits.reshape(-1, classes),
            teacher_logits.reshape(-1, classes),
        )
        .float()
        .unbind(-1)
    )
    if variant == 'a':
        taus = agreement / (classes * (classes - 1) / 2)
    else:
        taus = agreement / (student_untied.sqrt() * teacher_untied.sqrt())
        # The square of a rounded root may be below the number.
        taus = taus.clamp(-1, 1)
    taus = taus.reshape(student_logits.shape[:-1])
    return taus.masked_fill(_hold_nan(student_logits, teacher_logits), nan)


def pair_counts_torch(student: Tensor, teacher: Tensor) -> Tensor:
    """Counts of pairs i < j of each row, by blocks of rows, or of classes.

    Args:
        student: (N, C).
        teacher: (N, C).

    Returns:
        (N, 3), int64: concordant minus discordant pairs, pairs untied in
        the student, pairs untied in the teacher.
    """
    classes = student.shape[-1]
    rows = max(1, PAIRS_AT_ONCE // (classes * classes))
    counts = [
        _counts_of_rows(some, others)
        for some, others in zip(
            student.split(rows), teacher.split(rows), strict=True
        )
    ]
    return torch.cat(counts)


def _counts_of_rows(student: Tensor, teacher: Tensor) -> Tensor:
    # Of very many classes a part at a time beside all.
    part = max(1, PAIRS_AT_ONCE // max(student.numel(), 1))
    both_triangles = sum(
        _counts_of_part(*some, student, teacher)
        for some in zip(
            student.split(part, -1), teacher.split(part, -1), strict=True
        )
    )
    return both_triangles // 2


def _counts_of_part(
    student_part: Tensor,
    teacher_part: Tensor,
    student: Tensor,
    teacher: Tensor,
) -> Tensor:
    # Comparisons, not differences: two close numbers may differ by less
    # than the smallest float, and huge ones by more than the largest.
    student_signs = _pair_signs(student_part, student)
    teacher_signs = _pair_signs(teacher_part, teacher)
    return torch.stack(
        [
            signs.sum((-2, -1))
            for signs in (
                student_signs * teacher_signs,
                student_signs.abs(),
                teacher_signs.abs(),
            )
        ],
        dim=-1,
    )


def _pair_counts_cpu(student: Tensor, teacher: Tensor) -> Tensor:
    # The C code compares float32, which holds both 16-bit types exactly.
    doubles = torch.float64 in (student.dtype, teacher.dtype)
    if doubles or native_library() is None:
        return pair_counts_torch(student, teacher)
    return pair_counts_native(student.float(), teacher.float())


def _pair_counts_meta(student: Tensor, teacher: Tensor) -> Tensor:
    return student.new_empty((len(student), 3), dtype=torch.int64)


_LIBRARY = torch.library.Library('mmrkkd', 'FRAGMENT')
_LIBRARY.define('pair_counts(Tensor student, Tensor teacher) -> Tensor')
_LIBRARY.impl('pair_counts', pair_counts_torch, 'CompositeExplicitAutograd')
_LIBRARY.impl('pair_counts', _pair_counts_cpu, 'CPU')
_LIBRARY.impl('pair_counts', _pair_counts_meta, 'Meta')


def _pair_signs(left: Tensor, right: Tensor) -> Tensor:
    left, right = left.unsqueeze(-1), right.unsqueeze(-2)
    return (left > right).to(torch.int8) - (left < right).to(torch.int8)


@torch.no_grad()
def top1_agreement(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Whether both sides put the same class first; (..., C) -> (...), 0/1.

    A row that holds NaN on either side is NaN.
    """
    same = (student_logits.argmax(-1) == teacher_logits.argmax(-1)).float()
    return same.masked_fill(_hold_nan(student_logits, teacher_logits), nan)


def _hold_nan(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Which rows do, (...): NaN compares as equal to everything."""
    return (student_logits.isnan() | teacher_logits.isnan()).any(-1)
