"""Transformed teacher matching: a temperature for the teacher alone."""

from torch import Tensor
from torch.nn.functional import log_softmax

from mmrkkd.ops import kl_divergence
from mmrkkd.ops.checks import check_positive

from .base import LogitLoss
from .schedule import build_schedule


class TTMLoss(LogitLoss):
    """Transformed teacher matching (TTM).

    ::

        loss_ttm = w sum_c q(c) (log q(c) - log p_s(c))

        q(c) = p_t(c)^g / sum_j p_t(j)^g,    p = softmax(z) at T = 1

    summed over the classes and averaged over the samples. Raising the
    teacher's probabilities to a power is a temperature of 1 / g, and the
    student has none, hence no factor T^2. The paper shows that this is
    plain distillation with a Renyi entropy as a regularizer.

    Published settings differ by pair and few are known: the defaults are
    those of the authors' worked example on CIFAR-100, VGG13 to VGG8.

    Args:
        exponent: g > 0; below 1 it softens the teacher. Defaults to 0.1.
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 45.0.

    Log keys: ``loss_ttm``.

    Source: Zheng and Yang, arXiv:2402.11148.
    """

    apart = True

    def __init__(
        self, exponent: float = 0.1, loss_weight: float | dict = 45.0
    ) -> None:
        super().__init__()
        self.exponent = check_positive('exponent', exponent)
        self.loss_weight = build_schedule('loss_weight', loss_weight)

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        # softmax(g z) is p^g, normalised.
        divergence = kl_divergence(
            student_logits, self.exponent * teacher_logits
        )
        return dict(loss_ttm=self.now(self.loss_weight) * divergence)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return f'exponent={self.exponent:g}, loss_weight={self.loss_weight}'


class WTTMLoss(TTMLoss):
    """Transformed teacher matching, weighted by sample (WTTM).

    ::

        loss_wttm = w U sum_c q(c) (log q(c) - log p_s(c)),

        U = sum_c p_t(c)^g

    with q of :class:`TTMLoss`. For g < 1, U lies in [1, C^(1 - g)] and is
    the larger the less certain the teacher is. It multiplies each sample
    and the mean does not divide by it: the loss grows with U.

    The defaults are the one setting that the authors show, VGG13 to VGG8 on
    CIFAR-100 beside a feature loss (CRD). On its own the best weight may be
    another.

    Args:
        exponent: g > 0. Defaults to 0.2.
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 4.0.

    Log keys: ``loss_wttm``.

    Source: Zheng and Yang, arXiv:2402.11148.
    """

    def __init__(
        self, exponent: float = 0.2, loss_weight: float | dict = 4.0
    ) -> None:
        super().__init__(exponent, loss_weight)

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        terms = super().per_sample(student_logits, teacher_logits, labels)
        log_powers = self.exponent * log_softmax(teacher_logits, dim=-1)
        return dict(loss_wttm=log_powers.exp().sum(-1) * terms['loss_ttm'])
