"""CWD: where in a map each channel is active."""

from collections.abc import Sequence

from torch import Tensor

from mmrkkd.ops.checks import check_positive

from .base import FeaturePair
from .map_loss import MapLoss


class CWDLoss(MapLoss):
    """KL divergence between the channels' distributions over the cells.

    ::

        p = softmax over the cells of f / T, for each image and channel
        loss_cwd = w sum_l T^2 / (B C) sum KL(p_t || p_s)

    Cells of padding take part, as in the public codes. Where the channels
    differ a 1 x 1 convolution joins them; of unlike strides the student's
    map is interpolated to the teacher's grid. A map of one cell adds 0; if
    all of them have one, that is refused.

    Args:
        student_layers: See :class:`FeatureLoss`; maps: the levels of a
            pyramid, or the class scores of a dense head
            (``'bbox_head.gfl_cls[*]'``).
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule. Defaults to 10.0, MMRazor's
            value for the levels of Faster R-CNN and RetinaNet; it is 5.0 on
            the class scores of GFL.
        temperature: T > 0. Defaults to 1.0, as there; segmentation takes 4.

    Log keys: ``loss_cwd``.

    Source: Shu et al., arXiv:2011.13256, eq. 3 and 4.
    """

    needs_cells = True

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 10.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        self.temperature = check_positive('temperature', temperature)

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        distances = [
            self._divergence(student.flatten(2), teacher.flatten(2)).mean()
            for student, teacher in self.joined(pair)
        ]
        return dict(loss_cwd=self.now(self.loss_weight) * sum(distances))

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B, C, M) each -> T^2 KL, (B, C)."""
        student = (student / self.temperature).log_softmax(-1)
        teacher = (teacher / self.temperature).log_softmax(-1)
        kl = (teacher.exp() * (teacher - student)).sum(-1)
        return self.temperature**2 * kl

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return f'{super().extra_repr()}, temperature={self.temperature:g}'
