"""The pairwise equation of soft Kendall's tau, written as it is read.

This file is the oracle for every faster path: it favours being evidently
right. It keeps a few tensors of size (rows, C, C) at a time.
"""

import torch
from torch import Tensor


def pairwise_differences(values: Tensor) -> Tensor:
    """All differences ``d[..., i, j] = values[..., i] - values[..., j]``.

    A difference of two huge finite values overflows to infinity; it is
    brought back to the largest finite number, because infinity times the
    zero of a tied pair would be NaN. NaN stays NaN.

    Args:
        values: (..., C).

    Returns:
        (..., C, C), finite wherever ``values`` is.
    """
    largest = torch.finfo(values.dtype).max
    differences = values.unsqueeze(-1) - values.unsqueeze(-2)
    return differences.clamp(-largest, largest)


def concordance(
    student_logits: Tensor, teacher_logits: Tensor, steepness: float, form: int
) -> Tensor:
    """How much each ordered pair (i, j) agrees, in [-1, 1].

    With ``ds = s_i - s_j`` and ``dt = t_i - t_j``::

        form 1:  tanh(k ds) tanh(k dt)
        form 2:  tanh(k ds dt)
        form 3:  tanh(k ds) sign(dt)

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        steepness: k > 0.
        form: 1, 2 or 3.

    Returns:
        (..., C, C), symmetric, with a zero diagonal.

    Source: Guan et al., arXiv:2409.17823, eq. 15, 16 and 17.
    """
    student = pairwise_differences(student_logits)
    teacher = pairwise_differences(teacher_logits)
    if form == 1:
        return torch.tanh(steepness * student) * torch.tanh(
            steepness * teacher
        )
    if form == 2:
        # The differences first: their product may reach infinity, where
        # tanh is 1, but a zero difference makes it 0 for every steepness.
        return torch.tanh(steepness * (student * teacher))
    return torch.tanh(steepness * student) * torch.sign(teacher)


def kendall_tau_eager(
    student_logits: Tensor,
    teacher_logits: Tensor,
    steepness: float,
    form: int,
    class_mask: Tensor | None,
) -> Tensor:
    """Soft Kendall's tau by autograd; see :func:`mmrkkd.ops.kendall_tau`.

    The two triangles of the pair matrix are equal, so the mean over
    ``i < j`` is the mean over all ``i != j``::

        tau = sum_{i != j} concordance_ij / (m (m - 1))

    Args:
        student_logits: (..., C), float32 or float64.
        teacher_logits: (..., C), same dtype, without gradient.
        steepness: k > 0.
        form: 1, 2 or 3.
        class_mask: bool, (..., C): the m classes that count in each row.

    Returns:
        tau, (...). A row with fewer than two classes has no pair and gives 0.
    """
    if class_mask is None:
        classes = student_logits.shape[-1]
        pairs = classes * (classes - 1)
        agreement = concordance(
            student_logits, teacher_logits, steepness, form
        )
        return agreement.sum((-2, -1)) / pairs
    # A class that does not count may hold anything, infinity included. Cut
    # it out before the arithmetic: 0 * NaN in the backward pass is NaN.
    student_logits = student_logits.masked_fill(~class_mask, 0)
    teacher_logits = teacher_logits.masked_fill(~class_mask, 0)
    agreement = concordance(student_logits, teacher_logits, steepness, form)
    counts = class_mask.unsqueeze(-1) & class_mask.unsqueeze(-2)
    classes = class_mask.sum(-1)
    pairs = (classes * (classes - 1)).clamp(min=1)
    return agreement.masked_fill(~counts, 0).sum((-2, -1)) / pairs
