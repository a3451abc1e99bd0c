"""Where feature losses meet the two models."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from mmrkkd.losses.feature import FeatureLoss, FeaturePair

from .readers.features import FeatureReader, FeatureTaps


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
        size: Side of the empty image, see :class:`FeatureReader`.

    Raises:
        ValueError: a layer does not exist or is not run, the two sides name
            unlike numbers of layers, or layers cannot be joined.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        losses: Sequence[FeatureLoss],
        size: int | None = None,
    ) -> None:
        self.counts: list[int] = []
        student_shapes, teacher_shapes = [], []
        for loss in losses:
            shapes = FeatureReader(
                student, 'student', loss.student_layers, size
            ).shapes
            others = FeatureReader(
                teacher, 'teacher', loss.teacher_layers, size
            ).shapes
            if len(shapes) != len(others):
                raise ValueError(
                    f'{type(loss).__name__} compares layers in pairs, got '
                    f'{len(shapes)} of the student '
                    f'({", ".join(loss.student_layers)}) and {len(others)} of '
                    f'the teacher ({", ".join(loss.teacher_layers)})'
                )
            with _own_randomness():
                loss.connect(shapes, others)
            self.counts.append(len(shapes))
            student_shapes += shapes
            teacher_shapes += others
        self.student = FeatureReader(
            student,
            'student',
            [layer for loss in losses for layer in loss.student_layers],
            size,
        )
        self.teacher = FeatureReader(
            teacher,
            'teacher',
            [layer for loss in losses for layer in loss.teacher_layers],
            size,
        )

    def tap_student(
        self, student: nn.Module
    ) -> AbstractContextManager[FeatureTaps]:
        """Notes the student's layers in the forward inside the block."""
        return self.student.tap(student)

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
    ) -> list[FeaturePair]:
        """What each feature loss gets of one view.

        Args:
            student_taps: Of :meth:`tap_student`, after the forward.
            teacher_taps: Of :meth:`tap_teacher`, after the forward.
            samples: B samples.
            inputs: (B, C, H, W), the student's input.
        """
        student = self.student.read(student_taps)
        teacher = self.teacher.read(teacher_taps)
        pairs, start = [], 0
        for count in self.counts:
            part = slice(start, start + count)
            pairs.append(
                FeaturePair(
                    student[part],
                    teacher[part],
                    samples,
                    tuple(inputs.shape[-2:]),
                )
            )
            start += count
        return pairs


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Draws that the student's initialisation neither feels nor repeats."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, ())))
        yield
