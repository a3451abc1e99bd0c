"""The Kullback-Leibler divergences between two softened predictions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backends.autograd import with_slopes
from .backends.native_rows import paired_rows


def kl_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    """KL(p_t || p_s) with ``p = softmax(z / T)``, per sample.

    ::

        KL = sum_c p_t(c) (log p_t(c) - log p_s(c))

    It is a sum over the classes. (``F.kl_div`` with ``reduction='mean'``,
    and MMDetection's own distillation loss, divide by C as well: a factor
    of 81 on COCO that no setting shows.) The factor T^2 that keeps the
    gradient's size is the caller's.

    A class that the teacher rules out, by a logit of -inf or one so low that
    p_t is 0 in the arithmetic at hand (double on a CPU), adds 0, whatever
    the student says of it, -inf included; its gradient is p_s as anywhere.
    A student that rules out what the teacher does not is infinitely far
    away.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C), at least one in a row above -inf.
        temperature: T > 0. A tensor keeps its gradient. Defaults to 1.0.

    Returns:
        (...), in nats, >= 0 up to rounding.

    Source: Hinton et al., arXiv:1503.02531.
    """
    return with_slopes(
        _divergence,
        _divergence_and_slopes,
        student_logits,
        teacher_logits,
        temperature,
    )


def _divergence(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor
) -> Tensor:
    """The equation, by autograd."""
    student = _log_softened(student_logits, temperature)
    teacher = _log_softened(teacher_logits, temperature)
    # Before the arithmetic: 0 times -inf is NaN, and so are its gradients.
    ruled_out = teacher.exp() == 0
    return F.kl_div(
        student.masked_fill(ruled_out, 0.0),
        # Its p_t stays 0 through the exponential of a finite number.
        teacher.masked_fill(ruled_out, torch.finfo(teacher.dtype).min),
        reduction='none',
        log_target=True,
    ).sum(-1)


def _divergence_and_slopes(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """It, and its gradient (p_s - p_t) / T."""
    fast = paired_rows(
        'kl_divergence', student_logits, teacher_logits, temperature
    )
    if fast is not None:
        return fast
    student = _log_softened(student_logits, temperature)
    teacher = _log_softened(teacher_logits, temperature)
    target = teacher.exp()
    terms = teacher.sub_(student).mul_(target).masked_fill_(target == 0, 0.0)
    slopes = student.exp_().sub_(target).div_(temperature)
    return terms.sum(-1), slopes


def binary_kl_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """KL(p_t || p_s) of each class's own yes or no, added up, per sample.

    ::

        KL = sum_c p_t(c) (log p_t(c) - log p_s(c))
                   + (1 - p_t(c)) (log(1 - p_t(c)) - log(1 - p_s(c)))
        p = sigmoid(z / T)

    A class that the teacher rules out, logit -inf, adds -log(1 - p_s), and 0
    where the student rules it out too.

    Args:
        student_logits: (..., C), C >= 1.
        teacher_logits: (..., C).
        temperature: T > 0. Defaults to 1.0.

    Returns:
        (...), in nats, >= 0 up to rounding.
    """
    student, teacher = (
        student_logits / temperature,
        teacher_logits / temperature,
    )
    # Before the arithmetic: 0 times -inf is NaN, and so are its gradients.
    ruled_out = teacher == -torch.inf
    yes = F.logsigmoid(teacher.masked_fill(ruled_out, 0.0)) - F.logsigmoid(
        student.masked_fill(ruled_out, 0.0)
    )
    no = F.logsigmoid(-teacher) - F.logsigmoid(-student)
    return (teacher.sigmoid() * yes + (-teacher).sigmoid() * no).sum(-1)


# By the activation of the logits.
DIVERGENCES = dict(softmax=kl_divergence, sigmoid=binary_kl_divergence)


def _log_softened(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """log softmax(z / T); -inf stays so, and says nothing about T."""
    if not isinstance(temperature, Tensor):
        return F.log_softmax(logits / temperature, dim=-1)
    ruled_out = logits == -torch.inf
    softened = logits.masked_fill(ruled_out, 0.0) / temperature
    return F.log_softmax(softened.masked_fill(ruled_out, -torch.inf), dim=-1)
