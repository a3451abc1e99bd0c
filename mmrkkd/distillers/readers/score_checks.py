"""Whose class scores are no logits that a teacher's can be compared with."""

from collections.abc import Callable

from torch import nn

from .base import Scores


def check_activation(
    student: nn.Module,
    teacher: nn.Module,
    scores_of: Callable[[nn.Module], Scores],
    advice: str,
    scored: str = 'classes',
) -> None:
    """Refuses a sigmoid beside a softmax.

    Args:
        student: The student or its head, which the message names.
        teacher: The teacher or its head.
        scores_of: What the scores of either mean.
        advice: What to use, for the message.
        scored: What has the scores. Defaults to 'classes'.

    Raises:
        TypeError: the scores mean different things.
    """
    ours, theirs = scores_of(student), scores_of(teacher)
    if ours.activation != theirs.activation:
        raise TypeError(
            f'the student {type(student).__name__} scores {scored} by '
            f'{ours.activation}, the teacher {type(teacher).__name__} by '
            f'{theirs.activation}: the same logits mean different things. '
            f'{advice}'
        )


def mixed_channels(
    head: nn.Module, scores_of: Callable[[nn.Module], Scores]
) -> str:
    """Why the channels of a head are no scores of single classes.

    Args:
        head: The head; its loss may say how many channels it wants.
        scores_of: What its scores mean if they are of single classes.

    Returns:
        What the head does, for messages; '' if they are.
    """
    loss = getattr(head, 'loss_cls', None)
    if not getattr(loss, 'custom_cls_channels', False) or (
        loss.get_cls_channels(head.num_classes) == scores_of(head).channels
    ):
        return ''
    return (
        f'classifies with {type(loss).__name__}, whose channels are no scores '
        'of single classes'
    )
