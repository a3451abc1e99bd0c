"""CRLD: consistency within and across two views of an image."""

import torch
from torch import Tensor

from mmrkkd.ops import kl_divergence
from mmrkkd.ops.checks import check_non_negative, check_positive

from .base import LogitLoss
from .schedule import build_schedule

WEAK, STRONG = 0, 1


class CRLDLoss(LogitLoss):
    """Distillation of each view, and of each view to the other one.

    Two views of each image, weakly (w) and strongly (s) augmented; a
    sample counts where the teacher is sure enough of it::

        loss_crld_within = w_within m_w (KD(s_w, t_w) + KD(s_s, t_s))
        loss_crld_cross  = w_cross  m_s (KD(s_s, t_w) + KD(s_w, t_s))

        KD(s, t) = T^2 KL(p_t || p_s),     p = softmax(z / T)
        m_w = 1 where max_c softmax(t_w) >= weak_threshold, 0 elsewhere
        m_s = 1 where max_c softmax(t_s) >= strong_threshold, 0 elsewhere

    The confidences are taken at temperature 1. The mean is over all
    samples: one that does not count gives 0 and is not left out.

    Args:
        temperature: T > 0. Defaults to 4.0.
        within_weight: w_within >= 0, or a schedule
            (:func:`build_schedule`). Defaults to 2.0.
        cross_weight: w_cross >= 0, or a schedule. Defaults to 0.5.
        weak_threshold: In [0, 1], a probability; 0 takes every sample.
            Defaults to 0.9.
        strong_threshold: The same for the strong view. Defaults to 0.2.

    The defaults are those for CIFAR-100, beside task losses of both views
    with weight 1. For Tiny-ImageNet the authors take T = 2 and the weights
    4 and 1, for ImageNet T = 1 and a task weight of 2.

    Log keys: ``loss_crld_within``, ``loss_crld_cross``.

    Source: Zhang et al., arXiv:2412.16493, with the masks of the released
        code: both terms within the views follow the weak view's confidence,
        both across follow the strong view's.
    """

    views = 2
    apart = True

    def __init__(
        self,
        temperature: float = 4.0,
        within_weight: float | dict = 2.0,
        cross_weight: float | dict = 0.5,
        weak_threshold: float = 0.9,
        strong_threshold: float = 0.2,
    ) -> None:
        super().__init__()
        self.temperature = check_positive('temperature', temperature)
        self.within_weight = build_schedule('within_weight', within_weight)
        self.cross_weight = build_schedule('cross_weight', cross_weight)
        self.weak_threshold = _check_probability(
            'weak_threshold', weak_threshold
        )
        self.strong_threshold = _check_probability(
            'strong_threshold', strong_threshold
        )

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        within = self._distill(student_logits, teacher_logits)
        cross = self._distill(student_logits, teacher_logits.flip(1))
        confidence = teacher_logits.softmax(-1).amax(-1)
        # The teacher's NaN is not below anything: it counts, and shows.
        sure_weak = ~(confidence[:, WEAK] < self.weak_threshold)
        sure_strong = ~(confidence[:, STRONG] < self.strong_threshold)
        within_weight = self.now(self.within_weight)
        cross_weight = self.now(self.cross_weight)
        return dict(
            loss_crld_within=within_weight * _where(sure_weak, within),
            loss_crld_cross=cross_weight * _where(sure_strong, cross),
        )

    def _distill(
        self, student_logits: Tensor, teacher_logits: Tensor
    ) -> Tensor:
        """(N, 2, C) each -> T^2 KL added over the views, (N,)."""
        divergence = kl_divergence(
            student_logits, teacher_logits, self.temperature
        )
        return self.temperature**2 * divergence.sum(1)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'temperature={self.temperature:g}, '
            f'within_weight={self.within_weight}, '
            f'cross_weight={self.cross_weight}, '
            f'weak_threshold={self.weak_threshold:g}, '
            f'strong_threshold={self.strong_threshold:g}'
        )


def _where(mask: Tensor, values: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0)


def _check_probability(name: str, value: float) -> float:
    check_non_negative(name, value)
    if value > 1:
        raise ValueError(f'{name} must be in [0, 1], got {value!r}')
    return float(value)
