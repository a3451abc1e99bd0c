"""Exact measures of agreement between two sets of logits, for telemetry."""

import torch
from torch import Tensor

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
        constant is NaN, as nothing is ranked there.

    Raises:
        TypeError: an input is not a floating point tensor.
        ValueError: variant is neither 'a' nor 'b', or the shapes differ.

    Source: M. G. Kendall, "The treatment of ties in ranking problems",
        Biometrika 33 (1945).
    """
    check_choice('variant', variant, ('a', 'b'))
    check_logits(student_logits, teacher_logits)
    classes = student_logits.shape[-1]
    students = student_logits.reshape(-1, classes)
    teachers = teacher_logits.reshape(-1, classes)
    rows = max(1, PAIRS_AT_ONCE // (classes * classes))
    taus = [
        _tau_of_rows(student, teacher, variant)
        for student, teacher in zip(
            students.split(rows), teachers.split(rows), strict=True
        )
    ]
    if not taus:
        return student_logits.new_zeros(student_logits.shape[:-1]).float()
    return torch.cat(taus).reshape(student_logits.shape[:-1])


def _tau_of_rows(student: Tensor, teacher: Tensor, variant: str) -> Tensor:
    # Comparisons, not differences: two close numbers may differ by less
    # than the smallest float, and huge ones by more than the largest.
    student_signs = _pair_signs(student)
    teacher_signs = _pair_signs(teacher)
    # Both triangles are counted, so every sum is twice its definition.
    agreement = (student_signs * teacher_signs).sum((-2, -1)).float()
    classes = student.shape[-1]
    if variant == 'a':
        return agreement / (classes * (classes - 1))
    student_untied = student_signs.abs().sum((-2, -1)).float()
    teacher_untied = teacher_signs.abs().sum((-2, -1)).float()
    return agreement / (student_untied.sqrt() * teacher_untied.sqrt())


def _pair_signs(values: Tensor) -> Tensor:
    left, right = values.unsqueeze(-1), values.unsqueeze(-2)
    return (left > right).to(torch.int8) - (left < right).to(torch.int8)


@torch.no_grad()
def top1_agreement(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Whether both sides put the same class first; (..., C) -> (...), 0/1."""
    return (student_logits.argmax(-1) == teacher_logits.argmax(-1)).float()
