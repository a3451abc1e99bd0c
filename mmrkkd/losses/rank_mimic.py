"""Rank mimicking: which candidate of an object is better than which."""

from torch import Tensor

from mmrkkd.ops.checks import check_positive

from .object_loss import ObjectLoss, log_softmax_of_each
from .schedule import build_schedule


class RankMimicLoss(ObjectLoss):
    """Divergence of the distributions over the candidates of each object.

    With x_j(t) the teacher's probability of the object's class in its
    candidate j, and x_j(s) the student's::

        p_j = softmax_j(x_j(t) / T)         q_j = softmax_j(x_j(s) / T)
        loss_rank_mimic = w mean over the objects of KL(p || q)

    Probabilities lie in [0, 1]: at T = 1, as published, p is nearly flat,
    e times higher at most where the teacher is sure than where it sees
    nothing. A lower temperature makes the order count more.

    The paper takes the mean over the objects of an image, and then over the
    images; here every object of a process's batch weighs the same. Its
    candidates are the teacher's positive anchors, here those of the
    student's own loss. The public code of MMRazor sorts both sides first,
    which any order of the student satisfies; this file does not.

    Args:
        temperature: T > 0. Defaults to 1.0.
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 4.0, as published for RetinaNet.

    Log keys: ``loss_rank_mimic``.

    Source: Li et al., "Knowledge Distillation for Object Detection via Rank
        Mimicking and Prediction-Guided Feature Imitation", AAAI 2022,
        arXiv:2112.04840, eq. 1 to 3.
    """

    def __init__(
        self, temperature: float = 1.0, loss_weight: float | dict = 4.0
    ) -> None:
        super().__init__()
        self.temperature = check_positive('temperature', temperature)
        self.loss_weight = build_schedule('loss_weight', loss_weight)

    def scores(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See :meth:`ObjectLoss.scores`: probabilities over T."""
        return self.probabilities(logits, labels) / self.temperature

    def per_object(
        self,
        student_scores: Tensor,
        teacher_scores: Tensor,
        objects: Tensor,
        count: int,
    ) -> dict[str, Tensor]:
        """See :meth:`ObjectLoss.per_object`."""
        student = log_softmax_of_each(student_scores, objects, count)
        teacher = log_softmax_of_each(teacher_scores, objects, count)
        divergence = teacher.exp() * (teacher - student)
        each = student.new_zeros(count).index_add(0, objects, divergence)
        return dict(loss_rank_mimic=self.now(self.loss_weight) * each)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'temperature={self.temperature:g}, loss_weight={self.loss_weight}'
        )
