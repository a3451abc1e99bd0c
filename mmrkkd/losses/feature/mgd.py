"""MGD: the teacher's map, made from a part of the student's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmrkkd.ops.checks import check_choice

from .base import FeaturePair, Shape
from .map_loss import MapLoss

MASKS = ('cells', 'channels')


class MGDLoss(MapLoss):
    """Square error between the teacher's map and one generated from part.

    With m a fresh random mask of zeros (share q) and ones for each step and
    layer, and G a learned 3 x 3 convolution, ReLU, 3 x 3 convolution of the
    teacher's channels::

        loss_mgd = w sum_l sum (G(m f_s) - f_t)^2 / B

    The inner sum is over images, channels and cells. Where the channels
    differ a 1 x 1 convolution joins them first; of unlike strides the
    student's map is interpolated to the teacher's grid.

    Args:
        student_layers: See :class:`FeatureLoss`; maps.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule. Defaults to 5e-7, the released
            value for two-stage detectors; 2e-5 for RetinaNet, RepPoints and
            SOLO, 7e-5 on ImageNet. The sum grows with the maps, so that a
            weight belongs to its kind of model.
        masked: q in [0, 1). Defaults to 0.45, as released for two-stage
            detectors; 0.65 and 0.15 for the others named above.
        mask: 'cells', one draw for each cell, which all channels share;
            'channels', one for each channel of an image, as the released
            code for classifiers has it (its paper says cells). Defaults to
            'cells'.

    Log keys: ``loss_mgd``.

    Source: Yang et al., arXiv:2205.01529, eq. 3 to 5, and the released
        code.
    """

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 5e-7,
        masked: float = 0.45,
        mask: str = 'cells',
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        check_choice('mask', mask, MASKS)
        if not isinstance(masked, (int, float)) or not 0 <= masked < 1:
            raise ValueError(
                'masked must be the share of what is hidden, in [0, 1), got '
                f'{masked!r}'
            )
        self.masked, self.mask = float(masked), mask
        self.generators = nn.ModuleList()

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """See :meth:`FeatureLoss.connect`."""
        super().connect(student_shapes, teacher_shapes)
        self.generators = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for _, channels, *_ in teacher_shapes
        )

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        distances = []
        for (student, teacher), generate in zip(
            self.joined(pair), self.generators, strict=True
        ):
            made = generate(student * self.draw(student))
            distances.append((made - teacher).square().sum() / len(made))
        return dict(loss_mgd=self.now(self.loss_weight) * sum(distances))

    def draw(self, student: Tensor) -> Tensor:
        """A mask for a map (B, C, H, W), which it is multiplied with."""
        images, channels, height, width = student.shape
        shape = (
            (images, 1, height, width)
            if self.mask == 'cells'
            else (images, channels, 1, 1)
        )
        kept = torch.rand(shape, device=student.device) >= self.masked
        return kept.to(student.dtype)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return f'{super().extra_repr()}, masked={self.masked:g}, {self.mask}'
