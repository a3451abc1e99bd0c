"""Which dense heads can be compared cell by cell."""

import logging
from collections.abc import Sequence

from mmengine.logging import print_log
from torch import Tensor, nn

from .heads import dense_head, scores_of, spec_of
from .score_checks import check_activation, mixed_channels
from .text_heads import check_text_head, is_text_head


def check_kind(
    owner: str, model: nn.Module, prompts: Sequence[str] | None = None
) -> None:
    """Refuses a model without a dense head that classifies.

    Args:
        owner: 'student' or 'teacher', for messages.
        model: The detector.
        prompts: The classes that a text-conditioned teacher is asked for.
    """
    head = dense_head(model)
    if head is None:
        raise TypeError(
            f'the {owner} {type(model).__name__} has no dense head whose '
            'scores are known: cells are compared between one-stage '
            'detectors of MMDetection and heads made known by '
            'mmrkkd.distillers.register_head'
        )
    if is_text_head(head):
        check_text_head(owner, model, prompts)
        return
    refused = spec_of(head).refused
    if refused:
        raise TypeError(
            f"the {owner}'s head {type(head).__name__} cannot be distilled: "
            f'{refused}'
        )
    why = mixed_channels(head, scores_of)
    if why:
        raise TypeError(f"the {owner}'s head {why}")


def check_meaning(head: nn.Module, other: nn.Module) -> None:
    """Refuses heads whose scores mean different things."""
    check_activation(
        head, other, scores_of, 'Use a teacher of the same kind of head'
    )
    names = type(head).__name__, type(other).__name__
    meanings = spec_of(head).meaning, spec_of(other).meaning
    if meanings[0] != meanings[1]:
        raise TypeError(
            f"a score of the student's {names[0]} is of {meanings[0]}, one "
            f"of the teacher's {names[1]} of {meanings[1]}: they cannot be "
            'compared. Use a teacher of the same kind of head'
        )
    if names[0] != names[1]:
        print_log(
            f'The heads of student and teacher differ: {names[0]} learns '
            f'from {names[1]}. Their scores are compared as they are; some '
            'heads let them hold the quality of the box, others do not.',
            logger='current',
            level=logging.WARNING,
        )


def check_cells(
    levels: Sequence[Tensor],
    others: Sequence[Tensor],
    head: nn.Module,
    other: nn.Module,
) -> None:
    """Refuses scores of other cells, (B, H, W, A, C) of each level."""
    ours = [tuple(level.shape[:-1]) for level in levels]
    theirs = [tuple(level.shape[:-1]) for level in others]
    if ours != theirs:
        raise ValueError(
            'student and teacher have other cells (images, rows, columns, '
            f'anchors by level): {type(head).__name__} has {ours}, '
            f'{type(other).__name__} has {theirs}. Use a teacher with the '
            'same levels, strides and anchors'
        )
