"""Matched logits of dense detectors: the same cells for both."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from mmrkkd.losses.placement import LOCATIONS, Placement
from mmrkkd.ops.checks import check_choice

from .base import BESIDE_SCORES, Match, Reader, Scores
from .cross_head import in_students_channels
from .grid_checks import check_cells, check_kind, check_meaning
from .grid_crossing import GridCrossing
from .grid_levels import levels_of, rows_of
from .grid_mapping import GridMapping
from .grid_tap import GridTap, tapped_head
from .grid_wanted import add_wanted, check_wanted
from .heads import MASK_CELLS, dense_head, scores_of, spec_of
from .locations import confidence, highest, located, positives
from .method_tap import noted_outputs
from .targets import KnownOrder, Targets
from .text_heads import is_text_head, text_scores

# These call a teacher of their own inside.
DISTILLERS = ('KnowledgeDistillationSingleStageDetector', 'LAD')

# Held-out images are compared on this share of their cells: all others are
# background, on which any two models agree.
SUREST = 0.01


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
        cross_layer: Compare not the student's own scores with the
            teacher's, but those that the rest of the teacher's head makes
            of the student's features at this layer
            (:class:`~mmrkkd.distillers.readers.cross_head.CrossHead`).
            'auto' is the usual one of the head, the published where one is.
            Defaults to None, the student's own.
        cross_box_layer: The same for boxes, which ``LDLoss`` and
            ``BoxGIoULoss`` compare: a layer of the branch that says where
            they are. Goes with ``cross_layer``. Defaults to None, the
            student's own.
        anchors: 'same', or 'max' for heads with other numbers of anchors,
            see :class:`~mmrkkd.distillers.readers.grid_mapping.GridMapping`.
            Labels are not known then. Defaults to 'same'.
        levels: 'same', or 'shared' for heads with other levels, see there.
            Labels are not known then. Defaults to 'same'.
    """

    name = 'grid'
    unit = 'cells'
    rank = 1
    keeps_size = True
    offers = ('groups', 'bins', 'boxes')
    # Standardised rows of the background are noise, and a hundred times as
    # many as those of objects: weights alone do not silence them.
    ranked_at = 'top'

    def __init__(
        self,
        locations: str = 'all',
        top: float = 0.01,
        cross_layer: str | None = None,
        cross_box_layer: str | None = None,
        anchors: str = 'same',
        levels: str = 'same',
    ) -> None:
        check_choice('locations', locations, LOCATIONS)
        self.mapping = GridMapping(anchors, levels)
        if self.mapping and cross_layer is not None:
            raise ValueError(
                'cross_layer needs heads with the same cells, got anchors='
                f'{anchors!r} and levels={levels!r}'
            )
        self.placement = Placement(locations, top)
        if cross_box_layer is not None and cross_layer is None:
            raise ValueError(
                f'cross_box_layer={cross_box_layer!r} needs a cross_layer: '
                'where boxes are crossed, scores are'
            )
        self.cross = None
        if cross_layer is not None:
            self.cross = GridCrossing(cross_layer, cross_box_layer)
        self.crosses = self.cross is not None
        self.known = KnownOrder()

    def __repr__(self) -> str:
        text = f"grid, cells of the student's head {self.placement}"
        if self.mapping:
            text += f', {self.mapping} (experimental)'
        if self.cross is None:
            return text
        return f"{text}, from {self.cross} on by the teacher's head"

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
        check_kind('student', student, self.prompts)
        check_kind('teacher', teacher, self.prompts)
        if set(DISTILLERS) & {kind.__name__ for kind in type(student).__mro__}:
            raise TypeError(
                f'the student {type(student).__name__} is a distiller '
                'already, with a teacher of its own: give the plain '
                'detector as student'
            )
        check_meaning(dense_head(student), dense_head(teacher))
        self.mapping.check(dense_head(student), dense_head(teacher))
        if self.cross is not None:
            self.cross.check(dense_head(student), dense_head(teacher))

    def scores(self, model: nn.Module) -> Scores:
        """See :meth:`Reader.scores`."""
        head = dense_head(model)
        if is_text_head(head):
            return text_scores(self.prompts)
        return scores_of(head)

    def learns_boxes(self, student: nn.Module) -> bool:
        """See :meth:`Reader.learns_boxes`.

        SOLO and its kin choose cells by the boxes of their objects, and
        pass over one without area.
        """
        return spec_of(dense_head(student)).meaning != MASK_CELLS

    @contextmanager
    def tap(self, student: nn.Module) -> Iterator[GridTap]:
        """Notes the scores of the student's forward run inside the block."""
        head = dense_head(student)
        with tapped_head(head) as tap, self._tapped(head) as tap.crossing:
            yield tap

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
            data_samples: B samples of the batch.

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
        spec, scores = spec_of(head), scores_of(head)
        levels = spec.levels(taps.outputs, head)
        sources, teacher_head = spec.sources(taps.outputs), dense_head(teacher)
        with (
            torch.no_grad(),
            self._tapped(teacher_head) as seen,
            noted_outputs(*([teacher_head] if self.wants else [])) as noted,
        ):
            others, features = levels_of(
                teacher, teacher_inputs, data_samples, self.prompts
            )
        levels, others = self.mapping(levels, others, head, teacher_head)
        check_cells(levels, others, head, teacher_head)
        raw = rows_of(levels)
        student_logits, boxes_of = spec.logits(raw), (head, taps.outputs)
        with torch.no_grad():
            teacher_logits = spec_of(teacher_head).logits(rows_of(others))
            teacher_logits = teacher_logits.flatten(0, 1)
            # Labels are those of an anchor, not of the highest of them.
            targets = Targets()
            if not self.mapping:
                cells = [each[0, ..., 0].numel() for each in levels]
                targets = taps.loss.targets(raw, cells, self.known)
        self.say_where_labels_are_from(targets.order)
        if self.cross is not None:
            outputs = self.cross.outputs(
                teacher_head, features, taps.crossing, seen, len(levels)
            )
            crossed = spec_of(teacher_head)
            crossed = crossed.logits(
                rows_of(crossed.levels(outputs, teacher_head))
            )
            student_logits = in_students_channels(
                crossed, self.class_map, scores.channels
            )
            if self.cross.of_boxes:
                boxes_of = teacher_head, outputs
            # What the student's own scores are made of, too.
            sources = taps.features
        match = Match(
            student_logits.flatten(0, 1),
            teacher_logits,
            targets.labels,
            counts=targets.counts,
            images=len(raw),
            confidence=confidence(teacher_logits, scores, self.class_map),
            sources=tuple(sources),
        )
        match.normalizer = positives(match, scores)
        match.weight = located(match, scores, self.placement)
        if boxes_of[0] is head and BESIDE_SCORES & self.wants:
            match.box_sources = tuple(taps.outputs[1])
        if self.wants:
            add_wanted(
                match,
                self.wants,
                head,
                (boxes_of, (teacher_head, noted[0])),
                levels,
                data_samples,
            )
        if self.cross is not None:
            boxes = [each for each in (match.bins, match.boxes) if each]
            self.cross.check_way(taps.crossing, crossed, boxes, teacher_head)
        return [match]

    @torch.no_grad()
    def held_out(
        self,
        student: nn.Module,
        teacher: nn.Module,
        inputs: Tensor,
        teacher_inputs: Tensor,
        data_samples: Sequence,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Reader.held_out`: the teacher's surest cells."""
        heads = dense_head(student), dense_head(teacher)
        levels, others = (
            levels_of(model, images, data_samples, self.prompts)[0]
            for model, images in (
                (student, inputs),
                (teacher, teacher_inputs),
            )
        )
        levels, others = self.mapping(levels, others, *heads)
        check_cells(levels, others, *heads)
        own, taught = (
            spec_of(head).logits(rows_of(each))
            for head, each in zip(heads, (levels, others), strict=True)
        )
        sure = confidence(taught, scores_of(heads[1]), self.class_map)
        kept = highest(sure, SUREST)
        return tuple(
            logits.gather(
                1, kept[..., None].expand(-1, -1, logits.shape[-1])
            ).flatten(0, 1)
            for logits in (own, taught)
        )

    def want(
        self, what: str, loss: str, student: nn.Module, teacher: nn.Module
    ) -> None:
        """See :meth:`Reader.want`."""
        heads = dense_head(student), dense_head(teacher)
        check_wanted(what, loss, *heads, self.mapping)
        super().want(what, loss, student, teacher)

    def passed_layers(self, teacher: nn.Module) -> set[nn.Module] | None:
        """See :meth:`Reader.passed_layers`."""
        if self.cross is None or (
            self.needs_whole_heads and not self.cross.of_boxes
        ):
            return None
        return self.cross.passed(dense_head(teacher))

    def _tapped(
        self, head: nn.Module
    ) -> AbstractContextManager[list[list[Tensor]]]:
        """Notes what goes into the crossing layers, if there are some."""
        return self.cross.tapped(head) if self.cross else nullcontext([])
