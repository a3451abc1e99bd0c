"""FCFD: each network goes on from the other one's features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, mse_loss

from mmrkkd.ops import kl_divergence
from mmrkkd.ops.checks import check_positive

from ..schedule import build_schedule
from .base import FeatureLoss, FeaturePair, Shape, common_area, is_distributed
from .map_loss import check_maps

STUDENT, TEACHER = 0, 1


class FCFDLoss(FeatureLoss):
    """Features that look alike and do the same in the rest of a network.

    Learned bridges b_l bring the student's map of a layer l to the shape of
    the teacher's, bridges c_l the teacher's to that of the student's. In
    each step a few mixed paths are drawn: one network up to a layer m, a
    bridge, the other network from there on. With S layers, A(l) what a path
    from the student into the teacher has at the layer l > m, and z_p the
    logits at the end of a path p::

        d_l(x)       = mean (x - f_t,l)^2, at the last layer also
                       mean (avg relu x - avg relu f_t,l)^2
        loss_fcfd    = w (sum_l d_l(b_l(f_s,l)) + sum_p sum_{l>m} d_l(A_p(l)))
        loss_fcfd_kl = v T^2 sum_p KL(softmax(z_t / T) | softmax(z_p / T))

    The KL divergence is summed over the classes and averaged over the
    images; that of the student itself is :class:`KDLoss`, to stand beside
    this loss with the same T and weight 1. A bridge is a 3 x 3 convolution
    without bias, of stride 2 where the side of the map halves and 4 x 4
    transposed where it doubles, BatchNorm, and LeakyReLU of slope 0.1 where
    the map that it stands for is never negative.

    BatchNorm on mixed paths takes their own statistics, and running ones are
    kept of none: nothing reads them. The student is what it would be, and
    plain in the end. The teacher itself is in eval mode here, as for every
    loss; the released code runs it in training mode. Layers are compared as
    the backbones of this package put them out, VGG's after their ReLU.

    Mixed paths are computed in float32, under autocast too. Bridges that a
    step does not use get a gradient of 0. In a distributed run all
    processes draw the same paths, by the number of the iteration.

    Args:
        student_layers: From the first to the last, two or more: stages of a
            :class:`mmrkkd.backbones.staged.StagedBackbone`, such as
            ``'backbone.layer1'``, up to the last one, or ``'backbone[0]'``,
            its output. What lies between two of them is run as one.
        teacher_layers: See :class:`FeatureLoss`; maps of the same sides, or
            twice or half of them.
        loss_weight: w >= 0, or a schedule: the released code ramps it up
            over 20 epochs, ``dict(type='linear', stop=5.0, end=20)``, and
            has 0.02 in place of 5 for ResNet56 and ResNet20. Defaults to
            5.0.
        kl_weight: v >= 0, or a schedule; the released code has 0.2 for
            WRN-40-2 and WRN-16-2. Defaults to 1.0.
        temperature: T > 0. 8 for MobileNetV2 and ShuffleNetV2 students.
            Defaults to 4.0.
        paths: How many mixed paths a step draws, of the 2 (S - 1) that
            there are, no one twice. Defaults to 2.

    Log keys: ``loss_fcfd``, ``loss_fcfd_kl``.

    Source: Liu et al., Function-Consistent Feature Distillation, ICLR 2023,
        arXiv:2304.11832, and the released code for CIFAR-100.
    """

    needs_stages = True

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 5.0,
        kl_weight: float | dict = 1.0,
        temperature: float = 4.0,
        paths: int = 2,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        if len(self.student_layers) < 2:
            raise ValueError(
                'FCFDLoss changes from one network to the other between two '
                f'layers, got one, {self.student_layers[0]!r}'
            )
        most = 2 * (len(self.student_layers) - 1)
        if type(paths) is not int or not 0 < paths <= most:
            raise ValueError(
                f'paths must be a number from 1 to {most} for '
                f'{len(self.student_layers)} layers, got {paths!r}'
            )
        self.kl_weight = build_schedule('kl_weight', kl_weight)
        self.temperature = check_positive('temperature', temperature)
        self.paths = paths
        self.to_teacher, self.to_student = nn.ModuleList(), nn.ModuleList()

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """See :meth:`FeatureLoss.connect`."""
        ones = [True] * len(student_shapes)
        own, others = self.activated or (ones, ones)
        # No path changes at the last layer.
        pairs = list(zip(student_shapes, teacher_shapes, strict=True))
        self.to_teacher = nn.ModuleList(
            bridge(*pair, is_positive)
            for pair, is_positive in zip(pairs, others, strict=True)
        )
        self.to_student = nn.ModuleList(
            bridge(teacher, student, is_positive)
            for (student, teacher), is_positive in zip(
                pairs[:-1], own[:-1], strict=True
            )
        )

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        self._check(pair)
        teacher, last = pair.teacher, len(pair.teacher) - 1
        bridged = [
            connect(features)
            for connect, features in zip(
                self.to_teacher, pair.student, strict=True
            )
        ]
        total = sum(map(_distance, bridged, teacher))
        ends = [(bridged[last], teacher[last])]
        with torch.no_grad():
            target = pair.stages[TEACHER].scores(teacher[last])
        divergence, used = 0.0, set()
        for side, layer in self.draw():
            if side == STUDENT:
                features, rest = bridged[layer], pair.stages[TEACHER]
            else:
                used.add(layer)
                features = self.to_student[layer](teacher[layer])
                rest = pair.stages[STUDENT]
            for number in range(layer + 1, last + 1):
                features = rest.run(number, features)
                if side == STUDENT:
                    total = total + _distance(features, teacher[number])
            if side == STUDENT:
                ends.append((features, teacher[last]))
            divergence = (
                divergence
                + kl_divergence(
                    rest.scores(features), target, self.temperature
                ).mean()
            )
        total = total + sum(_distance(*map(_pooled, end)) for end in ends)
        scale = self.now(self.kl_weight) * self.temperature**2
        return dict(
            loss_fcfd=self.now(self.loss_weight) * total,
            loss_fcfd_kl=scale * divergence + self._unused(used),
        )

    def draw(self) -> list[tuple[int, int]]:
        """The mixed paths of this step.

        Returns:
            Where each begins, 0 in the student and 1 in the teacher, and
            its last layer there, from 0 to S - 2.
        """
        generator = None
        if is_distributed():
            generator = torch.Generator().manual_seed(self.progress.iteration)
        layers = len(self.to_student)
        order = torch.randperm(2 * layers, generator=generator)
        return [divmod(n, layers) for n in order[: self.paths].tolist()]

    def _unused(self, used: set[int]) -> Tensor | float:
        """0, of every bridge from the teacher that this step left out."""
        return 0.0 * sum(
            parameter.sum()
            for layer, connect in enumerate(self.to_student)
            if layer not in used
            for parameter in connect.parameters()
        )

    def _check(self, pair: FeaturePair) -> None:
        if len(self.to_teacher) != len(pair.student):
            raise ValueError(
                f'FCFDLoss has bridges for {len(self.to_teacher)} layers, got '
                f'{len(pair.student)}: call connect(student_shapes, '
                'teacher_shapes) before training, as the distillers do'
            )
        if pair.stages is None:
            raise ValueError(
                'FCFDLoss runs both networks from layer to layer, '
                'FeaturePair.stages, got None'
            )

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'{super().extra_repr()}, kl_weight={self.kl_weight}, '
            f'temperature={self.temperature:g}, paths={self.paths}'
        )


def bridge(source: Shape, target: Shape, is_positive: bool) -> nn.Sequential:
    """From a map of one network to one for the other.

    Args:
        source: (1, C, H, W).
        target: (1, C', H', W').
        is_positive: Whether the map that it stands for is never negative.

    Raises:
        ValueError: the sides are neither equal nor twice the others.
    """
    check_maps(source, target)
    channels, wanted = source[1], target[1]
    sides = source[2:], target[2:]
    if sides[0] == sides[1]:
        conv = nn.Conv2d(channels, wanted, 3, padding=1, bias=False)
    elif all(s == 2 * t for s, t in zip(*sides, strict=True)):
        conv = nn.Conv2d(channels, wanted, 3, 2, padding=1, bias=False)
    elif all(2 * s == t for s, t in zip(*sides, strict=True)):
        conv = nn.ConvTranspose2d(
            channels, wanted, 4, 2, padding=1, bias=False
        )
    else:
        raise ValueError(
            'FCFDLoss bridges maps whose sides are equal, or twice those of '
            f'the others, got {tuple(source)} and {tuple(target)}'
        )
    nn.init.kaiming_normal_(conv.weight, mode='fan_out')
    parts = [conv, nn.BatchNorm2d(wanted)]
    return nn.Sequential(*parts, *[nn.LeakyReLU(0.1)] * is_positive)


def _distance(features: Tensor, teacher: Tensor) -> Tensor:
    return mse_loss(*common_area(features, teacher))


def _pooled(features: Tensor) -> Tensor:
    return adaptive_avg_pool2d(features.relu(), 1)
