"""OFD: maps before their activation, as far as the teacher's has a say."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import FeaturePair, Shape
from .map_loss import MapLoss

# Where so little of a channel is negative, its mean is not computed.
RARE = 1e-3


class OFDLoss(MapLoss):
    """Partial square error between maps before their activation.

    With m the margin of a channel and phi a learned 1 x 1 convolution
    without bias and BatchNorm, over the layers l = 1 .. L::

        t'       = max(f_t, m)
        loss_ofd = w sum_l 2^(l - L) (1 / B) sum d(phi_l(f_s), t')
        d(s, t') = (s - t')^2   where s > t' or t' > 0, else 0

    The inner sum is over images, channels and cells: where the teacher is
    silent, the student only has to stay below. The margin is the mean of
    the channel's negative values, if it is normal with the mean beta and
    the deviation |gamma| of the teacher's BatchNorm::

        m = beta - |gamma| pdf(beta / |gamma|) / cdf(-beta / |gamma|)

    or -3 |gamma| where cdf(-beta / |gamma|) <= 0.001. Of unlike strides the
    student's map is interpolated to the teacher's grid.

    Args:
        student_layers: See :class:`FeatureLoss`; maps before an activation,
            from the finest to the deepest: a BatchNorm, or
            ``'before backbone.layer1.2.relu[1]'``, what goes into the ReLU
            of a residual block when it is called the second time, the sum.
        teacher_layers: See :class:`FeatureLoss`. Where such a layer is no
            BatchNorm, the margins are those of the last BatchNorm of the
            block, outside of its shortcut.
        loss_weight: w >= 0, or a schedule. Defaults to 1e-3, the released
            value for CIFAR-100; that for ImageNet is 1e-4.

    Log keys: ``loss_ofd``.

    Source: Heo et al., A Comprehensive Overhaul of Feature Distillation,
        ICCV 2019, arXiv:1904.01866, eq. 3 to 6, and the released code.
    """

    needs_statistics = True
    joins_channels = False

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 1e-3,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        self.margins: list[str] = []

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """See :meth:`FeatureLoss.connect`."""
        super().connect(student_shapes, teacher_shapes)
        for connector, student, teacher in zip(
            self.connectors, student_shapes, teacher_shapes, strict=True
        ):
            conv = nn.Conv2d(student[1], teacher[1], 1, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode='fan_out')
            connector.channels = nn.Sequential(
                conv, nn.BatchNorm2d(teacher[1])
            )

    def take_statistics(
        self, statistics: Sequence[tuple[Tensor, Tensor]]
    ) -> None:
        """See :meth:`FeatureLoss.take_statistics`."""
        self.margins = []
        for number, (mean, deviation) in enumerate(statistics):
            self.margins.append(f'margin{number}')
            # A frozen teacher's: made anew with it, so in no checkpoint.
            self.register_buffer(
                self.margins[-1], margin(mean, deviation), persistent=False
            )

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        if len(self.margins) != len(pair.teacher):
            raise ValueError(
                f'OFDLoss has margins for {len(self.margins)} layers, got '
                f'{len(pair.teacher)}: call take_statistics([(mean, '
                'deviation), ...]) before training, as the distillers do'
            )
        total, last = 0.0, len(self.margins) - 1
        for level, (student, teacher) in enumerate(self.joined(pair)):
            least = getattr(self, self.margins[level]).to(teacher.dtype)
            wanted = teacher.maximum(least[:, None, None])
            counts = (student > wanted) | (wanted > 0)
            errors = (student - wanted).square() * counts
            total = total + errors.sum() / len(errors) * 2.0 ** (level - last)
        return dict(loss_ofd=self.now(self.loss_weight) * total)


def margin(mean: Tensor, deviation: Tensor) -> Tensor:
    """The mean of the negative values of a normal distribution.

    Args:
        mean: Any shape.
        deviation: The same, >= 0.

    Returns:
        The same shape, in float32 or wider; -3 times the deviation where
        no more than one value in a thousand is negative.
    """
    dtype = torch.promote_types(mean.dtype, torch.float32)
    mean, deviation = mean.double(), deviation.double()
    # Without any spread a channel is its mean.
    ratio = mean / deviation.clamp_min(torch.finfo(torch.float64).tiny)
    density = (-ratio.square() / 2).exp() / math.sqrt(2 * math.pi)
    negative = torch.special.ndtr(-ratio)
    some = negative > RARE
    share = density / negative.where(some, torch.ones_like(negative))
    return torch.where(some, mean - deviation * share, -3 * deviation).to(
        dtype
    )
