"""Soft Kendall's tau in time near-linear in the classes, for large C.

With x = k s and y = k t, tanh(x_i - x_j) on the interval that the x fill is
a short sum of products, with T_m Chebyshev's polynomials of x scaled to
[-1, 1] and likewise for y::

    tanh(x_i - x_j) ~ sum_{m, n} M_mn T_m(x_i) T_n(x_j)
    sech^2(x_i - x_j) ~ sum_{m, n} D_mn T_m(x_i) T_n(x_j)

so that all pairs are reached through one matrix of degree x degree::

    P = sum_j T(x_j) T(y_j)^T
    sum_ij tanh(x_i - x_j) tanh(y_i - y_j)   = < M P M'^T, P >
    sum_j sech^2(x_i - x_j) tanh(y_i - y_j)  = T(x_i)^T D P M'^T T(y_i)

Two products of (degree, C) matrices a row replace C^2 / 2 pairs: at
C = 21,841 and degree 48, some 40 times less arithmetic. The degree grows
with the range of x and not with C. A gap between two neighbours in the
sorted x that is wider than GAP is narrowed to it, which changes no tanh
across it by more than 4e-8, so that outliers do not widen the range.
"""

import functools
import math

import torch
from torch import Tensor

# |tau error|, and |gradient error| over 2 k / C, that the degree is chosen
# for; tests hold it to these on float32 logits.
TOLERANCE = 2e-6
GAP = 9.0
# With fewer, all pairs are less work than the polynomials, whose rounding in
# float32 weighs more the fewer classes share it.
LEAST_CLASSES = 128
# Ranges of x beyond what this degree resolves are left to the exact path.
LARGEST_DEGREE = 320
# Values of T held at a time.
VALUES_AT_ONCE = 2**20


def kendall_tau_approx(
    student_logits: Tensor,
    teacher_logits: Tensor,
    class_mask: Tensor | None,
    steepness: float,
    form: int,
) -> tuple[Tensor, Tensor]:
    """tau of each row and its gradient, to TOLERANCE.

    Rows of fewer than LEAST_CLASSES classes, and those too wide for a short
    sum (k times the sum of the gaps, each at most GAP, above about 67), are
    computed exactly instead.

    Args:
        student_logits: (N, C), float32 or float64.
        teacher_logits: (N, C), same dtype.
        class_mask: Bool, (N, C), or None.
        steepness: k > 0.
        form: 1 or 3.

    Returns:
        tau, (N,), and d tau / d student_logits, (N, C).
    """
    if class_mask is None:
        class_mask = torch.ones_like(student_logits, dtype=torch.bool)
    finite = torch.isfinite(student_logits) & torch.isfinite(teacher_logits)
    spoiled = (class_mask & ~finite).any(-1)
    used = class_mask & ~spoiled.unsqueeze(-1)
    student, student_range = _positions(student_logits, used, steepness)
    if form == 1:
        teacher, teacher_range = _positions(teacher_logits, used, steepness)
        widest = torch.maximum(student_range, teacher_range)
    else:
        # Only the signs count: a sum of gaps would lose the smallest ones.
        teacher = teacher_logits.masked_fill(~used, 0)
        widest = teacher_range = student_range
    narrow = (widest <= _range_of_degree(LARGEST_DEGREE)) & (
        used.sum(-1) >= LEAST_CLASSES
    )
    tau = student_logits.new_zeros(len(student_logits))
    gradient = torch.zeros_like(student_logits)
    (rows,) = torch.nonzero(narrow, as_tuple=True)
    if len(rows):
        tau[rows], gradient[rows] = _narrow_rows(
            student[rows],
            teacher[rows],
            used[rows],
            steepness,
            form,
            student_range[rows].max().item(),
            teacher_range[rows].max().item(),
            tau.dtype,
        )
    (rows,) = torch.nonzero(~narrow, as_tuple=True)
    if len(rows):
        tau[rows], gradient[rows] = torch.ops.mmrkkd.kendall_tau(
            student_logits[rows],
            teacher_logits[rows],
            class_mask[rows],
            steepness,
            form,
        )
    tau = tau.masked_fill(spoiled, torch.nan)
    return tau, gradient.masked_fill(
        spoiled.unsqueeze(-1) & class_mask, torch.nan
    )


def _positions(
    logits: Tensor, used: Tensor, steepness: float
) -> tuple[Tensor, Tensor]:
    """k times the logits with wide gaps narrowed, from 0; their range.

    Classes that do not count are put where the lowest one that does is.
    """
    lowest = logits.masked_fill(~used, torch.inf).amin(-1, keepdim=True)
    lowest = torch.where(lowest.isinf(), 0, lowest)
    values, order = torch.where(used, logits, lowest).sort(-1)
    gaps = values.double().diff(dim=-1, prepend=values[:, :1].double())
    places = (steepness * gaps).clamp_(max=GAP).cumsum(-1)
    positions = torch.empty_like(places).scatter_(-1, order, places)
    return positions, places[:, -1]


def _narrow_rows(
    student: Tensor,
    teacher: Tensor,
    used: Tensor,
    steepness: float,
    form: int,
    student_range: float,
    teacher_range: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    rows, classes = student.shape
    degree = _degree(student_range)
    if form == 1:
        degree = max(degree, _degree(teacher_range))
    at_once = max(1, VALUES_AT_ONCE // (classes * degree))
    taus, slopes = [], []
    for row in range(0, rows, at_once):
        some = slice(row, row + at_once)
        basis = _basis(student[some], student_range, degree)
        basis *= used[some].unsqueeze(1)
        kernels = _kernels(degree, student_range, student.device)
        if form == 1:
            tau, slope = _smooth(
                basis,
                kernels,
                teacher[some],
                used[some],
                teacher_range,
                degree,
            )
        else:
            tau, slope = _signs(basis, kernels, teacher[some], used[some])
        taus.append(tau)
        slopes.append(slope)
    chosen = used.sum(-1).double()
    ordered_pairs = (chosen * (chosen - 1)).clamp(min=1)
    factor = (2 * steepness / ordered_pairs).unsqueeze(-1)
    return (
        (torch.cat(taus).double() / ordered_pairs).to(dtype),
        (torch.cat(slopes).double() * factor).to(dtype),
    )


def _smooth(
    basis: Tensor,
    kernels: tuple[Tensor, Tensor],
    teacher: Tensor,
    used: Tensor,
    teacher_range: float,
    degree: int,
) -> tuple[Tensor, Tensor]:
    """Form 1: sums over all ordered pairs, (n,) and (n, C)."""
    step, bump = kernels
    teacher_step, _ = _kernels(degree, teacher_range, teacher.device)
    teacher_basis = _basis(teacher, teacher_range, degree)
    teacher_basis *= used.unsqueeze(1)
    moments = basis @ teacher_basis.mT
    half = moments @ teacher_step.mT
    tau = (step @ half * moments).sum((-2, -1))
    slope = ((bump @ half).mT @ basis * teacher_basis).sum(-2)
    return tau, slope


def _signs(
    basis: Tensor,
    kernels: tuple[Tensor, Tensor],
    teacher: Tensor,
    used: Tensor,
) -> tuple[Tensor, Tensor]:
    """Form 3: prefix sums in the teacher's order instead of a kernel."""
    step, bump = kernels
    values, order = teacher.sort(-1)
    index = order.unsqueeze(1).expand_as(basis)
    below = basis.gather(-1, index).double().cumsum(-1)
    below = torch.nn.functional.pad(below, (1, 0))
    first = torch.searchsorted(values, teacher.contiguous())
    last = torch.searchsorted(values, teacher.contiguous(), right=True)
    signed = (
        below.gather(-1, first.unsqueeze(1).expand_as(basis))
        + below.gather(-1, last.unsqueeze(1).expand_as(basis))
        - below[..., -1:]
    ).to(basis.dtype)
    tau = (step @ signed * basis).sum((-2, -1))
    slope = (bump @ signed * basis).sum(-2)
    return tau, slope * used


def _basis(positions: Tensor, width: float, degree: int) -> Tensor:
    """T_0 ... T_(degree - 1) at positions in [0, width]; (n, degree, C)."""
    # Where no row has a range, every position is 0.
    angles = 2 * positions / (width or 1.0) - 1
    angles = angles.clamp_(-1, 1).arccos_().float()
    orders = torch.arange(degree, device=positions.device).unsqueeze(-1)
    return (orders * angles.unsqueeze(1)).cos_()


@functools.lru_cache(maxsize=16)
def _kernels(
    degree: int, width: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """M and D: Chebyshev coefficients of tanh and sech^2 of x_i - x_j."""
    angles = (torch.arange(degree, dtype=torch.float64) + 0.5) * (
        math.pi / degree
    )
    nodes = width / 2 * angles.cos()
    step = torch.tanh(nodes.unsqueeze(-1) - nodes)
    transform = torch.cos(torch.arange(degree).unsqueeze(-1) * angles) * (
        2 / degree
    )
    transform[0] /= 2
    return tuple(
        (transform @ kernel @ transform.mT).float().to(device)
        for kernel in (step, 1 - step**2)
    )


def _degree(width: float) -> int:
    """How many polynomials resolve tanh on an interval of this width.

    tanh has its nearest poles at a distance of pi / 2 from the real axis,
    so its coefficients fall off as (a + sqrt(1 + a^2))^-m with
    a = pi / width.
    """
    decay = math.asinh(math.pi / max(width, 1e-3))
    # A multiple of 8 suits matrix products, and repeats from step to step.
    return 8 * math.ceil((math.log(2 / TOLERANCE) / decay + 4) / 8)


def _range_of_degree(degree: int) -> float:
    """The inverse of _degree."""
    return math.pi / math.sinh(math.log(2 / TOLERANCE) / (degree - 4))
