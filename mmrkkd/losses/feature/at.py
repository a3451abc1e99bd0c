"""AT: where a network looks."""

from collections.abc import Sequence

from torch import Tensor

from mmrkkd.ops.checks import check_positive

from .base import FeaturePair
from .map_loss import MapLoss
from .unit import unit


class ATLoss(MapLoss):
    """Mean square error between attention maps.

    With the attention map of a layer l, one value for each of its M cells::

        a      = mean_c |f_c|^p,     A = a / ||a||_2 over the cells
        loss_at = w sum_l mean (A_s - A_t)^2

    The mean is over images and cells. The channels may differ. Of maps of
    unlike strides the finer one is averaged to the grid of the other. A map
    of one cell adds 0; if all of them have one, that is refused.

    Args:
        student_layers: See :class:`FeatureLoss`; maps.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule. Defaults to 1000.0, the value
            of the CIFAR-100 tables, on the outputs of all stages.
        power: p >= 1. Defaults to 2.0.

    Log keys: ``loss_at``.

    Source: Zagoruyko and Komodakis, arXiv:1612.03928, eq. 2 (whose sum over
        the cells is a mean in the released code and here); weight that of
        the CIFAR-100 tables (Tian et al., arXiv:1910.10699).
    """

    joins_channels = False
    pools = True
    needs_cells = True

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 1000.0,
        power: float = 2.0,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        self.power = check_positive('power', power)
        if power < 1:
            raise ValueError(
                'power must be >= 1, got '
                f'{power!r}: below it the slope at 0 is infinite, where '
                'many features are. Use 1.0 or 2.0'
            )

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        distances = [
            (self._attention(student) - self._attention(teacher))
            .square()
            .mean()
            for student, teacher in self.joined(pair)
        ]
        return dict(loss_at=self.now(self.loss_weight) * sum(distances))

    def _attention(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H W), of norm 1, or 0 for an empty map."""
        energy = features.abs().pow(self.power).mean(1)
        return unit(energy.flatten(1))

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return f'{super().extra_repr()}, power={self.power:g}'
