"""Losses that compare a student's and a teacher's map cell by cell."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from .base import (
    FeatureLoss,
    FeaturePair,
    LayersError,
    Shape,
    common_area,
)

# By how much a product with a rounded ratio may miss a number of cells.
SLACK = 1e-6


class MapConnector(nn.Module):
    """Brings a student's and a teacher's map onto one grid of cells.

    Maps of one stride are cut to the area that both have
    (:func:`common_area`). Of unlike strides one is resized first, by the
    ratio that the shapes of the empty image have, so that padding of unlike
    sizes moves nothing; cells that the other grid has only a part of are
    left out (:func:`resized`). Where the channels differ the student's get a
    learned 1 x 1 convolution, with bias.

    Args:
        student: (1, C_s, H_s, W_s), the shape on the empty image.
        teacher: (1, C_t, H_t, W_t).
        joins_channels: Learn that convolution. Defaults to True.
        pools: Average the finer of the two maps; by default the student's
            is interpolated bilinearly to the teacher's grid.

    Raises:
        ValueError: one is no map.
    """

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        joins_channels: bool = True,
        pools: bool = False,
    ) -> None:
        super().__init__()
        check_maps(student, teacher)
        joins = joins_channels and student[1] != teacher[1]
        self.channels = (
            nn.Conv2d(student[1], teacher[1], 1) if joins else nn.Identity()
        )
        # Cells of the teacher for each cell of the student, down and across.
        self.ratio = tuple(
            t / s for s, t in zip(student[2:], teacher[2:], strict=True)
        )
        self.pools = pools

    def forward(
        self, student: Tensor, teacher: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The two maps, (B, C, H, W) each, C differing if not joined."""
        student = self.channels(student)
        if self.ratio != (1, 1):
            if self.pools:
                down = [min(ratio, 1) for ratio in self.ratio]
                up = [min(1 / ratio, 1) for ratio in self.ratio]
                student = resized(student, down, adaptive_avg_pool2d)
                teacher = resized(teacher, up, adaptive_avg_pool2d)
            else:
                linear = partial(interpolate, mode='bilinear')
                student = resized(student, self.ratio, linear)
        return common_area(student, teacher)

    def sides(self, student: Tensor) -> tuple[float, float]:
        """Height and width of the student's map in cells of the teacher."""
        return tuple(
            side * ratio
            for side, ratio in zip(student.shape[2:], self.ratio, strict=True)
        )

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return f'ratio={self.ratio}, pools={self.pools}'


class MapLoss(FeatureLoss):
    """Base of the losses whose layers are joined by a :class:`MapConnector`.

    A subclass implements :meth:`per_batch` with the maps of :meth:`joined`.
    One that compares the cells of a map with each other sets
    ``needs_cells``: a single cell has nothing to be compared with.
    """

    is_base = True
    joins_channels = True
    pools = False
    needs_cells = False

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 1.0,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        self.connectors = nn.ModuleList()

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """See :meth:`FeatureLoss.connect`."""
        self.connectors = nn.ModuleList(
            MapConnector(student, teacher, self.joins_channels, self.pools)
            for student, teacher in zip(
                student_shapes, teacher_shapes, strict=True
            )
        )

    def joined(self, pair: FeaturePair) -> Iterator[tuple[Tensor, Tensor]]:
        """The student's and the teacher's map of each layer, on one grid.

        Raises:
            ValueError: :meth:`connect` was not called for these layers, or
                none of them has more than a cell and ``needs_cells`` is
                set.
        """
        check_connected(self, self.connectors, pair)
        most = 0
        for connector, student, teacher in zip(
            self.connectors, pair.student, pair.teacher, strict=True
        ):
            maps = connector(student, teacher)
            most = max(most, maps[0].shape[-2:].numel())
            yield maps
        # One layer of several may have a single cell, where images are small.
        if self.needs_cells and most == 1:
            raise single_cell(self, pair)


def resized(
    features: Tensor,
    ratio: Sequence[float],
    resize: Callable[[Tensor, list[int]], Tensor],
) -> Tensor:
    """A map on a grid of another stride, without what is no whole cell.

    Of 25 rows at half the resolution the first 24 become 12: all 25 would
    be stretched to them, and each row would stand further off its place.

    Args:
        features: (B, C, H, W).
        ratio: Cells of that grid for each of its own, down and across.
        resize: From a map and a size in cells to a map of this size.
    """
    sizes = whole_cells(
        side * each
        for side, each in zip(features.shape[2:], ratio, strict=True)
    )
    height, width = (
        math.ceil(size / each - SLACK)
        for size, each in zip(sizes, ratio, strict=True)
    )
    return resize(features[..., :height, :width], sizes)


def whole_cells(sides: Iterable[float]) -> list[int]:
    """How many whole cells there are on each side, at least one."""
    return [max(int(side + SLACK), 1) for side in sides]


def check_maps(student: Shape, teacher: Shape) -> None:
    """Refuses what is no map.

    Raises:
        ValueError: one of the shapes has not four dimensions.
    """
    if len(student) != 4 or len(teacher) != 4:
        raise ValueError(
            'cells are compared of maps (B, C, H, W), got shapes '
            f'{tuple(student)} of the student and {tuple(teacher)} of the '
            'teacher: name layers that put out maps'
        )


def single_cell(loss: FeatureLoss, pair: FeaturePair) -> LayersError:
    """What to raise of maps of one cell, which teach a loss nothing."""
    own, others = (
        ', '.join(map(repr, layers))
        for layers in (loss.student_layers, loss.teacher_layers)
    )
    size = pair.input_shape
    images = f' of images of {size[0]} x {size[1]} pixels' if size else ''
    return LayersError(
        f'{type(loss).__name__} compares the cells of a map with each other, '
        f'and student_layers {own} beside teacher_layers {others} is a map '
        f'of 1 x 1 cells{images}, from which nothing is learned: name an '
        'earlier stage',
        loss,
    )


def check_connected(
    loss: FeatureLoss, modules: nn.ModuleList, pair: FeaturePair
) -> None:
    """Refuses layers for which :meth:`FeatureLoss.connect` was not called.

    Raises:
        ValueError: there are not as many modules as layers.
    """
    if len(modules) != len(pair.student):
        raise ValueError(
            f'{type(loss).__name__} has learned modules for {len(modules)} '
            f'layers, got {len(pair.student)}: call '
            'connect(student_shapes, teacher_shapes) before training, as the '
            'distillers do'
        )
