"""ICKD: how the channels of a map go together."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmrkkd.ops.checks import check_flag

from .base import FeatureLoss, FeaturePair, Shape
from .map_loss import check_connected, check_maps
from .unit import unit


class ICKDLoss(FeatureLoss):
    """Square error between correlations of channels.

    With F an image's map of a layer, flattened to (C, H W), the student's
    after a learned 1 x 1 convolution without bias and BatchNorm that give
    it the teacher's C channels::

        G = F F', each row divided by its L2 norm
        loss_ickd = w sum_l ||G_s - G_t||_F^2 / (B C)

    The sizes of the maps may differ. The row of an empty channel is 0.

    Args:
        student_layers: See :class:`FeatureLoss`. The published layer is the
            last stage of the backbone.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule. Defaults to 2.5, the released
            value for CIFAR-100, which belongs to the division by C.
        by_entries: Divide by C^2, as the paper writes, instead of by C, as
            the released code does. Defaults to False, because the
            published weight is made for it.

    Log keys: ``loss_ickd``.

    Source: Liu et al., Exploring Inter-Channel Correlation for
        Diversity-preserved Knowledge Distillation, ICCV 2021, and the
        released code for CIFAR-100. That for ImageNet and segmentation was
        never released.
    """

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 2.5,
        by_entries: bool = False,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        self.by_entries = check_flag('by_entries', by_entries)
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
            self.connectors.append(
                nn.Sequential(
                    nn.Conv2d(student[1], teacher[1], 1, bias=False),
                    nn.BatchNorm2d(teacher[1]),
                )
            )

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        check_connected(self, self.connectors, pair)
        distances = []
        for connect, student, teacher in zip(
            self.connectors, pair.student, pair.teacher, strict=True
        ):
            difference = _correlations(connect(student)) - _correlations(
                teacher
            )
            images, channels = difference.shape[:2]
            count = images * channels ** (2 if self.by_entries else 1)
            distances.append(difference.square().sum() / count)
        return dict(loss_ickd=self.now(self.loss_weight) * sum(distances))

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return f'{super().extra_repr()}, by_entries={self.by_entries}'


def _correlations(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, C), rows of norm 1."""
    flat = features.flatten(2)
    return unit(flat @ flat.mT, dim=-1)
