"""ReviewKD: each teacher level learned from all deeper student levels."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, mse_loss

from .base import FeatureLoss, FeaturePair, Shape, common_area
from .map_loss import check_connected, resized

POOLED = (4, 2, 1)
MOST_CHANNELS = 512


class ReviewKDLoss(FeatureLoss):
    """Hierarchical distance between fused student's and teacher's levels.

    From the deepest level L to the finest, attention based fusion (ABF)::

        x_l = BN(conv1x1(f_l))                           (M channels)
        x_l = a_1 x_l + a_2 up(x_{l+1}),  (a_1, a_2) = sigmoid(
                  conv1x1([x_l, up(x_{l+1})]))           (l < L)
        g_l = BN(conv3x3(x_l))                           (the teacher's C)

    up is nearest neighbour; x_l is brought to the teacher's stride, in the
    same way, before g_l. Levels are compared by the hierarchical context
    loss (HCL), with averages over 4 x 4, 2 x 2 and 1 x 1 regions of the map
    as far as these are fewer than its rows::

        HCL(g, t) = (sum_i 2^-i mean (pool_i(g) - pool_i(t))^2)
                    / (sum_i 2^-i),        pool_0 = the map itself
        loss_reviewkd = w sum_l HCL(g_l, t_l)

    Args:
        student_layers: See :class:`FeatureLoss`; from the finest level to
            the deepest. A vector is a map of one cell: the published ones
            for classifiers are all stages and the pooled vector, and for
            detectors ``'neck[*]'``.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule: the authors ramp it up over 20
            epochs on CIFAR-100 and one on ImageNet,
            ``dict(type='linear', stop=5.0, end=20)``, and for detectors
            take 2.0 from the start. On CIFAR-100 it is 5 for most pairs, 8
            for ResNet32x4 and ShuffleNetV2, 0.6 for ResNet56 and ResNet20,
            1 for ResNet110 and ResNet32. Defaults to 1.0.
        mid_channels: M >= 1. Defaults to the channels of the student's
            deepest layer, but no more than 512.

    Log keys: ``loss_reviewkd``. BatchNorm wants at least two images where a
    layer is a vector.

    Source: Chen et al., Distilling Knowledge via Knowledge Review,
        arXiv:2104.09044, section 3.3, and the released code.
    """

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 1.0,
        mid_channels: int | None = None,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        if mid_channels is not None and (
            type(mid_channels) is not int or mid_channels < 1
        ):
            raise ValueError(
                'mid_channels must be an integer >= 1, or None for those of '
                f"the student's deepest layer, got {mid_channels!r}"
            )
        self.mid_channels = mid_channels
        self.fusions = nn.ModuleList()

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """See :meth:`FeatureLoss.connect`."""
        students = [_map_shape(shape) for shape in student_shapes]
        teachers = [_map_shape(shape) for shape in teacher_shapes]
        rows = [shape[2] for shape in students]
        if rows != sorted(rows, reverse=True):
            raise ValueError(
                'ReviewKDLoss wants its layers from the finest to the '
                f"deepest, got student's maps of {rows} rows"
            )
        mid = self.mid_channels or min(MOST_CHANNELS, students[-1][1])
        last = len(students) - 1
        self.fusions = nn.ModuleList(
            Fusion(student, teacher, mid, fuses=level < last)
            for level, (student, teacher) in enumerate(
                zip(students, teachers, strict=True)
            )
        )

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        check_connected(self, self.fusions, pair)
        distances, deeper = [], None
        for fusion, student, teacher in reversed(
            list(zip(self.fusions, pair.student, pair.teacher, strict=True))
        ):
            made, deeper = fusion(_as_map(student), deeper)
            distances.append(_distance(*common_area(made, _as_map(teacher))))
        return dict(loss_reviewkd=self.now(self.loss_weight) * sum(distances))

    def extra_repr(self) -> str:
        """The settings, for the log."""
        mid = self.mid_channels or f'up to {MOST_CHANNELS}'
        return f'{super().extra_repr()}, mid_channels={mid}'


class Fusion(nn.Module):
    """Attention based fusion of a level with what is deeper.

    Args:
        student: (1, C_s, H_s, W_s), the shape on the empty image.
        teacher: (1, C_t, H_t, W_t).
        mid_channels: M.
        fuses: Whether there is a deeper level.
    """

    def __init__(
        self, student: Shape, teacher: Shape, mid_channels: int, fuses: bool
    ) -> None:
        super().__init__()
        self.enter = _conv_bn(student[1], mid_channels, 1)
        self.leave = _conv_bn(mid_channels, teacher[1], 3)
        self.attention = (
            nn.Sequential(nn.Conv2d(2 * mid_channels, 2, 1), nn.Sigmoid())
            if fuses
            else None
        )
        self.ratio = tuple(
            t / s for s, t in zip(student[2:], teacher[2:], strict=True)
        )

    def forward(
        self, features: Tensor, deeper: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What is compared, and what goes on to the next finer level.

        Args:
            features: (B, C_s, H, W), the student's level.
            deeper: (B, M, H', W'), the second output of the deeper level.
        """
        fused = self.enter(features)
        if self.attention is not None:
            deeper = interpolate(deeper, fused.shape[2:], mode='nearest')
            share = self.attention(torch.cat([fused, deeper], 1))
            fused = fused * share[:, :1] + deeper * share[:, 1:]
        if self.ratio != (1, 1):
            nearest = partial(interpolate, mode='nearest')
            fused = resized(fused, self.ratio, nearest)
        return self.leave(fused), fused


def _conv_bn(channels: int, wanted: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, wanted, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.BatchNorm2d(wanted))


def _distance(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL of two maps of one shape."""
    total, weight, weights = mse_loss(student, teacher), 1.0, 1.0
    for side in POOLED:
        if side < student.shape[2]:
            weight /= 2
            weights += weight
            total = total + weight * mse_loss(
                adaptive_avg_pool2d(student, side),
                adaptive_avg_pool2d(teacher, side),
            )
    return total / weights


def _as_map(features: Tensor) -> Tensor:
    return features[..., None, None] if features.dim() == 2 else features


def _map_shape(shape: Shape) -> Shape:
    shape = (*shape, 1, 1) if len(shape) == 2 else tuple(shape)
    if len(shape) != 4:
        raise ValueError(
            'ReviewKDLoss compares maps (B, C, H, W) and vectors (B, C), got '
            f'the shape {shape}'
        )
    return shape
