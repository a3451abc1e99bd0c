"""PLD: the teacher's ranking, each place weighted by its confidence."""

from torch import Tensor

from mmrkkd.ops.checks import check_positive

from .base import LogitLoss
from .list_mle import ranking, surprise_of
from .schedule import build_schedule


class PLDLoss(LogitLoss):
    """Plackett-Luce distillation (PLD).

    With pi the label followed by the other classes from the teacher's
    highest logit to its lowest, and p_t the teacher's softmax(t / T)::

        loss_pld = w sum_k p_t(pi_k) [log sum_{j >= k} exp s(pi_j) - s(pi_k)]

    averaged over the samples: the places of :class:`ListMLELoss`, each
    weighted by the teacher's probability of the class that stands there.
    The first place is p_t(y) times the cross-entropy, so it is used alone,
    in the place of both the task loss and KL: ``task_weight=0``. Where the
    teacher is sure and wrong, little of the cross-entropy is left.

    T softens the weights only; the student has none. It is convex in s and
    does not change when a number is added to all of s.

    Args:
        temperature: T > 0. Defaults to 1.0, the paper's for ImageNet; for
            CIFAR-100 it takes 4. It prints none for COCO.
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 1.0.

    Needs labels. Log keys: ``loss_pld``.

    Source: Bassam et al., arXiv:2506.12542.
    """

    needs_labels = True
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
        order = ranking(teacher_logits, labels)
        confidence = (teacher_logits / self.temperature).softmax(-1)
        surprise = surprise_of(
            student_logits, order, confidence.gather(-1, order)
        )
        return dict(loss_pld=self.now(self.loss_weight) * surprise)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'temperature={self.temperature:g}, loss_weight={self.loss_weight}'
        )
