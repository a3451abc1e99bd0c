"""Knowledge distillation with softened predictions."""

from torch import Tensor

from mmrkkd.ops import kl_divergence
from mmrkkd.ops.checks import check_positive

from .base import LogitLoss
from .schedule import build_schedule


class KDLoss(LogitLoss):
    """Kullback-Leibler divergence of softened predictions.

    ::

        loss_kd = w T^2 sum_c p_t(c) (log p_t(c) - log p_s(c)),
        p = softmax(z / T)

    summed over the classes and averaged over the samples ('batchmean').
    MMDetection's ``KnowledgeDistillationKLDivLoss`` averages over the
    classes too: multiply its weight by C to compare.

    Args:
        temperature: T > 0. Defaults to 4.0, the value for CIFAR-100.
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 1.0.

    Log keys: ``loss_kd``.

    Source: Hinton et al., arXiv:1503.02531.
    """

    apart = True

    def __init__(
        self, temperature: float = 4.0, loss_weight: float | dict = 1.0
    ) -> None:
        super().__init__()
        self.temperature = check_positive('temperature', temperature)
        self.loss_weight = build_schedule('loss_weight', loss_weight)

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        divergence = kl_divergence(
            student_logits, teacher_logits, self.temperature
        )
        scale = self.now(self.loss_weight) * self.temperature**2
        return dict(loss_kd=scale * divergence)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'temperature={self.temperature:g}, loss_weight={self.loss_weight}'
        )
