"""Distillation of scores that are decided one by one, by a sigmoid."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrkkd.ops.backends.autograd import with_slopes
from mmrkkd.ops.backends.native_rows import paired_rows

from .base import LogitLoss
from .schedule import build_schedule

# What lower logits are taken for; they get no gradient.
LOWEST = -1e5


class BinaryKDLoss(LogitLoss):
    """Quality focal loss with the teacher's probabilities as its targets.

    ::

        l_n = w sum_c |q_nc - p_nc|^beta BCE(q_nc, p_nc)
        p = sigmoid(teacher's logit),   q = sigmoid(student's logit)
        BCE(q, p) = -p log q - (1 - p) log(1 - q)
        loss_binary_kd = sum_n l_n / N+

    with N+ the number of positives of the batch. There is no temperature,
    and no selection of the foreground: where both agree that there is
    nothing the factor in front is nearly 0 and so is its gradient. The
    gradient goes through that factor too. Where the models agree the loss
    is 0.

    Without a number of positives (outside a dense head, or
    ``normalizer='weight'``) it is the mean over the samples.

    Args:
        beta: 0 (plain binary cross entropy) or >= 1. Defaults to 1.0.
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 1.0.

    Log keys: ``loss_binary_kd``.

    Source: Wang et al. (CrossKD), arXiv:2306.11369, and Yang et al. (BCKD),
        arXiv:2308.14286, both with beta = 1 and w = 1 (CrossKD on FCOS:
        w = 0.4); Li et al. (generalized focal loss), arXiv:2006.04388,
        eq. 2, for the form.
    """

    activations = ('sigmoid',)
    default_normalizer = 'positives'
    min_classes = 1
    by_rows = True
    apart = True

    def __init__(
        self, beta: float = 1.0, loss_weight: float | dict = 1.0
    ) -> None:
        super().__init__()
        number = isinstance(beta, (int, float)) and not isinstance(beta, bool)
        if not number or not (beta == 0 or 1 <= beta < torch.inf):
            raise ValueError(
                'beta must be 0 or a finite number >= 1 (between them the '
                'gradient has no bound where the models agree), got '
                f'{beta!r}'
            )
        self.beta = float(beta)
        self.loss_weight = build_schedule('loss_weight', loss_weight)

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        entropy = with_slopes(
            _entropy,
            _entropy_and_slopes,
            student_logits,
            teacher_logits,
            self.beta,
        )
        return dict(loss_binary_kd=self.now(self.loss_weight) * entropy)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return f'beta={self.beta:g}, loss_weight={self.loss_weight}'


def _entropy(
    student_logits: Tensor, teacher_logits: Tensor, beta: float
) -> Tensor:
    """The equation, (N, C) -> (N,), by autograd."""
    target = teacher_logits.sigmoid()
    # 0 times -inf, of a class that both rule out, is NaN; 0 times LOWEST,
    # below what half precision holds, is the limit.
    student_logits = student_logits.clamp(min=LOWEST)
    entropy = F.binary_cross_entropy_with_logits(
        student_logits, target, reduction='none'
    )
    if beta:
        distance = (student_logits.sigmoid() - target).abs()
        entropy = entropy * (distance if beta == 1 else distance**beta)
    return entropy.sum(-1)


def _entropy_and_slopes(
    student_logits: Tensor, teacher_logits: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """It, and its gradient: with d = q - p and E the cross entropy ::

    |d|^beta d + beta |d|^(beta - 1) sign(d) q (1 - q) E
    """
    if beta == 1:
        fast = paired_rows('binary_kd', student_logits, teacher_logits, LOWEST)
        if fast is not None:
            return fast
    target = teacher_logits.sigmoid()
    hidden = student_logits < LOWEST
    student_logits = student_logits.clamp(min=LOWEST)
    entropy = F.binary_cross_entropy_with_logits(
        student_logits, target, reduction='none'
    )
    chance = student_logits.sigmoid_()
    slopes = chance - target
    if beta:
        distance, sign = slopes.abs(), slopes.sign()
        pull = sign.mul_(chance).mul_(1 - chance).mul_(entropy)
        if beta != 1:
            pull = pull.mul_(distance ** (beta - 1)).mul_(beta)
            distance = distance.pow_(beta)
        slopes = slopes.mul_(distance).add_(pull)
        entropy = entropy.mul_(distance)
    return entropy.sum(-1), slopes.masked_fill_(hidden, 0.0)
