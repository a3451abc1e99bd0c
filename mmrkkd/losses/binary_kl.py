"""Kullback-Leibler divergence of scores that a sigmoid decides."""

from torch import Tensor

from mmrkkd.ops import binary_kl_divergence
from mmrkkd.ops.checks import check_positive

from .base import LogitLoss
from .schedule import build_schedule


class BinaryKLLoss(LogitLoss):
    """Divergence of each class's own yes or no, added up over the classes.

    ::

        l_n = w T^2 sum_c KL(Bernoulli(p_nc) || Bernoulli(q_nc))
        p = sigmoid(teacher's logit / T), q = sigmoid(student's logit / T)
        loss_binary_kl = sum_n l_n / N+

    with N+ the number of positives of the batch; without one, the mean over
    the samples.

    A temperature above 1 draws every probability towards a half, and a
    dense head has thousands of cells with nothing in them: use it with
    ``locations='top'`` or 'foreground'.

    Args:
        temperature: T > 0. Defaults to 1.0.
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 1.0.

    Log keys: ``loss_binary_kl``.

    Source: Hinton et al., arXiv:1503.02531, for each class by itself.
    """

    activations = ('sigmoid',)
    default_normalizer = 'positives'
    min_classes = 1
    by_rows = True
    apart = True

    def __init__(
        self, temperature: float = 1.0, loss_weight: float | dict = 1.0
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
        divergence = binary_kl_divergence(
            student_logits, teacher_logits, self.temperature
        )
        scale = self.now(self.loss_weight) * self.temperature**2
        return dict(loss_binary_kl=scale * divergence)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'temperature={self.temperature:g}, loss_weight={self.loss_weight}'
        )
