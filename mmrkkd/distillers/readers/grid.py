"""Matched logits of dense detectors: the same cells for both."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmrkkd.losses.placement import LOCATIONS, Placement
from mmrkkd.ops.checks import check_choice

from .base import Match, Reader, Scores
from .heads import HeadSpec, dense_head, grid_of, scores_of, spec_of
from .locations import confidence, located, positives
from .targets import LOSSES, GridLossTap

# These call a teacher of their own inside.
DISTILLERS = ('KnowledgeDistillationSingleStageDetector', 'LAD')


class GridTap:
    """Notes what a dense head put out, and what its loss was called with."""

    def __init__(self) -> None:
        self.outputs: Sequence | None = None
        self.loss = GridLossTap()

    def see_outputs(
        self, module: nn.Module, args: tuple, outputs: Sequence
    ) -> None:
        """Hook after the head."""
        self.outputs = outputs


class GridReader(Reader):
    """Reads the class logits of every cell of a dense head.

    One-stage detectors score the same cells of the same levels, whatever
    their backbones, if their strides and anchors are equal: the student's
    scores are what its head puts out on the way to its own losses, the
    teacher's come from its head's training path on the same padded images.
    A cell is an anchor of a place of a level; rows are in the order of the
    images, then of the levels.

    Labels, and which cells count, are what the student's own classification
    loss is called with, where it is called with these scores.

    Args:
        locations: Which cells count for losses that do not say it
            themselves. 'all', those that the head counts; 'foreground',
            those labelled with a class; 'confidence', all, each weighted by
            the teacher's highest score; 'top', the same for the best cells
            of each image alone. Defaults to 'all'.
        top: The share of the cells that 'top' keeps, in (0, 1]. Defaults to
            0.01.
    """

    name = 'grid'
    rank = 1
    keeps_size = True
    # Standardised rows of the background are noise, and a hundred times as
    # many as those of objects: weights alone do not silence them.
    ranked_at = 'top'

    def __init__(self, locations: str = 'all', top: float = 0.01) -> None:
        check_choice('locations', locations, LOCATIONS)
        self.placement = Placement(locations, top)
        self.labels_from: str | None = None

    def __repr__(self) -> str:
        return f"grid, cells of the student's head {self.placement}"

    @classmethod
    def fits(cls, model: nn.Module) -> bool:
        """See :meth:`Reader.fits`."""
        return dense_head(model) is not None

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Refuses models whose cells cannot be compared.

        Raises:
            TypeError: one has no dense head, or none that classifies; or
                their scores mean different things.
            ValueError: their strides or anchors differ.
        """
        _check_kind('student', student)
        _check_kind('teacher', teacher)
        if set(DISTILLERS) & {kind.__name__ for kind in type(student).__mro__}:
            raise TypeError(
                f'the student {type(student).__name__} is a distiller '
                'already, with a teacher of its own: give the plain '
                'detector as student'
            )
        _check_meaning(dense_head(student), dense_head(teacher))
        _check_grid(dense_head(student), dense_head(teacher))

    def scores(self, model: nn.Module) -> Scores:
        """See :meth:`Reader.scores`."""
        return scores_of(dense_head(model))

    @contextmanager
    def tap(self, student: nn.Module) -> Iterator[GridTap]:
        """Notes the scores of the student's forward run inside the block."""
        head, tap = dense_head(student), GridTap()
        handles = [head.register_forward_hook(tap.see_outputs)]
        for name in LOSSES:
            loss = getattr(head, name, None)
            if isinstance(loss, nn.Module):
                handles.append(
                    loss.register_forward_pre_hook(
                        tap.loss.see, with_kwargs=True
                    )
                )
        try:
            yield tap
        finally:
            for handle in handles:
                handle.remove()

    def read(
        self,
        taps: GridTap,
        student: nn.Module,
        teacher: nn.Module,
        teacher_inputs: Tensor,
        data_samples: Sequence,
    ) -> list[Match]:
        """Scores the student's cells with the teacher.

        Args:
            taps: What :meth:`tap` gave, after the student's forward.
            student: The student.
            teacher: The teacher, in eval mode.
            teacher_inputs: (B, 3, H, W), preprocessed for the teacher and
                padded as the student's.
            data_samples: B samples; unused.

        Returns:
            One match.

        Raises:
            RuntimeError: the student's head did not run.
            ValueError: the two have other cells.
        """
        head = dense_head(student)
        if taps.outputs is None:
            raise RuntimeError(
                f"the student's head {type(head).__name__} was not called as "
                'a module in its training step, so its scores are not known'
            )
        spec = spec_of(head)
        levels = spec.levels(taps.outputs, head)
        others, other_spec = _teacher_levels(teacher, teacher_inputs)
        _check_cells(levels, others, student, teacher)
        raw = _rows(levels)
        with torch.no_grad():
            teacher_logits = other_spec.logits(_rows(others)).flatten(0, 1)
            targets = taps.loss.targets(
                raw, [each[0, ..., 0].numel() for each in levels]
            )
        self._say_where_labels_are_from(targets.order)
        scores = scores_of(head)
        match = Match(
            spec.logits(raw).flatten(0, 1),
            teacher_logits,
            targets.labels,
            counts=targets.counts,
            images=len(raw),
            confidence=confidence(teacher_logits, scores),
            sources=tuple(spec.sources(taps.outputs)),
        )
        match.normalizer = positives(match, scores)
        match.weight = located(match, scores, self.placement)
        return [match]

    def _say_where_labels_are_from(self, order: str) -> None:
        if self.labels_from is None:
            self.labels_from = order
            print_log(
                'Labels of the cells: '
                + (
                    "none, the student's head does not show them"
                    if order == 'none'
                    else f"the student's own, {order}"
                ),
                logger='current',
            )


def _check_kind(owner: str, model: nn.Module) -> None:
    head = dense_head(model)
    if head is None:
        raise TypeError(
            f'the {owner} {type(model).__name__} has no dense head whose '
            'scores are known: cells are compared between one-stage '
            'detectors of MMDetection and heads made known by '
            'mmrkkd.distillers.register_head'
        )
    refused = spec_of(head).refused
    if refused:
        raise TypeError(
            f"the {owner}'s head {type(head).__name__} cannot be distilled: "
            f'{refused}'
        )
    if getattr(getattr(head, 'loss_cls', None), 'custom_cls_channels', False):
        raise TypeError(
            f"the {owner}'s head classifies with "
            f'{type(head.loss_cls).__name__}, whose channels are no scores '
            'of single classes'
        )


def _check_meaning(head: nn.Module, other: nn.Module) -> None:
    names = type(head).__name__, type(other).__name__
    ours, theirs = scores_of(head), scores_of(other)
    if ours.activation != theirs.activation:
        raise TypeError(
            f'the student {names[0]} scores classes by {ours.activation}, '
            f'the teacher {names[1]} by {theirs.activation}: the same logits '
            'mean different things. Use a teacher of the same kind of head'
        )
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


def _check_grid(head: nn.Module, other: nn.Module) -> None:
    ours, theirs = grid_of(head), grid_of(other)
    if ours is None or theirs is None or ours == theirs:
        # What is not known now shows in the shapes of the first batch.
        return
    raise ValueError(
        f'student and teacher have other cells: {type(head).__name__} has '
        f'levels of strides {ours[0]} with {ours[1]} anchors in a cell, '
        f'{type(other).__name__} of strides {theirs[0]} with {theirs[1]}. '
        'Use a teacher with the same levels and anchors, or distil features'
    )


@torch.no_grad()
def _teacher_levels(
    teacher: nn.Module, inputs: Tensor
) -> tuple[list[Tensor], HeadSpec]:
    head = dense_head(teacher)
    features = teacher.extract_feat(inputs)
    # Heads leave out or change outputs when they predict. The flag is set
    # on the head alone: its norms and dropouts stay in eval mode.
    head.training = True
    try:
        outputs = head(features)
    finally:
        head.training = False
    spec = spec_of(head)
    return spec.levels(outputs, head), spec


def _check_cells(
    levels: Sequence[Tensor],
    others: Sequence[Tensor],
    student: nn.Module,
    teacher: nn.Module,
) -> None:
    ours = [tuple(level.shape[:-1]) for level in levels]
    theirs = [tuple(level.shape[:-1]) for level in others]
    if ours != theirs:
        raise ValueError(
            'student and teacher have other cells (images, rows, columns, '
            f'anchors by level): {type(dense_head(student)).__name__} has '
            f'{ours}, {type(dense_head(teacher)).__name__} has {theirs}. Use '
            'a teacher with the same levels, strides and anchors'
        )


def _rows(levels: Sequence[Tensor]) -> Tensor:
    """(B, H, W, A, C) of each level -> (B, R, C)."""
    if len({level.shape[3] for level in levels}) == 1:
        # Rows and columns flatten without a copy: one copy in all.
        joined = torch.cat([level.flatten(1, 2) for level in levels], 1)
        return joined.flatten(1, 2)
    return torch.cat([level.flatten(1, 3) for level in levels], 1)
