"""Which channel of the teacher belongs to which channel of the student."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from mmrkkd.losses import KendallLoss, ListMLELoss, LogitLoss, LRALoss
from mmrkkd.ops.constants import constant

from .class_names import StatedNames, names_in_order, names_of_head

CLASS_MODES = ('same', 'shared')
RANKING = (KendallLoss, ListMLELoss, LRALoss)
NEEDS_TWO = (
    ': a single class has no order to rank, and a softmax over it alone is '
    'constant'
)


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

    def select_samples(
        self, labels: Tensor | None, weight: Tensor | None, channels: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """What losses get of labels and weights.

        A sample of a class that the teacher never saw is left out, whether
        the losses need labels or not; a mixed one counts as much as it
        holds of classes that the teacher knows.

        Args:
            labels: (...), indices into the student's channels, or
                (..., C_s), the shares of a mixed sample's classes (Mixup,
                CutMix); None where nothing is known, and then every sample
                stays.
            weight: (...), or None for 1.
            channels: C_s.

        Returns:
            Labels in the compared channels, see :meth:`select_labels`, None
            for mixed samples; the weights, None for 1.
        """
        mixed = labels is not None and labels.is_floating_point()
        if labels is None or self.student is None:
            return None if mixed else labels, weight
        if mixed:
            labels, known = None, self._known_share(labels)
        else:
            labels, known = self.select_labels(labels, channels)
        if len(self.student) == channels:
            return labels, weight
        return labels, known.float() if weight is None else weight * known

    def select_labels(
        self, labels: Tensor, channels: int
    ) -> tuple[Tensor, Tensor]:
        """Labels in the compared channels, and which samples have one.

        Args:
            labels: (...), indices into the student's channels; where a
                background is no channel, C_s stands for it, and -1 for
                none.
            channels: C_s.

        Returns:
            (...) indices into the C compared channels, 0 where the class is
            not compared, C for a background that is no channel, and -1 for
            none; and (...) bool, False where the class is not compared.
        """
        if self.student is None:
            return labels, torch.ones_like(labels, dtype=torch.bool)
        places = _places(self.student, channels)
        selected = constant(places, labels.device)[labels.clamp(0, channels)]
        known = (selected >= 0) | (labels < 0)
        return torch.where(labels < 0, labels, selected.clamp(min=0)), known

    def _known_share(self, shares: Tensor) -> Tensor:
        """(..., C_s) -> (...), the share of the compared classes."""
        total = shares.sum(-1)
        return _columns(shares, self.student).sum(-1) / torch.where(
            total > 0, total, 1.0
        )


@lru_cache(maxsize=8)
def _places(student: tuple[int, ...], channels: int) -> tuple[int, ...]:
    """The place of each channel among the compared ones, -1 for none.

    One more for the background, where that is no channel.
    """
    places = {channel: place for place, channel in enumerate(student)}
    places[channels] = len(student)
    return tuple(places.get(channel, -1) for channel in range(channels + 1))


def _columns(logits: Tensor, indices: tuple[int, ...] | None) -> Tensor:
    if indices is None:
        return logits
    return logits.index_select(-1, constant(indices, logits.device))


def match_classes(
    student_classes: Sequence[str] | None,
    teacher_classes: Sequence[str] | None,
    student_channels: int,
    teacher_channels: int,
    background: bool = False,
    mode: str = 'same',
    min_shared: int = 2,
    needed_by: str = 'the losses',
) -> ClassMap:
    """Compares the class lists of both sides by name.

    Args:
        student_classes: Names in the order of the student's channels,
            without background; None if unknown. Of those that a panoptic
            data set states a head may know the things alone.
        teacher_classes: The same for the teacher.
        student_channels: C_s, background included.
        teacher_channels: C_t, background included.
        background: Whether each side's last channel is the background.
        mode: 'same' wants the same names, in any order; 'shared' compares
            on the names that both know. Defaults to 'same'.
        min_shared: The fewest names that 'shared' needs, see
            :func:`fewest_shared`. Defaults to 2.
        needed_by: What needs them, for the message. Defaults to 'the
            losses'.

    Returns:
        The map; names in another order are permuted.

    Raises:
        ValueError: the lists do not match, or cannot be known to, or one
            that no data set states is not of its head's length; the message
            names the classes.
    """
    student_classes = names_in_order("the student's classes", student_classes)
    teacher_classes = names_in_order("the teacher's classes", teacher_classes)
    sides = (
        ('student', student_classes, student_channels),
        ('teacher', teacher_classes, teacher_channels),
    )
    for owner, names, channels in sides:
        # Those of a data set may be more, or fewer, than a head's, which
        # matters where they are compared.
        if names is not None and not isinstance(names, StatedNames):
            _check_length(owner, names, channels, background)
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
    student_classes = names_of_head(
        student_classes, student_channels - background
    )
    teacher_classes = names_of_head(
        teacher_classes, teacher_channels - background, student_classes
    )
    _check_length('student', student_classes, student_channels, background)
    _check_length('teacher', teacher_classes, teacher_channels, background)
    if student_classes == teacher_classes:
        return ClassMap()
    shared = _shared_names(student_classes, teacher_classes, mode)
    if len(shared) < min_shared and mode == 'shared':
        raise ValueError(
            f'teacher and student share {len(shared)} of their classes '
            f'({_shown(shared)}), and {needed_by} must have at least '
            f'{min_shared}{NEEDS_TWO if min_shared > 1 else ""}; student: '
            f'{_shown(student_classes)}; teacher: {_shown(teacher_classes)}'
        )
    return ClassMap(
        _channels_of(shared, student_classes, background),
        _channels_of(shared, teacher_classes, background),
    )


def fewest_shared(
    losses: Iterable[nn.Module],
    background: bool,
    activation: str = 'softmax',
) -> tuple[int, str]:
    """How many shared class names a run needs, at least, and what for.

    A loss that ranks the classes needs 2 beside a background too; any other
    the ``min_classes`` that it states, of which a background is one.

    Args:
        losses: The losses.
        background: Whether the last channel of the scores is background.
        activation: Of the scores, 'softmax' or 'sigmoid'.

    Returns:
        The number, >= 1, and what needs so many: the name of a loss, or
        the head.
    """
    found = {'the losses': 1}
    if activation == 'softmax' and not background:
        found['the softmax of the head'] = 2
    for loss in losses:
        for part in loss.modules():
            if isinstance(part, LogitLoss):
                spared = 0 if isinstance(part, RANKING) else background
                least = part.min_classes - spared
                owner = type(loss).__name__
                found[owner] = max(found.get(owner, 0), least)
    name = max(found, key=found.get)
    return found[name], name


def _channels_of(
    shared: Sequence[str], names: Sequence[str], background: bool
) -> tuple[int, ...]:
    channels = {name: channel for channel, name in enumerate(names)}
    last = [len(names)] if background else []
    return (*(channels[name] for name in shared), *last)


def _check_length(
    owner: str, names: Sequence[str], channels: int, background: bool
) -> None:
    if len(names) + background != channels:
        option = dict(
            student="class_names=[...], or the training set's "
            'metainfo=dict(classes=...)',
            teacher='teacher.classes=[...]',
        )[owner]
        raise ValueError(
            f'the {owner} has {channels} channels'
            f'{", background included," if background else ""} but '
            f'{len(names)} class names: {_shown(names)}; correct {option}, '
            'or num_classes of its head'
        )


def _shared_names(
    student_classes: Sequence[str], teacher_classes: Sequence[str], mode: str
) -> list[str]:
    """The names that both know, in the student's order; or it refuses."""
    student, teacher = Counter(student_classes), Counter(teacher_classes)
    shared = [name for name in student if name in teacher]
    if mode == 'same' and student != teacher:
        only_student = list((student - teacher).elements())
        only_teacher = list((teacher - student).elements())
        raise ValueError(
            'teacher and student were not made for the same classes.\n'
            f'Only the student has ({len(only_student)}): '
            f'{_shown(only_student)}\n'
            f'Only the teacher has ({len(only_teacher)}): '
            f'{_shown(only_teacher)}\n'
            f"Set classes='shared' to distil on the {len(shared)} names that "
            'both know, or use a teacher of your classes.'
        )
    for name in shared:
        if student[name] > 1 or teacher[name] > 1:
            raise ValueError(
                f'{name!r} stands {student[name]} times among the classes of '
                f'the student and {teacher[name]} times among those of the '
                'teacher, and the two lists differ, so its channels cannot '
                'be matched by name; give lists without repeated names: '
                'class_names=[...] and teacher.classes=[...]'
            )
    return shared


def _shown(names: Sequence[str]) -> str:
    return ', '.join(map(repr, names)) or 'none'
