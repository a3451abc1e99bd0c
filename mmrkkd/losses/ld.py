"""Localization distillation: where the sides of a box are."""

from torch import Tensor

from mmrkkd.ops import kl_divergence
from mmrkkd.ops.checks import check_positive

from .base import LogitLoss
from .placement import Placement, Select
from .schedule import build_schedule


class LDLoss(LogitLoss):
    """Divergence of the distributions of a box's sides.

    GFL says of each side of a box how likely it is at each of K distances.
    With z_s, z_t the logits of the distances of one side::

        loss_ld = w T^2 mean_k p_t(k) (log p_t(k) - log p_s(k)),
        p = softmax(z / T)

    averaged over the distances, as in the published code, over the four
    sides and over the cells where the loss applies. In a detector its
    samples are the sides of all boxes, whatever the class scores; it
    applies at ``locations='foreground'`` unless its config says otherwise.

    Zheng et al. weigh each positive cell by the student's highest score of a
    class, and add the cells of a "valuable localization region": here
    positives weigh the same. CrossKD has T = 1, w = 4 of the sum over the
    distances, and the teacher's highest score as the weight:
    ``temperature=1.0, loss_weight=68.0, locations='confidence'``, 4 times
    the reg_max + 1 = 17 distances of GFL.

    Args:
        temperature: T > 0. Defaults to 10.0, as published.
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 0.25, as published.

    Log keys: ``loss_ld``.

    Source: Zheng et al., "Localization Distillation for Dense Object
        Detection", CVPR 2022, arXiv:2102.12252; Wang et al. (CrossKD),
        arXiv:2306.11369.
    """

    activations = ('softmax', 'sigmoid')
    asks_for = ('bins',)
    # Of a detector's classes; of distances there are always more.
    min_classes = 1
    default_locations = 'foreground'
    apart = True

    def __init__(
        self, temperature: float = 10.0, loss_weight: float | dict = 0.25
    ) -> None:
        super().__init__()
        self.temperature = check_positive('temperature', temperature)
        self.loss_weight = build_schedule('loss_weight', loss_weight)

    def located(
        self, select: Select, bins: tuple[Tensor, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """See :meth:`Placed.located`.

        Args:
            select: As there; of it the weights and the normalizer count.
            bins: The student's and the teacher's logits, (N, 4, K) each.
        """

        def select_sides(placement: Placement) -> tuple:
            *_, weight, total = select(placement)
            if weight is not None:
                weight = weight[:, None].expand(-1, 4)
            # A mean over the four sides of what is counted by cells.
            return *bins, None, weight, None if total is None else 4 * total

        return super().located(select_sides)

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`; the classes are distances."""
        divergence = kl_divergence(
            student_logits, teacher_logits, self.temperature
        )
        scale = self.now(self.loss_weight) * self.temperature**2
        return dict(loss_ld=scale * divergence / student_logits.shape[-1])

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'temperature={self.temperature:g}, loss_weight={self.loss_weight}'
        )
