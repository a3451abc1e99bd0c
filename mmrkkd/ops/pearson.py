"""Pearson's correlation, defined where nothing varies."""

import torch
from torch import Tensor

from .backends.autograd import with_slopes
from .backends.native_rows import paired_rows
from .rows import flatness_and_scale


def pearson(
    student: Tensor, teacher: Tensor, dim: int = -1, eps: float = 1e-8
) -> Tensor:
    """Pearson's correlation along a dimension.

    With s and t the values minus their mean::

        pearson = s . t / (|s| |t| + eps)

    Where the values of either side differ by rounding only (max - min
    within four units in the last place of the largest magnitude, as in
    :func:`standardize`) nothing can be correlated: the result is 0 and its
    gradient is 0. Dividing by eps would make noise of 1e8.

    Args:
        student: Any shape with at least 1 entry along ``dim``, float32 or
            float64. Gets gradient.
        teacher: Same shape. Gets gradient too.
        dim: The dimension that is correlated. Defaults to -1.
        eps: Added to the product of the norms, in the unit of
            student * teacher. It damps rows of norms near its root.
            Defaults to 1e-8.

    Returns:
        The shape without ``dim``, in [-1, 1] up to rounding,
        dimensionless; NaN where an entry is NaN or infinite.
    """
    dim = dim if dim < 0 else dim - student.dim()
    return with_slopes(
        _pearson, _pearson_and_slopes, student, teacher, dim, eps, dim=dim
    )


def _pearson(student: Tensor, teacher: Tensor, dim: int, eps: float) -> Tensor:
    """The equation, by autograd."""
    student, student_norm, student_scale = _centered(student, dim)
    teacher, teacher_norm, teacher_scale = _centered(teacher, dim)
    # Where the product of the scales overflows, eps is nothing beside it.
    damping = eps / (student_scale * teacher_scale)
    width = student_norm * teacher_norm + damping
    return ((student * teacher).sum(dim, keepdim=True) / width).squeeze(dim)


def _pearson_and_slopes(
    student: Tensor, teacher: Tensor, dim: int, eps: float
) -> tuple[Tensor, Tensor]:
    """It, and its gradient (t - s (s . t) |t| / (|s| width)) / width.

    With width = |s| |t| + eps, in which |s| depends on s.
    """
    fast = paired_rows('pearson', student, teacher, eps, dim)
    if fast is not None:
        return fast
    both = torch.stack([student, teacher])
    flat, scale = flatness_and_scale(both, dim)
    both /= scale
    both -= both.mean(dim, keepdim=True)
    squares = both.square().sum(dim, keepdim=True)
    flat = (flat | (squares == 0)).any(0)
    student, teacher = both
    student_norm, teacher_norm = squares.masked_fill_(flat, 1.0).sqrt_()
    width = student_norm * teacher_norm + eps / (scale[0] * scale[1])
    width.masked_fill_(flat, torch.inf)
    value = (student * teacher).sum(dim, keepdim=True) / width
    share = value * teacher_norm / student_norm
    slopes = (teacher - student.mul_(share)).div_(width * scale[0])
    return value.squeeze(dim), slopes


def _centered(values: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The values minus their mean, their norm, and what both were divided by.

    The latter two have 1 entry along ``dim``.

    The scale is 1, or the largest magnitude where squares would overflow.
    Where the values are flat, the first two are 0 and 1.
    """
    flat, scale = flatness_and_scale(values, dim)
    values = values / scale
    centered = values - values.mean(dim, keepdim=True)
    squares = centered.square().sum(dim, keepdim=True)
    # Squares of tiny numbers may be 0 as well; replaced before the root, so
    # that its backward pass never divides by 0.
    flat = flat | (squares == 0)
    norm = squares.masked_fill(flat, 1.0).sqrt()
    return centered.masked_fill(flat, 0.0), norm, scale
