"""Where feature losses meet the two models."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmrkkd.losses.feature import FeatureLoss, FeaturePair
from mmrkkd.losses.feature.base import LayersError, Shape

from .class_map import ClassMap
from .feature_readers import read_both
from .graft import Graft
from .readers.anchors import AnchorReader
from .readers.features import FeatureReader, FeatureTaps
from .readers.linear_classifier import ClassifierReader
from .readers.norms import all_statistics
from .readers.stages import MixedStages, StageReader


class FeatureSeam:
    """The layers that the feature losses want, of both models.

    Connectors are made here, before anything trains: the shapes that they
    join are read from the models by one forward on an empty image. The
    random state is left as it was found, so a student with connectors
    starts from the same weights as one without.

    Args:
        student: The student.
        teacher: The teacher.
        losses: The feature losses; :meth:`FeatureLoss.connect` is called.
        size: Side of the empty image, see :class:`FeatureReader`. Both
            models see the same one.
        teacher_size: Side of the teacher's, where its input is resized.

    Raises:
        LayersError: the two sides name unlike numbers of layers, or layers
            cannot be joined.
        ValueError: a layer does not exist or is not run.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        losses: Sequence[FeatureLoss],
        size: int | None = None,
        teacher_size: int | None = None,
    ) -> None:
        self.student, self.teacher = read_both(
            student, teacher, losses, size, teacher_size
        )
        self.parts = list(
            zip(
                _parts(self.student, [each.student_layers for each in losses]),
                _parts(self.teacher, [each.teacher_layers for each in losses]),
                strict=True,
            )
        )
        self.losses = list(losses)
        # Those of which the log says that they had too few images.
        self.idle: set[str] = set()
        self.grafts: list[Graft] = []
        self.anchors: list[AnchorReader | None] = []
        self.classifiers: list[tuple[ClassifierReader, ...]] = []
        self.stages: list[tuple[StageReader, ...]] = []
        for loss, (part, other) in zip(losses, self.parts, strict=True):
            shapes = self.student.shapes[part]
            others = self.teacher.shapes[other]
            self.stages.append(
                self._stages(loss, student, teacher)
                if loss.needs_stages
                else ()
            )
            with _of_layers(loss):
                _connect(loss, shapes, others)
                if loss.needs_statistics:
                    loss.take_statistics(
                        all_statistics(
                            teacher,
                            loss.teacher_layers,
                            others,
                            self.teacher.calls,
                        )
                    )
            if loss.grows_student:
                with _own_randomness():
                    graft = Graft(
                        loss, student, teacher, self.student, part, others
                    )
                self.grafts.append(graft)
            self.anchors.append(
                AnchorReader(student, 'student', shapes, self.student.size)
                if loss.needs_anchors
                else None
            )
            self.classifiers.append(
                (
                    ClassifierReader(student, 'student', shapes),
                    ClassifierReader(teacher, 'teacher', others),
                )
                if loss.needs_classifiers
                else ()
            )

    def _stages(
        self, loss: FeatureLoss, student: nn.Module, teacher: nn.Module
    ) -> tuple[StageReader, StageReader]:
        """Of both models; the loss is told what their layers are like."""
        with _own_randomness():
            own, others = (
                StageReader(model, reader.owner, layers, reader.size)
                for model, reader, layers in (
                    (student, self.student, loss.student_layers),
                    (teacher, self.teacher, loss.teacher_layers),
                )
            )
        loss.activated = own.activated, others.activated
        return own, others

    @contextmanager
    def tap_student(self, student: nn.Module) -> Iterator[FeatureTaps]:
        """Notes the student's layers in the forward inside the block."""
        with self.student.tap(student) as taps:
            for graft in self.grafts:
                graft.taps = taps
            try:
                yield taps
            finally:
                for graft in self.grafts:
                    graft.taps = None

    def tap_teacher(
        self, teacher: nn.Module
    ) -> AbstractContextManager[FeatureTaps]:
        """Notes the teacher's layers in the forward inside the block."""
        return self.teacher.tap(teacher)

    def read(
        self,
        student_taps: FeatureTaps,
        teacher_taps: FeatureTaps,
        samples: Sequence,
        inputs: Tensor,
        class_map: ClassMap | None = None,
    ) -> list[FeaturePair]:
        """What each feature loss gets of one view.

        Args:
            student_taps: Of :meth:`tap_student`, after the forward.
            teacher_taps: Of :meth:`tap_teacher`, after the forward.
            samples: B samples.
            inputs: (B, C, H, W), the student's input.
            class_map: Which classes are compared. Defaults to all, in
                their order.
        """
        class_map = class_map or ClassMap()
        student = self.student.read(student_taps)
        teacher = self.teacher.read(teacher_taps)
        pairs = []
        for loss, (part, other), anchors, classifiers, stages in zip(
            self.losses,
            self.parts,
            self.anchors,
            self.classifiers,
            self.stages,
            strict=True,
        ):
            self._say_if_idle(loss, len(inputs))
            pair = FeaturePair(
                student[part],
                teacher[other],
                samples,
                tuple(inputs.shape[-2:]),
            )
            if loss in student_taps.grown:
                features, pair.expanded = student_taps.grown[loss]
                pair.student = [features]
            if stages:
                pair.stages = (
                    MixedStages(
                        stages[0],
                        student_taps.model,
                        class_map.select_student,
                    ),
                    MixedStages(
                        stages[1],
                        teacher_taps.model,
                        class_map.select_teacher,
                    ),
                )
            if anchors is not None:
                pair.anchors = anchors.read(pair.student)
            if classifiers:
                own, others = classifiers
                pair.classifiers = (
                    class_map.select_student(own.read(student_taps.model).T).T,
                    class_map.select_teacher(
                        others.read(teacher_taps.model).T
                    ).T,
                )
            pairs.append(pair)
        return pairs

    def _say_if_idle(self, loss: FeatureLoss, images: int) -> None:
        """Tells once that a batch is too small for a loss."""
        name = type(loss).__name__
        if images >= loss.min_images or name in self.idle:
            return
        self.idle.add(name)
        print_log(
            f'{name} compares images with each other and is 0 where a '
            f'process has fewer than {loss.min_images}; this batch has '
            f'{images}. Unless it is the rest of an epoch, give '
            f'train_dataloader a batch_size >= {loss.min_images}, or leave '
            f'{name} out.',
            logger='current',
            level=logging.WARNING,
        )


def _connect(
    loss: FeatureLoss, shapes: Sequence[Shape], others: Sequence[Shape]
) -> None:
    """Makes a loss's connectors, for as many layers on each side."""
    if len(shapes) != len(others):
        raise ValueError(
            f'{type(loss).__name__} compares layers in pairs, got '
            f'{len(shapes)} of the student '
            f'({", ".join(loss.student_layers)}) and {len(others)} of '
            f'the teacher ({", ".join(loss.teacher_layers)})'
        )
    with _own_randomness():
        loss.connect(shapes, others)


def _parts(
    reader: FeatureReader, layers: Sequence[Sequence[str]]
) -> Iterator[slice]:
    """Which of a reader's outputs are each loss's."""
    groups = iter(reader.groups)
    for names in layers:
        own = [next(groups) for _ in names]
        yield slice(own[0].start, own[-1].stop)


@contextmanager
def _of_layers(loss: FeatureLoss) -> Iterator[None]:
    """Says of a ValueError that it is one of a loss's layers."""
    try:
        yield
    except ValueError as error:
        raise LayersError(str(error), loss) from error


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Draws that the student's initialisation neither feels nor repeats."""
    with torch.random.fork_rng(devices=[]):
        # Of the CPU alone: GPUs' generators would not be set back.
        torch.default_generator.manual_seed(int(torch.randint(2**31, ())))
        yield
