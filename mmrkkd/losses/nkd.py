"""Normalised distillation: the target's soft label, then the others."""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from mmrkkd.ops.checks import check_positive

from .base import LogitLoss
from .dkd import nothing_left, split_target
from .schedule import build_schedule


class NKDLoss(LogitLoss):
    """Normalised knowledge distillation (NKD).

    With y the label, p = softmax(z) and q the softmax of z / T over the
    C - 1 classes other than y::

        loss_nkd_target     = -w alpha p_t(y) log p_s(y)
        loss_nkd_non_target = -w gamma T^2 sum_{c != y} q_t(c) log q_s(c)

    averaged over the samples. The temperature leaves the target's term
    alone. Both are cross-entropies, not divergences: they differ from KL by
    the teacher's entropy, so a student equal to its teacher does not reach
    0, and the gradient is the same.

    The defaults are ImageNet's (T 1, gamma 1.5). For CIFAR-100 the authors'
    configs have T 3 and gamma 3.5 (ResNet-34 to ResNet-18); comparisons by
    others on the usual CIFAR-100 pairs keep T 1 and gamma 1.5.

    Args:
        temperature: T > 0 of the other classes. Defaults to 1.0.
        non_target_weight: gamma >= 0, or a schedule
            (:func:`build_schedule`). Defaults to 1.5.
        target_weight: alpha >= 0, or a schedule; the paper has none.
            Defaults to 1.0.
        loss_weight: w >= 0, or a schedule, of both terms. Defaults to 1.0.

    Needs labels. Log keys: ``loss_nkd_target``, ``loss_nkd_non_target``.

    Source: Yang et al., arXiv:2303.13005.
    """

    needs_labels = True
    apart = True

    def __init__(
        self,
        temperature: float = 1.0,
        non_target_weight: float | dict = 1.5,
        target_weight: float | dict = 1.0,
        loss_weight: float | dict = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = check_positive('temperature', temperature)
        self.non_target_weight = build_schedule(
            'non_target_weight', non_target_weight
        )
        self.target_weight = build_schedule('target_weight', target_weight)
        self.loss_weight = build_schedule('loss_weight', loss_weight)

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        student, student_others = _probabilities(student_logits, labels)
        teacher, teacher_others = _probabilities(teacher_logits, labels)
        nothing, *others = nothing_left(student_others, teacher_others)
        student_others, teacher_others = (
            log_softmax(each / self.temperature, dim=-1) for each in others
        )
        # A label that both rule out is 0 times minus infinity.
        student = student.masked_fill(teacher == -torch.inf, 0.0)
        target = -teacher.exp() * student
        # A class that both rule out is 0 times minus infinity.
        ruled_out = teacher_others == -torch.inf
        student_others = student_others.masked_fill(ruled_out, 0.0)
        non_target = -(teacher_others.exp() * student_others).sum(-1)
        non_target = non_target.masked_fill(nothing, 0.0)
        weight = self.now(self.loss_weight)
        scale = weight * self.now(self.non_target_weight)
        return dict(
            loss_nkd_target=weight * self.now(self.target_weight) * target,
            loss_nkd_non_target=scale * self.temperature**2 * non_target,
        )

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'temperature={self.temperature:g}, '
            f'non_target_weight={self.non_target_weight}, '
            f'target_weight={self.target_weight}, '
            f'loss_weight={self.loss_weight}'
        )


def _probabilities(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log p(y), (N,), and the logits of the other classes, (N, C - 1)."""
    target, _ = split_target(log_softmax(logits, dim=-1), labels)
    _, others = split_target(logits, labels)
    return target.squeeze(-1), others
