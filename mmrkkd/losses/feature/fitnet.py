"""FitNet: the student's maps, regressed onto the teacher's."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmrkkd.ops.checks import check_choice

from .base import FeatureLoss, FeaturePair, Shape, common_area
from .map_loss import check_connected

CONNECTORS = ('conv_bn_relu', 'conv')


class FitNetLoss(FeatureLoss):
    """Mean square error between connected and teacher's feature maps.

    ::

        loss_fitnet = w sum_l mean (phi_l(f_s) - f_t)^2

    over the layers l; the mean is over images, channels and cells. phi is
    a learned convolution that gives the student's map the teacher's shape:
    of stride 2 where the student's side is twice the teacher's, transposed
    of stride 2 where it is half, without padding where it is larger by some
    cells, and 1 x 1 where the two are equal.

    Args:
        student_layers: See :class:`FeatureLoss`.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule. Defaults to 100.0, the value
            of the CIFAR-100 tables.
        connector: 'conv_bn_relu', as in those tables, for maps after a
            ReLU; 'conv', the convolution alone, for maps that may be
            negative, such as a pyramid's. Defaults to 'conv_bn_relu'.

    Log keys: ``loss_fitnet``.

    Source: Romero et al., arXiv:1412.6550; connector and weight those of
        the CIFAR-100 tables (Tian et al., arXiv:1910.10699).
    """

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 100.0,
        connector: str = 'conv_bn_relu',
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        check_choice('connector', connector, CONNECTORS)
        self.connector = connector
        self.connectors = nn.ModuleList()

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """See :meth:`FeatureLoss.connect`."""
        self.connectors = nn.ModuleList(
            self._connector(student, teacher)
            for student, teacher in zip(
                student_shapes, teacher_shapes, strict=True
            )
        )

    def _connector(self, student: Shape, teacher: Shape) -> nn.Module:
        layer = join_maps(student, teacher)
        if self.connector == 'conv':
            return layer
        return nn.Sequential(layer, nn.BatchNorm2d(teacher[1]), nn.ReLU())

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        check_connected(self, self.connectors, pair)
        distances = []
        for connect, student, teacher in zip(
            self.connectors, pair.student, pair.teacher, strict=True
        ):
            _check_fit(connect, student, teacher)
            student, teacher = common_area(connect(student), teacher)
            distances.append((student - teacher).square().mean())
        return dict(loss_fitnet=self.now(self.loss_weight) * sum(distances))

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return f'{super().extra_repr()}, connector={self.connector}'


def _check_fit(connect: nn.Module, student: Tensor, teacher: Tensor) -> None:
    """Refuses maps for which a convolution without padding was not made."""
    layer = connect[0] if isinstance(connect, nn.Sequential) else connect
    lost = layer.kernel_size[0] - 1
    sides = student.shape[2:], teacher.shape[2:]
    if (
        lost
        and layer.padding == (0, 0)
        and any(s - t != lost for s, t in zip(*sides, strict=True))
    ):
        raise ValueError(
            'FitNetLoss joins maps whose sides differ by '
            f'{lost} cells on the empty image, and here they have '
            f'{tuple(sides[0])} and {tuple(sides[1])} cells: set feature_size '
            'to the side of the images in pixels, or choose layers of one '
            'stride'
        )


def join_maps(student: Shape, teacher: Shape) -> nn.Module:
    """A convolution from the shape of one map to that of another.

    Args:
        student: (1, C_s, H_s, W_s).
        teacher: (1, C_t, H_t, W_t).

    Returns:
        The convolution, with bias.

    Raises:
        ValueError: there is none that would do, or one is no map.
    """
    if len(student) != 4 or len(teacher) != 4:
        raise ValueError(
            'FitNetLoss joins maps (B, C, H, W), got shapes '
            f'{tuple(student)} and {tuple(teacher)}'
        )
    channels, wanted = student[1], teacher[1]
    if student[2:] == teacher[2:]:
        return nn.Conv2d(channels, wanted, 1)
    size, goal = student[2], teacher[2]
    square = student[2] == student[3] and teacher[2] == teacher[3]
    if square and size == 2 * goal:
        return nn.Conv2d(channels, wanted, 3, stride=2, padding=1)
    if square and 2 * size == goal:
        return nn.ConvTranspose2d(channels, wanted, 4, stride=2, padding=1)
    if square and size > goal:
        return nn.Conv2d(channels, wanted, 1 + size - goal)
    raise ValueError(
        f"a student's map of {student[2]} x {student[3]} cells cannot be "
        f"joined with a teacher's of {teacher[2]} x {teacher[3]}: choose "
        'layers of one stride, or of strides that differ by a factor of 2'
    )
