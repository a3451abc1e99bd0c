"""PKD: maps compared up to the scale and shift of their channels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import FeaturePair
from .map_loss import MapLoss

EPS = 1e-6
# So many last digits may equal cells differ by.
ROUNDINGS = 4


class PKDLoss(MapLoss):
    """Half the mean square error between standardised channels.

    For each channel over the n = B H W cells of the batch::

        z = (f - mean(f)) / (std(f) + eps)     (n - 1 in the deviation)
        loss_pkd = w sum_l mean (z_s - z_t)^2 / 2

    which is (n - 1) / n (1 - r), r Pearson's correlation, averaged over the
    channels. The student's mean and deviation have a gradient; a channel
    that is constant, but for rounding, has z = 0 and no gradient. The cells
    of padding count as any others, as in the released code.

    Where the channels differ, a 1 x 1 convolution joins them, which the
    paper does without; of unlike strides the student's map is interpolated
    to the teacher's grid.

    Args:
        student_layers: See :class:`FeatureLoss`; maps, such as the levels
            of a pyramid.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule. Defaults to 6.0, the released
            value for two-stage detectors, on ``'neck[0]'`` to
            ``'neck[3]'``; it is 10.0 for one-stage detectors.

    Log keys: ``loss_pkd``.

    Source: Cao et al., arXiv:2207.02039, eq. 2 and 3, and MMRazor's code,
        which is theirs (eps = 1e-6).
    """

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 6.0,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        distances = [
            (_standardized(student) - _standardized(teacher)).square().mean()
            / 2
            for student, teacher in self.joined(pair)
        ]
        return dict(loss_pkd=self.now(self.loss_weight) * sum(distances))


def _standardized(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (C, B H W)."""
    channels = features.transpose(0, 1).flatten(1)
    centred = channels - channels.mean(1, keepdim=True)
    freedom = max(channels.shape[1] - 1, 1)
    variance = centred.square().sum(1, keepdim=True) / freedom
    with torch.no_grad():
        # On a CPU faster than both in one.
        low, high = channels.amin(1, True), channels.amax(1, True)
        tiny = ROUNDINGS * torch.finfo(channels.dtype).eps
        flat = high - low <= tiny * torch.maximum(-low, high)
        # Squares of tiny numbers may be 0 as well.
        flat |= variance == 0
    # The root has no slope at 0.
    deviation = variance.masked_fill(flat, 1.0).sqrt()
    return (centred / (deviation + EPS)).masked_fill(flat, 0.0)
