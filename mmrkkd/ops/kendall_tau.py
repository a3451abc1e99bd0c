"""Soft Kendall's tau: the one public door to all its implementations."""

import torch
from torch import Tensor

from .backends.kendall_tau_fused import kendall_tau_fused
from .checks import check_choice, check_logits, check_positive
from .kendall_tau_eager import kendall_tau_eager

IMPLEMENTATIONS = ('auto', 'eager', 'fused', 'approx')
FORMS = (1, 2, 3)


def kendall_tau(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    steepness: float = 1.0,
    form: int = 1,
    class_mask: Tensor | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Soft Kendall's tau between two score vectors.

    With s, t one sample's logits, k the steepness and C classes (form 1)::

        tau_k(s, t) = 2 / (C (C - 1))
                      * sum_{i<j} tanh(k (s_i - s_j)) tanh(k (t_i - t_j))

    docs/en/algebra.md derives what the fast paths compute, and their error
    bounds.

    As k -> inf this is Kendall's tau-a: a tied pair adds 0 and still counts
    in C (C - 1) / 2 (SciPy's default is tau-b, which leaves ties out).

    The gradient is that of the equation above::

        d tau / d s_i = 2 k / (C (C - 1)) * sum_{j != i}
            [1 - tanh^2(k (s_i - s_j))] tanh(k (t_i - t_j))

    The paper prints half of it (eq. 11 and 38, where k / (C (C - 1)) stands
    in front): the 1/2 that turns the sum over i < j into one over all
    ordered pairs is kept there while only the first index is differentiated.
    Autograd of the paper's own eq. 33 gives the 2.

    Args:
        student_logits: Scores before softmax, (..., C). Gets gradient.
        teacher_logits: Same shape and device. Gets no gradient.
        steepness: k > 0, in 1/logit. Pairs much closer than 1/k barely
            count; pairs much further apart get no gradient.
            Defaults to 1.0.
        form: Which of the paper's three smooth forms of a pair's agreement:
            1 is tanh(k ds) tanh(k dt) (eq. 15), 2 is tanh(k ds dt)
            (eq. 16), 3 is tanh(k ds) sign(dt) (eq. 17). Defaults to 1.
        class_mask: Bool, broadcastable to (..., C): the classes that count.
            A row with m of them is averaged over its m (m - 1) / 2 pairs;
            with fewer than two, tau is 0. Defaults to all classes.
        impl: 'eager' is the plain equation by autograd, with O(C^2) memory
            a row. 'fused' makes the gradient beside the value in O(C)
            memory a row and cannot be differentiated twice. 'auto' takes
            the best exact one for the input, which is 'fused'. 'approx'
            is for many thousands of classes: time near-linear in C, an
            error of at most 2e-6 in tau and 4e-6 k / C in the gradient
            (float32), forms 1 and 3 only. Defaults to 'auto'.

    Returns:
        tau_k, (...), dimensionless, in [-1, 1]; float32 for half inputs,
        computed in float32 or wider under autocast too.

    Raises:
        TypeError: an input is not a floating point tensor, or the mask is
            not bool.
        ValueError: the shapes or devices differ, C < 2, steepness <= 0, or
            form or impl is unknown, or impl is 'approx' and form 2.

    Source: Guan et al., arXiv:2409.17823, eq. 7.
    """
    check_logits(student_logits, teacher_logits)
    steepness = check_positive('steepness', steepness)
    check_implementation(impl, form)
    if class_mask is not None:
        class_mask = _checked_mask(class_mask, student_logits)

    dtype = torch.promote_types(student_logits.dtype, torch.float32)
    dtype = torch.promote_types(dtype, teacher_logits.dtype)
    with torch.autocast(student_logits.device.type, enabled=False):
        student_logits = student_logits.to(dtype)
        teacher_logits = teacher_logits.detach().to(dtype)
        if impl == 'eager':
            return kendall_tau_eager(
                student_logits, teacher_logits, steepness, form, class_mask
            )
        return kendall_tau_fused(
            student_logits,
            teacher_logits,
            steepness,
            form,
            class_mask,
            approximate=impl == 'approx',
        )


def check_implementation(impl: str, form: int) -> None:
    """Refuses a form or an implementation that does not exist.

    Raises:
        ValueError: form or impl is unknown, or impl is 'approx' and form 2.
    """
    check_choice('form', form, FORMS)
    check_choice('impl', impl, IMPLEMENTATIONS)
    if impl == 'approx' and form == 2:
        raise ValueError(
            "impl='approx' knows forms 1 and 3, got form=2: its tanh(k ds dt) "
            "does not part into the student's and the teacher's"
        )


def _checked_mask(class_mask: Tensor, logits: Tensor) -> Tensor:
    if not isinstance(class_mask, Tensor) or class_mask.dtype != torch.bool:
        kind = getattr(class_mask, 'dtype', type(class_mask).__name__)
        raise TypeError(f'class_mask must be a bool tensor, got {kind}')
    try:
        return class_mask.expand(logits.shape)
    except RuntimeError as error:
        raise ValueError(
            'class_mask must broadcast to the logits of shape '
            f'{tuple(logits.shape)}, got {tuple(class_mask.shape)}'
        ) from error
