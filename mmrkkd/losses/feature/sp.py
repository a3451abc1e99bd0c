"""SP: which images of a batch resemble each other."""

from collections.abc import Sequence

from torch import Tensor

from .base import FeatureLoss, FeaturePair
from .unit import unit


class SPLoss(FeatureLoss):
    """Square error between matrices of similarities of the images.

    With F the features of a layer, flattened to (B, D), for B images::

        G = F F', each row divided by its L2 norm
        loss_sp = w sum_l ||G_s - G_t||_F^2 / B^2

    Features of any shape go together: maps of other channels, strides or
    sizes, or vectors. Of one image it is 0. An image without features
    resembles none: its row is 0.

    Args:
        student_layers: See :class:`FeatureLoss`. The published layer is the
            last stage of the backbone.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule. Defaults to 3000.0, the value
            of the CIFAR-100 tables.

    Log keys: ``loss_sp``.

    Source: Tung and Mori, arXiv:1907.09682, eq. 4; weight that of the
        CIFAR-100 tables (Tian et al., arXiv:1910.10699).
    """

    min_images = 2

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 3000.0,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        distances = [
            (_similarities(student) - _similarities(teacher)).square().mean()
            for student, teacher in zip(
                pair.student, pair.teacher, strict=True
            )
        ]
        return dict(loss_sp=self.now(self.loss_weight) * sum(distances))


def _similarities(features: Tensor) -> Tensor:
    """(B, ...) -> (B, B), rows of norm 1."""
    flat = features.flatten(1)
    return unit(flat @ flat.T)
