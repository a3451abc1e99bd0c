"""RKD: distances and angles between the images of a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import smooth_l1_loss

from mmrkkd.losses.schedule import build_schedule
from mmrkkd.ops.checks import check_flag

from .base import FeatureLoss, FeaturePair
from .unit import unit

# Numbers that the angles at some vertices may take at once.
BLOCK = 2**24
# So many last digits may equal embeddings differ by.
ROUNDINGS = 16


class RKDLoss(FeatureLoss):
    """Relations between embeddings: distances of pairs, angles of triples.

    With e_i the embedding of image i, (B, D), and h Huber's loss with its
    knee at 1::

        d_ij  = ||e_i - e_j|| / (mean of the distances > 0)
        a_ijk = <u_ij, u_ik>,   u_ij = (e_j - e_i) / ||e_j - e_i||
        loss_rkd_distance = w w_d sum_{ij} h(d_ij^s - d_ij^t) / B^2
        loss_rkd_angle    = w w_a sum_{ijk} h(a_ijk^s - a_ijk^t) / B^3

    The sums run over all pairs and triples. Those that repeat an image are
    0, so that the mean over distinct ones, which the paper writes, is
    B / (B - 1) and B^2 / ((B - 1) (B - 2)) times as large; the published
    weights belong to the sums here. The student's mean distance has a
    gradient. One image gives 0, and so do two, whose distance is its own
    mean and who have no angle. Images whose embeddings are equal, but for
    rounding, have no direction between them: cosines with it are 0 and pull
    at nothing. The dimensions of the two embeddings may differ; maps are
    flattened.

    The angles take B^3 numbers in time, not in memory: they are worked on
    some vertices at a time, and kept only where a gradient is.

    Args:
        student_layers: See :class:`FeatureLoss`. The published layer is the
            pooled vector, ``'neck'`` of a classifier.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule, of both terms. Defaults to 1.0.
        distance_weight: w_d >= 0, or a schedule. Defaults to 25.0, as in
            the CIFAR-100 tables.
        angle_weight: w_a >= 0, or a schedule. Defaults to 50.0.
        normalize: Divide each embedding by its norm first, as MMRazor's
            configs do. Defaults to False.

    Log keys: ``loss_rkd_distance``, ``loss_rkd_angle``.

    Source: Park et al., arXiv:1904.05068, eq. 7 to 12; weights those of the
        CIFAR-100 tables (Tian et al., arXiv:1910.10699).
    """

    # The distance of two, over its mean, is 1 on both sides.
    min_images = 3

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 1.0,
        distance_weight: float | dict = 25.0,
        angle_weight: float | dict = 50.0,
        normalize: bool = False,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        self.distance_weight = build_schedule(
            'distance_weight', distance_weight
        )
        self.angle_weight = build_schedule('angle_weight', angle_weight)
        self.normalize = check_flag('normalize', normalize)

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        distances, angles = [], []
        for student, teacher in zip(pair.student, pair.teacher, strict=True):
            student, teacher = student.flatten(1), teacher.flatten(1)
            if self.normalize:
                student, teacher = unit(student), unit(teacher)
            distances.append(
                smooth_l1_loss(_distances(student), _distances(teacher))
            )
            angles.append(_angle_loss(student, teacher))
        weight = self.now(self.loss_weight)
        return dict(
            loss_rkd_distance=weight
            * self.now(self.distance_weight)
            * sum(distances),
            loss_rkd_angle=weight * self.now(self.angle_weight) * sum(angles),
        )

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'{super().extra_repr()}, distance_weight={self.distance_weight}, '
            f'angle_weight={self.angle_weight}, normalize={self.normalize}'
        )


def _distances(embedding: Tensor) -> Tensor:
    """(B, D) -> (B, B), in units of the mean distance."""
    # By differences: sums of squares lose small distances of long vectors.
    distances = torch.cdist(
        embedding,
        embedding,
        compute_mode='donot_use_mm_for_euclid_dist',
    )
    apart = (distances > 0).sum()
    mean = distances.sum() / apart.clamp(min=1)
    return distances / torch.where(mean > 0, mean, 1.0)


def _angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """(B, D_s), (B, D_t) -> scalar."""
    images = len(student)
    width = max(student.shape[1], teacher.shape[1], images)
    block = max(BLOCK // (images * width), 1)
    total = 0.0
    for first in range(0, images, block):
        part = slice(first, min(first + block, images))
        total = total + smooth_l1_loss(
            _angles(student, part), _angles(teacher, part), reduction='sum'
        )
    return total / images**3


def _angles(embedding: Tensor, vertices: slice) -> Tensor:
    """(B, D) -> (V, B, B), the cosines at some vertices."""
    lengths = vector_norm(embedding.detach(), dim=1)
    longer = torch.maximum(lengths, lengths[vertices, None])
    least = ROUNDINGS * torch.finfo(embedding.dtype).eps * longer
    towards = unit(embedding - embedding[vertices, None], -1, least[..., None])
    return towards @ towards.mT
