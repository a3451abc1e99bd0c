"""VID: the teacher's map as a draw from what the student's predicts."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mmrkkd.ops.checks import check_flag, check_positive

from .base import FeaturePair, Shape
from .map_loss import MapLoss

EPS = 1e-5


class VIDLoss(MapLoss):
    """Negative log likelihood of the teacher's map, given the student's.

    With mu three learned 1 x 1 convolutions (no bias, a ReLU between them)
    of the student's map, and a learned variance v for each channel of the
    teacher's::

        v        = log(1 + exp(a)) + 1e-5
        loss_vid = w sum_l mean ((mu - f_t)^2 / v + log v) / 2

    It may be negative. Of maps of unlike strides the finer one is averaged
    to the grid of the other.

    The code behind the CIFAR-100 tables of mdistiller keeps ``a`` out of
    the optimizer, so that v stays what it starts from and the loss is a
    square error: ``mend_slips=False``. The paper's own code and
    RepDistiller train it.

    Args:
        student_layers: See :class:`FeatureLoss`; maps. The published layers
            are the outputs of all stages.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule. Defaults to 1.0, as in the
            CIFAR-100 tables.
        variance: What v starts from, > 1e-5. Defaults to 5.0.
        mend_slips: Learn the variances. Defaults to True.

    Log keys: ``loss_vid``.

    Source: Ahn et al., arXiv:1904.05835, eq. 5 and 6; settings those of the
        CIFAR-100 tables (Tian et al., arXiv:1910.10699).
    """

    joins_channels = False
    pools = True

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 1.0,
        variance: float = 5.0,
        mend_slips: bool = True,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        self.variance = check_positive('variance', variance)
        if variance <= EPS:
            raise ValueError(f'variance must be > {EPS:g}, got {variance!r}')
        self.mend_slips = check_flag('mend_slips', mend_slips)
        self.regressors = nn.ModuleList()
        self.scales = nn.ParameterList()

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """See :meth:`FeatureLoss.connect`."""
        super().connect(student_shapes, teacher_shapes)
        # The inverse of softplus: log(exp(v) - 1), without the large exp(v).
        start = self.variance - EPS
        start += math.log(-math.expm1(-start))
        self.regressors, self.scales = nn.ModuleList(), nn.ParameterList()
        for student, teacher in zip(
            student_shapes, teacher_shapes, strict=True
        ):
            wanted = teacher[1]
            self.regressors.append(
                nn.Sequential(
                    nn.Conv2d(student[1], wanted, 1, bias=False),
                    nn.ReLU(),
                    nn.Conv2d(wanted, wanted, 1, bias=False),
                    nn.ReLU(),
                    nn.Conv2d(wanted, wanted, 1, bias=False),
                )
            )
            self.scales.append(
                nn.Parameter(
                    torch.full((wanted, 1, 1), start),
                    requires_grad=self.mend_slips,
                )
            )

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        terms = []
        for (student, teacher), regress, scale in zip(
            self.joined(pair), self.regressors, self.scales, strict=True
        ):
            variance = softplus(scale) + EPS
            error = (regress(student) - teacher).square()
            terms.append((error / variance + variance.log()).mean() / 2)
        return dict(loss_vid=self.now(self.loss_weight) * sum(terms))

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'{super().extra_repr()}, variance={self.variance:g}, '
            f'mend_slips={self.mend_slips}'
        )
