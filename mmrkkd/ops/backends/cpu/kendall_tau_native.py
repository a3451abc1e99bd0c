"""Soft Kendall's tau on the CPU by the C code beside it."""

import ctypes

import torch
from torch import Tensor

from .native_library import native_library

# Below 100 us of work, at 0.25 ns a float32 pair, one thread does.
PAIRS_WORTH_THREADS = 400_000


def threads_for(pairs: int) -> int:
    """One thread, or all of PyTorch's: an OpenMP team changes size slowly."""
    return torch.get_num_threads() if pairs > PAIRS_WORTH_THREADS else 1


def kendall_tau_native(
    student_logits: Tensor,
    teacher_logits: Tensor,
    class_mask: Tensor | None,
    steepness: float,
    form: int,
) -> tuple[Tensor, Tensor]:
    """tau of each row and its gradient, O(C) memory beside the two.

    Each pair i < j is visited once and its part of the gradient made at
    once. docs/en/algebra.md has the formulae and their error bounds.

    Args:
        student_logits: (N, C), float32 or float64, on the CPU.
        teacher_logits: (N, C), same dtype.
        class_mask: Bool, (N, C), or None.
        steepness: k > 0.
        form: 1, 2 or 3.

    Returns:
        tau, (N,), and d tau / d student_logits, (N, C). A row that holds
        NaN or infinity in a class that counts is NaN in both.

    Raises:
        MemoryError: there is none for a row's workspace.
    """
    student_logits = student_logits.contiguous()
    teacher_logits = teacher_logits.contiguous()
    if class_mask is not None:
        class_mask = class_mask.contiguous()
    rows, classes = student_logits.shape
    tau = student_logits.new_empty(rows)
    gradient = torch.empty_like(student_logits)
    kind = 'float' if student_logits.dtype == torch.float32 else 'double'
    function = getattr(native_library(), f'mmrkkd_kendall_tau_{kind}')
    failed = function(
        _pointer(student_logits),
        _pointer(teacher_logits),
        _pointer(class_mask),
        _pointer(tau),
        _pointer(gradient),
        ctypes.c_int64(rows),
        ctypes.c_int64(classes),
        ctypes.c_double(steepness),
        ctypes.c_int(form),
        ctypes.c_int64(threads_for(rows * classes * classes // 2)),
    )
    if failed:
        raise MemoryError(f'no memory for the workspace of {classes} classes')
    return tau, gradient


def pair_counts_native(
    student_logits: Tensor, teacher_logits: Tensor
) -> Tensor:
    """Counts of pairs i < j of each row.

    Args:
        student_logits: (N, C), float32, on the CPU.
        teacher_logits: (N, C), float32.

    Returns:
        (N, 3), int64: concordant minus discordant pairs, pairs untied in
        the student, pairs untied in the teacher.
    """
    student_logits = student_logits.contiguous()
    teacher_logits = teacher_logits.contiguous()
    rows, classes = student_logits.shape
    counts = student_logits.new_empty((rows, 3), dtype=torch.int64)
    failed = native_library().mmrkkd_pair_counts(
        _pointer(student_logits),
        _pointer(teacher_logits),
        _pointer(counts),
        ctypes.c_int64(rows),
        ctypes.c_int64(classes),
        ctypes.c_int64(threads_for(rows * classes * classes // 2)),
    )
    if failed:
        raise MemoryError(f'no memory for the workspace of {classes} classes')
    return counts


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
