"""The Kullback-Leibler divergence between two softened predictions."""

import torch.nn.functional as F
from torch import Tensor


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

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        temperature: T > 0. A tensor keeps its gradient. Defaults to 1.0.

    Returns:
        (...), in nats, >= 0 up to rounding.

    Source: Hinton et al., arXiv:1503.02531.
    """
    student = F.log_softmax(student_logits / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction='none', log_target=True).sum(
        -1
    )
