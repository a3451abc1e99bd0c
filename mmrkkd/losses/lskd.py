"""LSKD: any logit loss on standardised logits."""

from torch import Tensor, nn

from mmrkkd.ops import standardize
from mmrkkd.ops.checks import check_positive

from .base import LogitLoss
from .build import build_loss
from .kd import KDLoss
from .min_std import MinStd


class LSKDLoss(LogitLoss):
    """A logit loss that sees standardised logits of both models.

    ::

        loss = L(z_hat_s, z_hat_t),
        z_hat = (z - mean_c z) / (std_c z + eps)

    with the unbiased deviation of each sample over its classes. The
    gradient flows through the student's mean and deviation. The student
    learns the shape of the teacher's logits and is free in their shift and
    scale: ``L(a z_s + b, z_t) = L(z_s, z_t)`` for every a > 0.

    Standardised logits are smaller, so the weight of the wrapped loss is
    larger than without: with T the paper's base temperature tau, its
    factor lambda is ``KDLoss(temperature=tau, loss_weight=lambda)``, and
    both weights of DKD are multiplied by lambda. The task loss keeps the
    weight 0.1. (tau, lambda) of the published CIFAR-100 pairs::

        ResNet110 -> ResNet20                            4, 12
        VGG13 -> VGG8, MobileNetV2                       3, 9
        ResNet32x4 -> WRN-16-2, WRN-40-2                 3, 9
        WRN-40-2 -> MobileNetV2                          3, 9
        ResNet50 -> MobileNetV2                          3, 1
        the others, and ImageNet                         2, 9

    MLKD is enhanced by its own option ``standardize=True``: the authors
    standardise its instance terms only. The ranking term standardises by
    itself and stands outside: ``RankKDLoss(kd=dict(type='LSKDLoss', ...))``.

    A teacher's logit of -inf, a class ruled out, leaves its sample without
    a mean: the term is NaN.

    Args:
        kd: The loss to wrap, a registered type's config or a module.
            Defaults to ``KDLoss(temperature=2.0, loss_weight=9.0)``.
        eps: Added to the standard deviation, in logits. Defaults to 1e-7.
        min_std: The least deviation that the student's logits are divided
            by, see :class:`KendallLoss`. Defaults to none, the paper's
            formula.

    Log keys: those of the wrapped loss.

    Source: Sun et al., arXiv:2403.01427. The paper's deviation has the
        divisor C, the released code, and this class, C - 1. The pairs above
        are those of the released logs. A row without spread gives zeros,
        see :func:`mmrkkd.ops.standardize`; the released code divides its
        rounding by eps.
    """

    def __init__(
        self,
        kd: dict | nn.Module | None = None,
        eps: float = 1e-7,
        min_std: float | dict | None = None,
    ) -> None:
        super().__init__()
        if kd is None:
            kd = KDLoss(temperature=2.0, loss_weight=9.0)
        self.kd = build_loss(kd, LogitLoss)
        for part in self.kd.modules():
            _check_takes_logits(part)
        self.eps = check_positive('eps', eps)
        self.min_std = MinStd(min_std)
        self.views = self.kd.views
        self.needs_labels = self.kd.needs_labels
        self.apart = self.kd.apart

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        return self.kd.per_sample(
            standardize(
                student_logits, self.eps, self.min_std.floor(teacher_logits)
            ),
            standardize(teacher_logits, self.eps),
            labels,
        )

    def extra_repr(self) -> str:
        """The settings, for the log."""
        text = f'eps={self.eps:g}'
        return f'{text}, min_std={self.min_std}' if self.min_std else text


def _check_takes_logits(loss: nn.Module) -> None:
    """Refuses a loss that would standardise what is standardised.

    Its value would hardly change, but its options would mean something
    else: a ``min_std`` of logits whose deviation is 1 already never acts.
    """
    name = type(loss).__name__
    if getattr(loss, 'normalize', False):
        raise ValueError(
            f'kd holds {name}, which standardises the logits itself: put '
            "the ranking outside, RankKDLoss(kd=dict(type='LSKDLoss', ...)), "
            f'or give {name} normalize=False'
        )
    if isinstance(loss, LSKDLoss) or getattr(loss, 'standardize', False):
        raise ValueError(
            f'kd holds {name}, which standardises the logits itself: use '
            f'{name} without LSKDLoss around it, or without its own '
            'standardisation'
        )
