"""FGFI: maps imitated where anchors are near objects."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmrkkd.ops.checks import check_choice

from .base import FeatureLoss, FeaturePair, Shape, common_area
from .map_loss import check_connected, check_maps
from .object_masks import near_anchors, object_boxes

CONNECTORS = ('conv_relu', 'conv')
STD = 1e-4


class FGFILoss(FeatureLoss):
    """Square error between maps, in cells whose anchors are near an object.

    A cell is near an annotated box if the IoU of one of its anchors with it
    is above ``share`` times the highest IoU of any anchor of that level
    with it; m is 1 there, the union over the boxes, and 0 elsewhere. With
    phi a learned 3 x 3 convolution and ReLU::

        loss_fgfi = w sum_l sum m (phi(f_s) - f_t)^2 / (2 sum m)

    The sum in the numerator runs over images, channels and cells, that in
    the denominator over images and cells. A level without such cells adds
    nothing. The paper has one level; of a pyramid every level has the
    anchors of its own, which are those of the student's head.

    Args:
        student_layers: See :class:`FeatureLoss`; levels that the student's
            anchors stand on, such as ``'neck[*]'``.
        teacher_layers: See :class:`FeatureLoss`; of the same strides.
        loss_weight: w >= 0, or a schedule. The released code leaves the
            first 400 iterations out: ``dict(type='linear', begin=400,
            end=401, stop=0.01, by='iteration')``. Defaults to 0.01.
        share: In (0, 1), psi in the paper. Defaults to 0.5.
        connector: 'conv_relu', as published, for maps after a ReLU; 'conv',
            the convolution alone, for maps that may be negative, such as a
            pyramid's. Defaults to 'conv_relu'.

    Log keys: ``loss_fgfi``.

    Source: Wang et al., arXiv:1906.03609, eq. 1 to 4; weight and initial
        values of phi (normal, of deviation 1e-4) of the released code.
    """

    needs_anchors = True

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 0.01,
        share: float = 0.5,
        connector: str = 'conv_relu',
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        if not isinstance(share, (int, float)) or not 0 < share < 1:
            raise ValueError(f'share must be in (0, 1), got {share!r}')
        check_choice('connector', connector, CONNECTORS)
        self.share, self.connector = float(share), connector
        self.connectors = nn.ModuleList()

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """See :meth:`FeatureLoss.connect`."""
        self.connectors = nn.ModuleList()
        for student, teacher in zip(
            student_shapes, teacher_shapes, strict=True
        ):
            check_maps(student, teacher)
            if student[2:] != teacher[2:]:
                raise ValueError(
                    'FGFILoss compares the cells of the same anchors, so '
                    'both layers must have one stride, got maps of '
                    f'{student[2]} x {student[3]} and '
                    f'{teacher[2]} x {teacher[3]} cells'
                )
            conv = nn.Conv2d(student[1], teacher[1], 3, padding=1)
            nn.init.normal_(conv.weight, std=STD)
            nn.init.zeros_(conv.bias)
            relu = [nn.ReLU()] if self.connector == 'conv_relu' else []
            self.connectors.append(nn.Sequential(conv, *relu))

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        check_connected(self, self.connectors, pair)
        boxes = object_boxes('FGFILoss', pair)
        if pair.anchors is None:
            raise ValueError(
                'FGFILoss needs the anchors of its layers, '
                'FeaturePair.anchors, got None'
            )
        distances = []
        for connect, student, teacher, anchors in zip(
            self.connectors,
            pair.student,
            pair.teacher,
            pair.anchors,
            strict=True,
        ):
            mask = torch.stack(
                [near_anchors(anchors, each, self.share) for each in boxes]
            )
            student, teacher = common_area(connect(student), teacher)
            mask, _ = common_area(mask[:, None].to(student.dtype), student)
            error = (mask * (student - teacher).square()).sum()
            distances.append(error / (2 * mask.sum().clamp(min=1)))
        return dict(loss_fgfi=self.now(self.loss_weight) * sum(distances))

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'{super().extra_repr()}, share={self.share:g}, '
            f'connector={self.connector}'
        )
