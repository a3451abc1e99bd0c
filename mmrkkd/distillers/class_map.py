"""Which channel of the teacher belongs to which channel of the student."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CLASS_MODES = ('same', 'shared')


@dataclass(frozen=True)
class ClassMap:
    """The channels that are compared, in the student's order.

    Args:
        student: Indices into the student's channels; None for all, as they
            are.
        teacher: Indices into the teacher's channels, of the same length.
    """

    student: tuple[int, ...] | None = None
    teacher: tuple[int, ...] | None = None

    def select_student(self, logits: Tensor) -> Tensor:
        """(..., C_s) -> (..., C), keeping the gradient."""
        return _columns(logits, self.student)

    def select_teacher(self, logits: Tensor) -> Tensor:
        """(..., C_t) -> (..., C)."""
        return _columns(logits, self.teacher)

    def select_labels(
        self, labels: Tensor, channels: int
    ) -> tuple[Tensor, Tensor]:
        """Labels in the compared channels, and which samples have one.

        Args:
            labels: (...), indices into the student's channels.
            channels: C_s.

        Returns:
            (...) indices into the compared channels, 0 where there is none,
            and (...) bool.
        """
        if self.student is None:
            return labels, torch.ones_like(labels, dtype=torch.bool)
        position = labels.new_full((channels,), -1)
        position[list(self.student)] = torch.arange(
            len(self.student), device=labels.device
        )
        selected = position[labels]
        return selected.clamp(min=0), selected >= 0


def _columns(logits: Tensor, indices: tuple[int, ...] | None) -> Tensor:
    return logits if indices is None else logits[..., list(indices)]


def match_classes(
    student_classes: Sequence[str] | None,
    teacher_classes: Sequence[str] | None,
    student_channels: int,
    teacher_channels: int,
    background: bool = False,
    mode: str = 'same',
) -> ClassMap:
    """Compares the class lists of both sides by name.

    Args:
        student_classes: Names in the order of the student's channels,
            without background; None if unknown.
        teacher_classes: The same for the teacher.
        student_channels: C_s, background included.
        teacher_channels: C_t, background included.
        background: Whether each side's last channel is the background.
        mode: 'same' wants the same names, in any order; 'shared' compares
            on the names that both know. Defaults to 'same'.

    Returns:
        The map; names in another order are permuted.

    Raises:
        ValueError: the lists do not match, or cannot be known to; the
            message names the classes.
    """
    if student_classes is None or teacher_classes is None:
        if student_channels == teacher_channels and mode == 'same':
            return ClassMap()
        raise ValueError(
            'the classes of teacher and student cannot be matched: the '
            f'student has {student_channels} channels, the teacher '
            f'{teacher_channels}, and the class names of the '
            f'{"student" if student_classes is None else "teacher"} are not '
            "known; use a teacher trained on the student's classes, or give "
            'class_names=[...] for the student and teacher.classes=[...] for '
            "the teacher and set classes='shared'"
        )
    for owner, names, channels in (
        ('student', student_classes, student_channels),
        ('teacher', teacher_classes, teacher_channels),
    ):
        if len(names) + background != channels or len(set(names)) != len(
            names
        ):
            raise ValueError(
                f'the {owner} has {channels} channels'
                f'{", background included," if background else ""} but '
                f'{len(names)} class names ({len(set(names))} different): '
                f'{_shown(names)}'
            )
    if tuple(student_classes) == tuple(teacher_classes):
        return ClassMap()
    shared = [name for name in student_classes if name in teacher_classes]
    if mode == 'same' and not len(shared) == len(student_classes) == len(
        teacher_classes
    ):
        _refuse(student_classes, teacher_classes, shared)
    if len(shared) < 2:
        raise ValueError(
            f'teacher and student share {len(shared)} classes, and a ranking '
            f'needs at least 2; student: {_shown(student_classes)}; teacher: '
            f'{_shown(teacher_classes)}'
        )
    student = [list(student_classes).index(name) for name in shared]
    teacher = [list(teacher_classes).index(name) for name in shared]
    if background:
        student.append(student_channels - 1)
        teacher.append(teacher_channels - 1)
    return ClassMap(tuple(student), tuple(teacher))


def _refuse(
    student: Sequence[str], teacher: Sequence[str], shared: Sequence[str]
) -> None:
    only_student = [name for name in student if name not in shared]
    only_teacher = [name for name in teacher if name not in shared]
    raise ValueError(
        'teacher and student were not made for the same classes.\n'
        f'Only the student has ({len(only_student)}): '
        f'{_shown(only_student)}\n'
        f'Only the teacher has ({len(only_teacher)}): '
        f'{_shown(only_teacher)}\n'
        f"Set classes='shared' to distil on the {len(shared)} names that "
        'both know, or use a teacher of your classes.'
    )


def _shown(names: Sequence[str]) -> str:
    return ', '.join(map(repr, names)) or 'none'
