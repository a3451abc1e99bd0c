"""Decoupled distillation: the target class and the others, each by itself."""

import torch
from torch import Tensor

from mmrkkd.ops import kl_divergence
from mmrkkd.ops.checks import check_positive

from .base import LogitLoss
from .schedule import build_schedule


class DKDLoss(LogitLoss):
    """Decoupled knowledge distillation (DKD).

    With y the label, p = softmax(z / T), b = (p_y, 1 - p_y) and q the
    softmax of z / T over the C - 1 classes other than y::

        loss_dkd_target     = w alpha T^2 KL(b_t || b_s)
        loss_dkd_non_target = w beta  T^2 KL(q_t || q_s)

    Plain distillation is ``KL(b_t || b_s) + (1 - p_t(y)) KL(q_t || q_s)``:
    DKD takes the teacher's own confidence out of the second weight. Both are
    sums over classes, averaged over the samples.

    The defaults are CIFAR-100's for ResNet32x4 to ResNet8x4 and for most
    pairs of unlike architectures; the other published settings::

        CIFAR-100, same architecture   alpha 1, beta 2 (ResNet-56 to 20 and
                                       110 to 32) or 6 (WRN, VGG), T 4
        ImageNet                       alpha 1, beta 0.5 (ResNet-34 to 18)
                                       or 2 (ResNet-50 to MobileNetV1), T 1
        COCO, classes of RoIs          alpha 1, beta 0.25, T 1, and the
                                       background is a class like the others

    On CIFAR-100 the published run warms up, min(epoch / 20, 1)::

        dict(type='mmrkkd.DKDLoss', loss_weight=dict(type='linear', end=20))

    The published code leaves the target out of q by subtracting 1000 from
    its logit, and takes the logarithm of 1 - p_y as a sum of probabilities,
    which is -inf in half precision for a confident student. Here both are
    differences of logits: exact, and finite for finite logits.

    Args:
        target_weight: alpha >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 1.0.
        non_target_weight: beta >= 0, or a schedule. Defaults to 8.0.
        temperature: T > 0. Defaults to 4.0.
        loss_weight: w >= 0, or a schedule, of both terms. Defaults to 1.0.

    Needs labels. Log keys: ``loss_dkd_target``, ``loss_dkd_non_target``
    (0 for C = 2: a single other class has nothing to match).

    Source: Zhao et al., arXiv:2203.08679.
    """

    needs_labels = True
    apart = True

    def __init__(
        self,
        target_weight: float | dict = 1.0,
        non_target_weight: float | dict = 8.0,
        temperature: float = 4.0,
        loss_weight: float | dict = 1.0,
    ) -> None:
        super().__init__()
        self.target_weight = build_schedule('target_weight', target_weight)
        self.non_target_weight = build_schedule(
            'non_target_weight', non_target_weight
        )
        self.temperature = check_positive('temperature', temperature)
        self.loss_weight = build_schedule('loss_weight', loss_weight)

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        student = split_target(student_logits / self.temperature, labels)
        teacher = split_target(teacher_logits / self.temperature, labels)
        target = kl_divergence(_binary(*student), _binary(*teacher))
        nothing, *others = nothing_left(student[1], teacher[1])
        non_target = kl_divergence(*others).masked_fill(nothing, 0.0)
        scale = self.now(self.loss_weight) * self.temperature**2
        return dict(
            loss_dkd_target=scale * self.now(self.target_weight) * target,
            loss_dkd_non_target=(
                scale * self.now(self.non_target_weight) * non_target
            ),
        )

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'target_weight={self.target_weight}, '
            f'non_target_weight={self.non_target_weight}, '
            f'temperature={self.temperature:g}, '
            f'loss_weight={self.loss_weight}'
        )


def split_target(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The logit of each sample's label, and those of the other classes.

    Args:
        logits: (N, C).
        labels: (N,), int64, in [0, C - 1].

    Returns:
        (N, 1) and (N, C - 1), the latter in the order of the classes.
    """
    labels = labels.unsqueeze(-1)
    others = torch.arange(logits.shape[-1] - 1, device=logits.device)
    # From the label on, the other classes are one further.
    others = others + (others >= labels)
    return logits.gather(-1, labels), logits.gather(-1, others)


def nothing_left(
    student: Tensor, teacher: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Where a teacher rules out every class but the label.

    Args:
        student: The logits of the other classes, (N, C - 1).
        teacher: The same of the teacher.

    Returns:
        (N,), bool; and the logits of both, of which such rows are 0, since
        nothing is no distribution.
    """
    nothing = teacher.amax(-1) == -torch.inf
    rows = nothing.unsqueeze(-1)
    return nothing, *(
        each.masked_fill(rows, 0.0) for each in (student, teacher)
    )


def _binary(target: Tensor, others: Tensor) -> Tensor:
    """Logits (N, 2) whose softmax is (p_y, 1 - p_y)."""
    # Of -inf alone the sum has no slope.
    others = others.clamp(min=torch.finfo(others.dtype).min)
    return torch.cat([target, others.logsumexp(-1, keepdim=True)], dim=-1)
