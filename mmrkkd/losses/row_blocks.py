"""Losses of very many samples, without a copy of all their logits.

A dense detector has hundreds of thousands of cells an image, and the
arithmetic of a loss keeps several tensors of the size of the logits until
the backward pass. Here it goes block by block, and what is kept is the
gradient of a loss of one term, or nothing, and then it goes once more. Two
images of RetinaNet at 800 x 1344 pixels (403,200 rows of 80 classes) need
less than 197 MB beside them in float32, of which 129 MB are the gradient
itself.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Numbers in a block (4 MB in float32), and from how many on it is worth it.
BLOCK = 2**20
LARGE = 2**21

Terms = Callable[[Tensor, Tensor, Tensor | None], dict[str, Tensor]]


def reduced_in_blocks(
    terms_of: Terms,
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None,
    weight: Tensor | None,
    normalizer: float | Tensor | None,
) -> dict[str, Tensor]:
    """``sum_n w_n term_n / normalizer`` of each term.

    A sample of weight 0 reaches nothing, whatever it holds.

    Args:
        terms_of: Gives the terms (n,) of n samples, each by itself.
        student_logits: (N, C), N > 0. Gets gradient; once.
        teacher_logits: (N, C).
        labels: (N,) or None.
        weight: (N,), >= 0, or None for 1.
        normalizer: > 0; None for the sum of the weights.

    Returns:
        Log key to scalar, float32 or wider.
    """
    if normalizer is None and weight is None:
        normalizer = len(student_logits)
    elif normalizer is None:
        # Shares first, see weighted_mean.
        # Half precision ends at 65504.
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        total = weight.sum()
        weight = weight / torch.where(total > 0, total, 1.0)
        normalizer = 1
    names: list[str] = []
    sums = _SumInBlocks.apply(
        terms_of, names, student_logits, teacher_logits, labels, weight
    )
    return {
        name: value / normalizer
        for name, value in zip(names, sums, strict=True)
    }


class _SumInBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, terms_of, names, student, *others):
        ctx.terms_of = terms_of
        ctx.save_for_backward(student, *others)
        # Half precision would round it twice: here and times the pull.
        wanted = ctx.needs_input_grad[2] and student.dtype.itemsize >= 4
        gradient = torch.empty_like(student) if wanted else None
        totals = None
        for block in _blocks(student):
            rows = student[block].detach().requires_grad_(wanted)
            sums = _sums(terms_of, rows, _of(block, others))
            # One term alone: its gradient, while all is at hand.
            if wanted and len(sums) == 1:
                gradient[block] = _pulled(sums, [1.0], rows)
            sums = {name: value.detach() for name, value in sums.items()}
            totals = sums if totals is None else _added(totals, sums)
        ctx.gradient = gradient if len(totals) == 1 else None
        names += totals
        return tuple(totals.values())

    @staticmethod
    @once_differentiable
    def backward(ctx, *pulls):
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is not None:
            # Used up: another backward pass makes it again.
            return None, None, gradient.mul_(*pulls), None, None, None
        student, *others = ctx.saved_tensors
        gradient = torch.empty_like(student)
        for block in _blocks(student):
            rows = student[block].detach().requires_grad_()
            sums = _sums(ctx.terms_of, rows, _of(block, others))
            gradient[block] = _pulled(sums, pulls, rows)
        return None, None, gradient, None, None, None


def _sums(
    terms_of: Terms, rows: Tensor, others: Sequence[Tensor | None]
) -> dict[str, Tensor]:
    with torch.enable_grad():
        terms = _weighted(terms_of, rows, *others)
        return {name: value.sum() for name, value in terms.items()}


def _pulled(
    sums: dict[str, Tensor], pulls: Sequence[Tensor | float], rows: Tensor
) -> Tensor:
    with torch.enable_grad():
        pairs = zip(pulls, sums.values(), strict=True)
        total = sum(pull * value for pull, value in pairs)
    return torch.autograd.grad(total, rows)[0]


def _added(
    totals: dict[str, Tensor], sums: dict[str, Tensor]
) -> dict[str, Tensor]:
    return {name: value + sums[name] for name, value in totals.items()}


def _weighted(
    terms_of: Terms,
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None,
    weight: Tensor | None,
) -> dict[str, Tensor]:
    """The terms (n,) of a block, times their weights."""
    dtype = torch.promote_types(student_logits.dtype, torch.float32)
    dtype = torch.promote_types(dtype, teacher_logits.dtype)
    if weight is not None:
        # To pick rows would wait for the device; 0 times NaN is NaN.
        hidden = (weight == 0)[:, None]
        student_logits = student_logits.masked_fill(hidden, 0.0)
        teacher_logits = teacher_logits.masked_fill(hidden, 0.0)
    with torch.autocast(student_logits.device.type, enabled=False):
        terms = terms_of(
            student_logits.to(dtype), teacher_logits.to(dtype), labels
        )
        if weight is None:
            return terms
        return {
            name: value * weight.to(value.dtype)
            for name, value in terms.items()
        }


def _of(block: slice, tensors: Sequence[Tensor | None]) -> list:
    return [None if each is None else each[block] for each in tensors]


def _blocks(rows: Tensor) -> list[slice]:
    count = max(BLOCK // rows.shape[1], 1)
    return [slice(i, i + count) for i in range(0, len(rows), count)]
