"""CAT-KD: class activation maps, transferred."""

from collections.abc import Sequence

from torch import Tensor, einsum
from torch.nn.functional import adaptive_avg_pool2d, mse_loss

from mmrkkd.ops.checks import check_flag

from .base import FeatureLoss, FeaturePair, Shape
from .map_loss import check_maps, single_cell
from .unit import unit


class CATKDLoss(FeatureLoss):
    """Mean square error between class activation maps.

    With V the weights of a classifier's linear layer, (K, C), and f its
    last map, averaged over r x r regions::

        CAM_k      = sum_c V_kc f_c                     (K maps, r x r)
        loss_catkd = w mean (CAM_s - CAM_t)^2

    The mean is over images, classes and cells. Their own mean are the
    scores without bias. The released code puts the linear layer of both
    networks before the average, without its bias; here the student stays
    what it is, bias included, with the same maps and gradients. The
    channels and the sizes of the two maps may differ; classes are those
    that both know.

    Args:
        student_layers: The last map of the student, before the average.
            Defaults to 'backbone[0]', of a backbone with one output.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule. Each pair has its own on
            CIFAR-100: 15 for ResNet32x4 and ResNet8x4, 12 for WRN-40-2 and
            WRN-16-2, 1.5 for WRN-40-2 and WRN-40-1, 4.5 for VGG13 and VGG8,
            1.8 for ResNet110 and ResNet32, 0.7 for ResNet56 and ResNet20,
            all with resolution 2 and not normalised; 600 (ResNet32x4) and
            80 (WRN-40-2) for ShuffleNets, with 4 and normalised; 40
            (ResNet50) and 15 (VGG13) for MobileNetV2, with 2 and
            normalised. Defaults to 15.0.
        resolution: r >= 1, > 1 with ``normalize``. Defaults to 2.
        normalize: Divide each map by its L2 norm over the cells, which
            leaves nothing of a single one but its sign; an empty one stays
            0. Defaults to False.

    Log keys: ``loss_catkd``.

    Source: Guo et al., Class Attention Transfer Based Knowledge
        Distillation, CVPR 2023, arXiv:2304.12777, and the released code.
    """

    needs_classifiers = True

    def __init__(
        self,
        student_layers: str | Sequence[str] = 'backbone[0]',
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 15.0,
        resolution: int = 2,
        normalize: bool = False,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        if type(resolution) is not int or resolution < 1:
            raise ValueError(
                'resolution must be a number of cells >= 1, got '
                f'{resolution!r}'
            )
        self.resolution = resolution
        self.normalize = check_flag('normalize', normalize)
        if normalize and resolution == 1:
            raise ValueError(
                'resolution must be > 1 with normalize=True, got 1: of a map '
                'of one cell its norm leaves nothing to learn'
            )

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """See :meth:`FeatureLoss.connect`."""
        for student, teacher in zip(
            student_shapes, teacher_shapes, strict=True
        ):
            check_maps(student, teacher)

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        if pair.classifiers is None:
            raise ValueError(
                'CATKDLoss needs the weights of both linear layers, '
                'FeaturePair.classifiers, got None'
            )
        cells = max(value.shape[-2:].numel() for value in pair.student)
        if self.normalize and cells == 1:
            raise single_cell(self, pair)
        student_weights, teacher_weights = pair.classifiers
        distances = [
            mse_loss(
                self._maps(student, student_weights),
                self._maps(teacher, teacher_weights),
            )
            for student, teacher in zip(
                pair.student, pair.teacher, strict=True
            )
        ]
        return dict(loss_catkd=self.now(self.loss_weight) * sum(distances))

    def _maps(self, features: Tensor, weights: Tensor) -> Tensor:
        """(B, C, H, W), (K, C) -> (B, K, r, r)."""
        # Averages of regions, then sums over the channels: they commute.
        pooled = adaptive_avg_pool2d(features, self.resolution)
        maps = einsum('kc,bchw->bkhw', weights, pooled)
        return unit(maps, dim=(2, 3)) if self.normalize else maps

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'{super().extra_repr()}, resolution={self.resolution}, '
            f'normalize={self.normalize}'
        )
