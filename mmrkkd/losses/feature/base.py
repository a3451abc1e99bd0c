"""What every loss between feature maps has in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from mmrkkd.losses.base import DistillationLoss
from mmrkkd.losses.schedule import build_schedule
from mmrkkd.ops.backends.autograd import keepable

Shape = tuple[int, ...]


class LayersError(ValueError):
    """The layers that are named do not fit their loss.

    Args:
        text: What to say.
        loss: The loss.
    """

    def __init__(self, text: str, loss: 'FeatureLoss') -> None:
        super().__init__(text)
        self.loss = loss


class Stages(Protocol):
    """A network between the layers that a loss looks at.

    BatchNorm takes the statistics of what it is given, and its own running
    ones stay what they are.
    """

    def run(self, number: int, features: Tensor) -> Tensor:
        """From layer ``number - 1`` to layer ``number``, counted from 0."""

    def scores(self, features: Tensor) -> Tensor:
        """From the last layer to logits (B, K) of the compared classes."""


@dataclass
class FeaturePair:
    """What teacher and student made of one batch at the wanted layers.

    Args:
        student: A tensor for each layer, with gradient, (B, C_s, H_s, W_s)
            for maps.
        teacher: A tensor for each layer, of the same B images.
        samples: B samples with their annotations, as the student's head
            saw them; empty in plain PyTorch.
        input_shape: (height, width) of the student's padded input, in
            pixels; None in plain PyTorch.
        anchors: For losses that set ``needs_anchors``: of each of the
            student's layers the anchors of its cells, (H_s, W_s, A, 4), in
            pixels of that input.
        classifiers: For losses that set ``needs_classifiers``: the weights
            of the student's and of the teacher's linear layer, (K, C_s) and
            (K, C_t), of the K classes that are compared.
        stages: For losses that set ``needs_stages``: the student and the
            teacher, to be run from one of these layers to the next.
        expanded: For losses that set ``grows_student``: what their residual
            has inside, of the student's layer.
    """

    student: Sequence[Tensor]
    teacher: Sequence[Tensor]
    samples: Sequence = field(default=())
    input_shape: tuple[int, int] | None = None
    anchors: Sequence[Tensor] | None = None
    classifiers: tuple[Tensor, Tensor] | None = None
    stages: tuple[Stages, Stages] | None = None
    expanded: Tensor | None = None


class FeatureLoss(DistillationLoss):
    """Base of the losses between a student's and a teacher's features.

    A subclass implements :meth:`per_batch` and, where it learns something
    that joins the two (a connector), :meth:`connect`, which makes the
    modules before training begins. This class computes in float32 or wider
    under autocast and detaches the teacher.

    A layer is written as a module's path, with the number of its output
    where it has several: ``'backbone[3]'`` is a backbone's last stage,
    ``'neck[0]'`` the finest level of a pyramid, ``'neck[*]'`` all of them,
    ``'backbone.layer3.5.conv2'`` any module's output. What goes into a
    module is ``'before backbone.layer3.5.relu[1]'``, here in its second call.

    A loss that wants the anchors of the student's head sets
    ``needs_anchors``: :attr:`FeaturePair.anchors` has them then. One that
    wants the weights of both classifiers sets ``needs_classifiers``. One
    that wants to know how the teacher's BatchNorms distribute its layers sets
    ``needs_statistics``: :meth:`take_statistics` is called. One that runs
    the models from layer to layer sets ``needs_stages``: ``activated`` is
    set before :meth:`connect`, and :attr:`FeaturePair.stages`. One that sets
    ``grows_student`` has a ``residual`` that runs inside the student
    (:class:`mmrkkd.losses.feature.norm.Residual`). One for which every image
    must have one class sets ``needs_labels``: distillers refuse to mix
    images (Mixup, CutMix) beside it.

    In a distributed run the images are those of the process. A loss that
    compares images with each other states by ``min_images`` how many it
    takes: with fewer it is 0, and the distillers say so in the log.

    Args:
        student_layers: One layer of the student, or several.
        teacher_layers: As many of the teacher. Defaults to the same names.
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 1.0.

    Raises:
        TypeError: layers are no strings.
        ValueError: there is no layer.
    """

    is_base = True
    needs_anchors = False
    needs_classifiers = False
    needs_statistics = False
    needs_stages = False
    grows_student = False
    needs_labels = False
    min_images = 1
    # Of both sides, which of the layers are never negative.
    activated: tuple[Sequence[bool], Sequence[bool]] | None = None

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 1.0,
    ) -> None:
        super().__init__()
        self.student_layers = _layers('student_layers', student_layers)
        self.teacher_layers = (
            self.student_layers
            if teacher_layers is None
            else _layers('teacher_layers', teacher_layers)
        )
        self.loss_weight = build_schedule('loss_weight', loss_weight)

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """Makes the modules that join the layers; by default none.

        Args:
            student_shapes: Of each layer for one image, (1, C, H, W) for
                maps, in the order of ``student_layers``.
            teacher_shapes: The same for the teacher, for the same image.

        Raises:
            ValueError: the layers cannot be joined.
        """

    def take_statistics(
        self, statistics: Sequence[tuple[Tensor, Tensor]]
    ) -> None:
        """Learns how the teacher's layers are distributed; by default not.

        Called after :meth:`connect` where ``needs_statistics`` is set.

        Args:
            statistics: Of each of the teacher's layers the mean and the
                deviation (>= 0) of its channels, (C_t,) each.
        """

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """The named terms of a batch, already weighted.

        Args:
            pair: Float32 or float64; the teacher's without gradient.

        Returns:
            Log key to scalar; keys that contain 'loss' are optimised.
        """
        raise NotImplementedError(
            f'{type(self).__name__} must implement per_batch()'
        )

    def forward(self, pair: FeaturePair) -> dict[str, Tensor]:
        """Computes the loss of a batch.

        Args:
            pair: The features; as many of the student's as of the
                teacher's.

        Returns:
            Log key to scalar.

        Raises:
            ValueError: the numbers of layers or of images differ, or there
                is no image.
        """
        if len(pair.student) != len(pair.teacher) or not pair.student:
            raise ValueError(
                f'{type(self).__name__} compares layers in pairs, got '
                f'{len(pair.student)} of the student and '
                f'{len(pair.teacher)} of the teacher'
            )
        counts = {len(value) for value in (*pair.student, *pair.teacher)}
        if counts == {0} or len(counts) > 1:
            raise ValueError(
                f'{type(self).__name__} compares the features of the same '
                f'images, at least one, got {sorted(counts)} images'
            )
        device = pair.student[0].device.type
        with torch.autocast(device, enabled=False):
            return self.per_batch(
                replace(
                    pair,
                    student=[_widened(value) for value in pair.student],
                    teacher=[
                        _widened(keepable(value.detach()))
                        for value in pair.teacher
                    ],
                    classifiers=_widened_both(pair.classifiers),
                )
            )

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'{", ".join(self.student_layers)} <- '
            f'{", ".join(self.teacher_layers)}, '
            f'loss_weight={self.loss_weight}'
        )


def common_area(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps of one stride, cut to the area that both have.

    Models that pad their input to other multiples have maps that differ by
    cells of padding at the right and at the bottom.

    Args:
        student: (B, C_s, H_s, W_s).
        teacher: (B, C_t, H_t, W_t).

    Returns:
        The same, with the smaller height and width of the two.

    Raises:
        ValueError: a side is about twice the other or more, by two cells at
            least, which is a stride and no padding.
    """
    for one, other in zip(student.shape[-2:], teacher.shape[-2:], strict=True):
        # As a side of 13 is half of one of 25.
        if abs(one - other) >= max(min(one, other) - 1, 2):
            raise ValueError(
                'maps of one stride differ by cells of padding, got '
                f"{tuple(student.shape[-2:])} cells of the student's and "
                f"{tuple(teacher.shape[-2:])} of the teacher's: set "
                'feature_size to the side of the images in pixels, by which '
                'maps are joined, compare layers of one stride, or let both '
                'models pad their input alike (pad_size_divisor)'
            )
    height = min(student.shape[-2], teacher.shape[-2])
    width = min(student.shape[-1], teacher.shape[-1])
    return student[..., :height, :width], teacher[..., :height, :width]


def is_distributed() -> bool:
    """Whether this process belongs to a group, be it of one."""
    return dist.is_available() and dist.is_initialized()


def _widened(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _widened_both(
    weights: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor] | None:
    """The student's keep their gradient, the teacher's have none."""
    if weights is None:
        return None
    return _widened(weights[0]), _widened(weights[1].detach())


def _layers(name: str, layers: object) -> tuple[str, ...]:
    if isinstance(layers, str):
        return (layers,)
    if not isinstance(layers, (list, tuple)) or not all(
        isinstance(layer, str) for layer in layers
    ):
        raise TypeError(
            f"{name} must be a layer such as 'neck[0]' or a list of them, "
            f'got {layers!r}'
        )
    if not layers:
        raise ValueError(f'{name} must name at least one layer, got none')
    return tuple(layers)
