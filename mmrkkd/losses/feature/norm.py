"""NORM: many copies of the teacher's last map, inside the student."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from mmrkkd.ops.checks import check_positive

from .base import FeatureLoss, FeaturePair, Shape, common_area
from .map_loss import check_maps


class NORMLoss(FeatureLoss):
    """Mean square error to N copies of the teacher's map, N-to-one.

    The student grows while it trains: after its last map f comes a residual
    of two linear layers, 1 x 1 convolutions without bias with BatchNorm, to
    N times the teacher's C channels and back::

        e         = expand(f)                        (N C channels)
        f'        = f + contract(e)                  (goes on to the head)
        loss_norm = w N mean (e - [f_t, ..., f_t])^2

    The mean is over images, channels and cells. Of unlike strides the finer
    of the two maps is max-pooled. Nothing between the residual and the
    classifier's linear layer is more than an average, and in evaluation
    BatchNorm is linear, so that this layer takes the residual in
    (:meth:`Residual.merged_into`): the state dict and checkpoints hold a
    plain student, merged. What it was merged from stands beside it, under
    ``distiller``, for a resumed run.

    Loaded weights of a plain student have no residual: it counts from the
    first step of training on.

    Args:
        student_layers: The last map of the student, before the average: one
            layer. Defaults to 'backbone[0]', of a backbone with one output.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule. The released code for CIFAR-100
            has ``dict(type='steps', values=[0.1, 0.5, 1, 0.5, 0.1],
            milestones=[10, 20, 180, 210])``; for ImageNet 0.9 in the middle
            and milestones 5, 15, 60 and 80. Defaults to 1.0.
        copies: N >= 1. Defaults to 8.
        logit_scale: Normalise the logits of both models over the classes,
            to mean 0 and biased deviation 1, and multiply them by this,
            before any loss sees them. As published it is 2.5, with cross
            entropy times 0.0625 to 0.5. Predictions are made of the
            plain logits, whose order is the same. Defaults to None, not to.

    Log keys: ``loss_norm``.

    Source: Liu et al., NORM: Knowledge Distillation via N-to-One
        Representation Matching, ICLR 2023, arXiv:2305.13803, and the
        released code.
    """

    grows_student = True

    def __init__(
        self,
        student_layers: str | Sequence[str] = 'backbone[0]',
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 1.0,
        copies: int = 8,
        logit_scale: float | None = None,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        if len(self.student_layers) > 1 or len(self.teacher_layers) > 1:
            raise ValueError(
                'NORMLoss takes one layer, the last map, got '
                f'{", ".join(self.student_layers)} of the student and '
                f'{", ".join(self.teacher_layers)} of the teacher'
            )
        if type(copies) is not int or copies < 1:
            raise ValueError(f'copies must be an integer >= 1, got {copies!r}')
        if logit_scale is not None:
            check_positive('logit_scale', logit_scale)
        self.copies, self.logit_scale = copies, logit_scale
        self.residual: Residual | None = None
        # Cells of the teacher for one of the student, down and across.
        self.ratio = 1.0

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """See :meth:`FeatureLoss.connect`."""
        if len(student_shapes) != 1 or len(teacher_shapes) != 1:
            raise ValueError(
                'NORMLoss takes one output of a layer, without [*], got '
                f'{len(student_shapes)} of the student and '
                f'{len(teacher_shapes)} of the teacher'
            )
        (student,), (teacher,) = student_shapes, teacher_shapes
        check_maps(student, teacher)
        self.ratio = teacher[2] / student[2]
        is_whole = self.ratio.is_integer() or (1 / self.ratio).is_integer()
        if not is_whole or self.ratio != teacher[3] / student[3]:
            raise ValueError(
                'NORMLoss pools the finer of two maps, so that both sides of '
                'one must be the same multiple of those of the other, got '
                f'{tuple(student)} of the student and {tuple(teacher)} of '
                'the teacher'
            )
        self.residual = Residual(student[1], self.copies * teacher[1])

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`.

        Where the residual has not run inside the student, the map is
        expanded here.
        """
        if self.residual is None:
            raise ValueError(
                'NORMLoss has no residual yet: call connect(student_shapes, '
                'teacher_shapes) before training, as the distillers do'
            )
        (student,), (teacher,) = pair.student, pair.teacher
        expanded = pair.expanded
        if expanded is None:
            expanded = self.residual.expand(student)
        expanded = expanded.to(student.dtype)
        if self.ratio > 1:
            teacher = max_pool2d(teacher, int(self.ratio))
        elif self.ratio < 1:
            expanded = max_pool2d(expanded, round(1 / self.ratio))
        expanded, teacher = common_area(expanded, teacher)
        copies = expanded.unflatten(1, (self.copies, -1))
        error = (copies - teacher[:, None]).square().mean()
        weight = self.now(self.loss_weight) * self.copies
        return dict(loss_norm=weight * error)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'{super().extra_repr()}, copies={self.copies}, '
            f'logit_scale={self.logit_scale}'
        )


class Residual(nn.Module):
    """Two linear layers beside a map, which a linear layer can take in.

    Args:
        channels: Of the map.
        wide: Of what is between the two layers.
    """

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.expand = _conv_bn(channels, wide)
        self.contract = _conv_bn(wide, channels)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to the same shape, and what is between, (B, W, ...)."""
        expanded = self.expand(features)
        return features + self.contract(expanded), expanded

    @property
    def counts(self) -> bool:
        """Whether it was trained; on a GPU the value is waited for."""
        return bool(self.contract[1].num_batches_tracked > 0)

    def forget(self) -> None:
        """From now on it does not count until it is trained again."""
        self.contract[1].num_batches_tracked.zero_()

    @torch.no_grad()
    def affine(self) -> tuple[Tensor, Tensor]:
        """What it does to a cell in evaluation: x -> M x + v.

        Returns:
            M, (C, C), and v, (C,), float64.
        """
        first, shift = _folded(*self.expand)
        second, last = _folded(*self.contract)
        matrix = second @ first
        matrix.diagonal().add_(1)
        return matrix, second @ shift + last

    @torch.no_grad()
    def merged_into(
        self, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A linear layer that does what it does after this residual.

        Computed in float64 and rounded once.

        Args:
            weight: (K, C), of the layer behind an average of the cells.
            bias: (K,).

        Returns:
            W M and b + W v, in their types.
        """
        matrix, vector = self.affine()
        wide = weight.double()
        return (
            (wide @ matrix).to(weight.dtype),
            (bias.double() + wide @ vector).to(bias.dtype),
        )


def _conv_bn(channels: int, wanted: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, wanted, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode='fan_out')
    return nn.Sequential(conv, nn.BatchNorm2d(wanted))


def _folded(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The weight (out, in) and the bias of both, in evaluation, float64."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale * norm.weight.double()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    return scale[:, None] * conv.weight.double().flatten(1), shift
