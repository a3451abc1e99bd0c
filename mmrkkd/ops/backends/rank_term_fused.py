"""The whole ranking term as one operator, on a CUDA device."""

from collections.abc import Callable

import torch
from torch import Tensor

from .autograd import compiling, known_signature, scaled_once
from .fast_path import FastPath


def rank_term_fused(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    scale: float,
    weight: Tensor | None = None,
    normalizer: float | Tensor | None = None,
    kept: Tensor | None = None,
    chosen: Tensor | None = None,
    steepness: float = 1.0,
    form: int = 1,
    normalize: bool = True,
    eps: float = 1e-7,
    floor: float = 0.0,
    relative: bool = False,
) -> Tensor | None:
    """``scale sum_n w_n tau_n / sum_n w_n`` of standardised logits.

    Forward and backward are seven launches or fewer.

    Args:
        student_logits: (N, C), float32 or half. Gets gradient, once.
        teacher_logits: (N, C), without gradient.
        scale: Of the term.
        weight: (N,), >= 0, or None for 1. A row of weight 0 may hold
            anything and reaches nothing.
        normalizer: Takes the place of the sum of the weights, > 0.
        kept: Bool, (C,): the classes that exist. None for all.
        chosen: Bool, (N, C): the classes that are ranked. None for all.
        steepness: k > 0.
        form: 1, 2 or 3.
        normalize: Standardise the rows.
        eps: Added to a deviation.
        floor: The least deviation of the student's rows, 0 for none.
        relative: The floor is times the teacher's deviation.

    Returns:
        A scalar, float32; None where this path cannot be used: another
        device or type, or Triton does not work.
    """
    if not usable(student_logits, teacher_logits):
        return None
    divisor = None
    if isinstance(normalizer, Tensor):
        divisor = normalizer
    elif normalizer is not None:
        scale = scale / normalizer
    elif weight is None:
        scale = scale / max(len(student_logits), 1)
    else:
        divisor = weight.sum()
    settings = scale, steepness, form, normalize, eps, floor, relative
    arguments = (
        student_logits,
        teacher_logits.detach(),
        kept,
        chosen,
        weight,
        divisor,
        *settings,
    )
    if compiling():
        return _term(*arguments)
    kind = student_logits.shape[1], student_logits.dtype, form
    return TRITON(kind, *arguments)


def usable(student_logits: Tensor, teacher_logits: Tensor) -> bool:
    """Whether the device and the types are this path's."""
    both = student_logits, teacher_logits
    return all(
        each.device.type == 'cuda' and each.dtype != torch.float64
        for each in both
    )


@known_signature
class _RankTerm(torch.autograd.Function):
    """The sum of the terms; their gradient is made beside them."""

    @staticmethod
    def forward(
        student: Tensor,
        teacher: Tensor,
        kept: Tensor | None,
        chosen: Tensor | None,
        weight: Tensor | None,
        divisor: Tensor | None,
        *settings: object,
    ):
        terms, gradient = torch.ops.mmrkkd.rank_term(
            student, teacher, kept, chosen, weight, divisor, *settings
        )
        return terms.sum(), gradient

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], output[1])
        ctx.arguments = len(inputs)

    @staticmethod
    def backward(ctx, pull: Tensor, _):
        rest = (None,) * (ctx.arguments - 1)
        if pull is None:
            return None, *rest
        student, gradient = ctx.saved_tensors
        return scaled_once(pull, student, gradient).to(student.dtype), *rest


def _term(*args: object) -> Tensor:
    return _RankTerm.apply(*args)[0]


def _load() -> Callable:
    # Fails here where there is no Triton, and not inside the operator.
    from .rank_term_triton import rank_term_triton  # noqa: F401

    return _term


TRITON = FastPath(
    _load, 'the Triton kernel of the ranking term', 'a ranking term in parts'
)


def _on_device(*args: object) -> tuple[Tensor, Tensor]:
    from .rank_term_triton import rank_term_triton

    return rank_term_triton(*args)


def _on_meta(student: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    gradient = torch.empty_like(student, dtype=torch.float32)
    return gradient.new_empty(len(student)), gradient


_LIBRARY = torch.library.Library('mmrkkd', 'FRAGMENT')
_LIBRARY.define(
    'rank_term(Tensor student, Tensor teacher, Tensor? kept, Tensor? chosen, '
    'Tensor? weight, Tensor? divisor, float scale, float steepness, '
    'int form, bool normalize, float eps, float floor, bool relative) '
    '-> (Tensor, Tensor)'
)
_LIBRARY.impl(
    'rank_term', lambda *args: _on_device(*args), 'CompositeExplicitAutograd'
)
_LIBRARY.impl('rank_term', _on_meta, 'Meta')
