"""Correlation of predictions, over the classes and over the batch."""

from torch import Tensor

from mmrkkd.ops import pearson
from mmrkkd.ops.checks import check_positive

from .base import LogitLoss
from .schedule import build_schedule


class DISTLoss(LogitLoss):
    """Distillation from a stronger teacher (DIST).

    With p = softmax(z / T), (N, C), and Pearson's correlation along the
    classes of a sample or along the samples of a class::

        loss_dist_inter = w a T^2 (1 / N) sum_n (1 - Pearson_c(p_s, p_t))
        loss_dist_intra = w b T^2 (1 / C) sum_c (1 - Pearson_n(p_s, p_t))

    each in [0, 2 T^2] times its weights. A class whose probability does not
    vary over the batch, and a sample whose does not over the classes, has
    correlation 0: it counts as 1 and has no gradient.

    The second term belongs to the batch: it sees the samples of one
    process, weights of samples select but do not weigh there, and for fewer
    than 2 samples it is 0 (the published formula would give the constant
    T^2). Small batches make it noisy.

    The authors use T 4 on CIFAR-100 and T 1 on ImageNet, and add the task
    loss with weight 1.

    Args:
        inter_weight: a >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 2.0.
        intra_weight: b >= 0, or a schedule. Defaults to 2.0.
        temperature: T > 0. Defaults to 4.0.
        loss_weight: w >= 0, or a schedule, of both terms. Defaults to 1.0.

    Log keys: ``loss_dist_inter``, ``loss_dist_intra``.

    Source: Huang et al., arXiv:2205.10536.
    """

    def __init__(
        self,
        inter_weight: float | dict = 2.0,
        intra_weight: float | dict = 2.0,
        temperature: float = 4.0,
        loss_weight: float | dict = 1.0,
    ) -> None:
        super().__init__()
        self.inter_weight = build_schedule('inter_weight', inter_weight)
        self.intra_weight = build_schedule('intra_weight', intra_weight)
        self.temperature = check_positive('temperature', temperature)
        self.loss_weight = build_schedule('loss_weight', loss_weight)

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        student = (student_logits / self.temperature).softmax(-1)
        teacher = (teacher_logits / self.temperature).softmax(-1)
        inter = 1 - pearson(student, teacher, dim=-1)
        if len(student) < 2:
            # Connected to the student, as every term is.
            intra = 0 * inter
        else:
            intra = 1 - pearson(student, teacher, dim=0).mean()
        scale = self.now(self.loss_weight) * self.temperature**2
        return dict(
            loss_dist_inter=scale * self.now(self.inter_weight) * inter,
            loss_dist_intra=(
                scale * self.now(self.intra_weight) * intra
            ).expand_as(inter),
        )

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'inter_weight={self.inter_weight}, '
            f'intra_weight={self.intra_weight}, '
            f'temperature={self.temperature:g}, '
            f'loss_weight={self.loss_weight}'
        )
