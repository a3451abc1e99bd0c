"""Readers of the layers that feature losses name, of both models."""

from collections.abc import Sequence

from torch import nn

from mmrkkd.losses.feature import FeatureLoss

from .readers.features import (
    PROBED_SIZES,
    FeatureReader,
    SizeRefused,
    at_first_size,
)


def read_both(
    student: nn.Module,
    teacher: nn.Module,
    losses: Sequence[FeatureLoss],
    size: int | None,
    teacher_size: int | None,
) -> tuple[FeatureReader, FeatureReader]:
    """Readers of both models, with shapes that are those of one image.

    Args:
        student: The student.
        teacher: The teacher.
        losses: The feature losses, whose layers are read.
        size: Side of the empty image in pixels; None for the first usual
            one that both models take.
        teacher_size: Side of the teacher's, where its input is resized.

    Raises:
        ValueError: size is no number of pixels, or missing beside
            teacher_size; or a layer cannot be read, see
            :class:`FeatureReader`.
    """
    layers = [layer for loss in losses for layer in loss.student_layers]
    others = [layer for loss in losses for layer in loss.teacher_layers]
    if size is not None and (type(size) is not int or size < 1):
        raise ValueError(
            'feature_size must be a number of pixels >= 1 or None, got '
            f'{size!r}'
        )
    if teacher_size is not None and size is None and layers:
        raise ValueError(
            f"the teacher's input is resized to teacher_size={teacher_size}, "
            "so the losses of features need the side of the student's: set "
            'feature_size to it'
        )

    def at(side: int) -> tuple[FeatureReader, FeatureReader]:
        return (
            _reader(student, 'student', layers, side),
            _reader(teacher, 'teacher', others, teacher_size or side),
        )

    return at_first_size(at, PROBED_SIZES if size is None else (size,))


def _reader(
    model: nn.Module, owner: str, layers: Sequence[str], size: int
) -> FeatureReader:
    """A reader; of a whole dense head the message names a layer inside."""
    try:
        return FeatureReader(model, owner, layers, size)
    except SizeRefused:
        raise
    except ValueError as error:
        advice = [_inside_of_head(model, owner, layer) for layer in layers]
        text = ' '.join(dict.fromkeys(filter(None, advice)))
        if not text:
            raise
        raise ValueError(f'{error}. {text}') from error


def _inside_of_head(model: nn.Module, owner: str, layer: str) -> str | None:
    """What to name in place of a dense head, if the layer is one."""
    path = layer.partition('[')[0]
    head = dict(model.named_children()).get(path)
    if not hasattr(head, 'predict_by_feat'):
        return None
    inside = [
        f', such as {path}.{name}.{len(part) - 1}'
        for name, part in head.named_children()
        if isinstance(part, nn.ModuleList) and len(part)
    ]
    return (
        f"The {owner}'s {path} is a whole head, whose output is nested, a "
        'list of the levels for each branch: name a layer inside it'
        + ''.join(inside[:1])
    )
