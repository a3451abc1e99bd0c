"""Soft Kendall's tau on a CUDA device, by a Triton kernel.

One program takes BLOCK_I classes of one row and passes over all classes in
blocks of BLOCK_J, both orders of each pair: the sum for class i is then its
own, without atomic additions, and the same from run to run.

As on the CPU (docs/en/algebra.md), tanh(k (a - b)) is (E_a - E_b) /
(E_a + E_b + 2) with E = expm1(2 k (a - min a)) where the row's range allows
it, and otherwise (1 - e) / (1 + e) with e = exp(-2 k |a - b|). No value is
read back by the host, so a CUDA graph can capture it.

Importing this module needs Triton.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_I = 32
BLOCK_J = 64
# exp(80) and the reciprocal of twice it are normal float32 numbers.
NEAR_BOUND = 80.0


@triton.jit
def tanh_far(difference, twice_k):
    """tanh(k difference) and 1 - tanh^2, both to their last bits."""
    e = tl.exp(-tl.abs(difference * twice_k))
    r = 1 / (1 + e)
    positive = (1 - e) * r
    return tl.where(difference < 0, -positive, positive), 4 * e * r * r


@triton.jit
def _row_block(
    student,
    teacher,
    mask,
    twice_k,
    start,
    i,
    classes,
    NEAR: tl.constexpr,
    FORM: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    """Sums over j of the agreements and slopes of the classes i."""
    counts_i = i < classes
    if MASKED:
        counts_i = counts_i & (
            tl.load(mask + start + i, mask=counts_i, other=0) != 0
        )
    student_i = tl.load(student + start + i, mask=counts_i, other=0)
    teacher_i = tl.load(teacher + start + i, mask=counts_i, other=0)
    agreements = tl.zeros_like(student_i)
    slopes = tl.zeros_like(student_i)
    for first in range(0, classes, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        counts_j = j < classes
        if MASKED:
            counts_j = counts_j & (
                tl.load(mask + start + j, mask=counts_j, other=0) != 0
            )
        student_j = tl.load(student + start + j, mask=counts_j, other=0)
        teacher_j = tl.load(teacher + start + j, mask=counts_j, other=0)
        ds = student_i[:, None] - student_j[None, :]
        dt = teacher_i[:, None] - teacher_j[None, :]
        if FORM == 2:
            # ds and dt may be infinite, where a tie times them would be NaN.
            product = tl.where((ds == 0) | (dt == 0), 0, ds * dt)
            agreement, slope = tanh_far(product, twice_k)
            slope = tl.where(slope == 0, 0, slope * (dt * twice_k))
        else:
            if NEAR:
                p = ds / (student_i[:, None] + student_j[None, :] + 2)
                flatness = 1 - p * p
            else:
                p, flatness = tanh_far(ds, twice_k)
            if FORM == 3:
                q = (dt > 0).to(p.dtype) - (dt < 0).to(p.dtype)
            elif NEAR:
                q = dt / (teacher_i[:, None] + teacher_j[None, :] + 2)
            else:
                q, _ = tanh_far(dt, twice_k)
            agreement = p * q
            slope = flatness * q
        both = counts_i[:, None] & counts_j[None, :]
        agreements += tl.sum(tl.where(both, agreement, 0), axis=1)
        slopes += tl.sum(tl.where(both, slope, 0), axis=1)
    return agreements, slopes


@triton.jit
def _kendall_tau_kernel(
    student,
    teacher,
    student_e,
    teacher_e,
    mask,
    near,
    twice_k,
    agreement_sums,
    slope_sums,
    classes,
    FORM: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)
    start = row * classes
    k = tl.load(twice_k)
    if tl.load(near + row) != 0:
        agreements, slopes = _row_block(
            student_e,
            teacher_e,
            mask,
            k,
            start,
            i,
            classes,
            True,
            FORM,
            MASKED,
            BLOCK_I,
            BLOCK_J,
        )
    else:
        agreements, slopes = _row_block(
            student,
            teacher,
            mask,
            k,
            start,
            i,
            classes,
            False,
            FORM,
            MASKED,
            BLOCK_I,
            BLOCK_J,
        )
    tl.store(agreement_sums + start + i, agreements, mask=i < classes)
    tl.store(slope_sums + start + i, slopes, mask=i < classes)


def kendall_tau_triton(
    student_logits: Tensor,
    teacher_logits: Tensor,
    class_mask: Tensor | None,
    steepness: float,
    form: int,
) -> tuple[Tensor, Tensor]:
    """tau of each row and its gradient; O(N C) memory.

    Args:
        student_logits: (N, C), float32 or float64, on a CUDA device.
        teacher_logits: (N, C), same dtype.
        class_mask: Bool, (N, C), or None.
        steepness: k > 0.
        form: 1, 2 or 3.

    Returns:
        tau, (N,), and d tau / d student_logits, (N, C). A row that holds
        NaN or infinity in a class that counts is NaN in both.
    """
    rows, classes = student_logits.shape
    used, mask = None, student_logits
    if class_mask is not None:
        used = class_mask
        mask = class_mask.contiguous().view(torch.uint8)
    student = _finite(student_logits, used)
    teacher = _finite(teacher_logits, used)
    student_e, near = _exponentials(student, used, steepness)
    if form == 1:
        teacher_e, teacher_near = _exponentials(teacher, used, steepness)
        near = near & teacher_near
    else:
        teacher_e = teacher
        near = near & (form == 3)
    agreements = torch.empty_like(student)
    slopes = torch.empty_like(student)
    limits = torch.finfo(student.dtype)
    twice_k = torch.full_like(
        student[:0].sum(), min(max(2 * steepness, limits.tiny), limits.max)
    )
    if rows:
        with torch.cuda.device_of(student):
            _kendall_tau_kernel[(rows, triton.cdiv(classes, BLOCK_I))](
                student,
                teacher,
                student_e,
                teacher_e,
                mask,
                near.to(torch.uint8),
                twice_k,
                agreements,
                slopes,
                classes,
                FORM=form,
                MASKED=class_mask is not None,
                BLOCK_I=BLOCK_I,
                BLOCK_J=BLOCK_J,
            )
    return _scaled(
        student_logits,
        teacher_logits,
        used,
        agreements,
        slopes,
        1.0 if form == 2 else 2 * steepness,
    )


def _finite(logits: Tensor, used: Tensor | None) -> Tensor:
    """Contiguous, with 0 for what does not count or is not finite."""
    keep = torch.isfinite(logits)
    if used is not None:
        keep = keep & used
    return torch.where(keep, logits, 0).contiguous()


def _exponentials(
    values: Tensor, used: Tensor | None, steepness: float
) -> tuple[Tensor, Tensor]:
    """E of each value, and whether the row's range allows it.

    In float64, because exp multiplies the rounding of its argument by the
    argument. A class that does not count holds 0, which may only widen the
    range.
    """
    wide = values.double()
    lowest = wide.amin(-1, keepdim=True)
    exponents = 2 * steepness * (wide - lowest)
    near = exponents.amax(-1) <= NEAR_BOUND
    return torch.expm1(exponents.clamp(max=NEAR_BOUND)).to(values.dtype), near


def _scaled(
    student: Tensor,
    teacher: Tensor,
    used: Tensor | None,
    agreements: Tensor,
    slopes: Tensor,
    factor: float,
) -> tuple[Tensor, Tensor]:
    spoiled = ~(torch.isfinite(student) & torch.isfinite(teacher))
    if used is None:
        chosen = torch.full_like(agreements[:, 0], student.shape[-1])
    else:
        spoiled = spoiled & used
        chosen = used.sum(-1)
    chosen = chosen.double()
    ordered_pairs = (chosen * (chosen - 1)).clamp(min=1)
    spoiled = spoiled.any(-1)
    tau = agreements.sum(-1, dtype=torch.float64) / ordered_pairs
    gradient = slopes * (factor / ordered_pairs).to(slopes.dtype).unsqueeze(-1)
    return (
        tau.to(student.dtype).masked_fill(spoiled, torch.nan),
        gradient.masked_fill(spoiled.unsqueeze(-1), torch.nan),
    )
