"""Matched logits of two-stage detectors: the same boxes for both."""

from collections.abc import Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
)

import torch
from torch import Tensor, nn

from mmrkkd.losses.placement import Placement
from mmrkkd.ops.checks import check_choice

from .base import Match, Reader, Scores
from .box_heads import (
    box_context,
    box_logits,
    box_scores,
    box_stages,
    check_box_head,
    used_stages,
)
from .box_tap import StageTap, in_teachers_batch
from .cross_box_head import BoxCross, Call
from .cross_head import in_students_channels
from .locations import located
from .method_tap import noted_outputs
from .objects import annotated_boxes, objects_of_boxes
from .roi_boxes import check_boxes, matched_boxes
from .score_checks import check_activation

LOCATIONS = ('all', 'foreground', 'confidence')
TEACHER_STAGES = ('same', 'last', 'mean')


class TwoStageReader(Reader):
    """Reads classification logits of boxes.

    They are num_classes + 1 with a softmax, background last, or num_classes
    with a sigmoid.

    The student's training forward is run once; hooks note the boxes that
    its RoI head samples, their scores and labels on the way. The teacher
    scores the same boxes on its own features, in its RoI head's own way:
    with semantic features and global context where it has them.

    Every head built like MMDetection's ``StandardRoIHead`` (Faster and Mask
    R-CNN and others) or ``CascadeRoIHead`` (HTC, SCNet) will do. In a
    cascade each of the student's stages is matched, under its loss weight.

    Args:
        locations: Which of the sampled boxes count. 'all' (as published);
            'foreground', those matched with an object; 'confidence', all,
            each weighted by the teacher's highest foreground probability.
            Defaults to 'all'.
        teacher_stage: Which stage of a cascade teaches. 'same', the one of
            the same number as the student's, or the last where the teacher
            has fewer: its first for a student with one stage, as published,
            since both score boxes of the RPN. A number, from 0; 'last'; or
            'mean', the mean of all its stages' scores, which is what a
            cascade predicts with. Defaults to 'same'.
        cross_layer: Compare not the student's own scores with the
            teacher's, but those that the rest of the teacher's box head
            makes of the student's features at this layer
            (:class:`~mmrkkd.distillers.readers.cross_box_head.BoxCross`), on
            the same boxes. Defaults to None, the student's own.
    """

    name = 'rois'
    unit = 'boxes'
    offers = ('groups', 'boxes')

    def __init__(
        self,
        locations: str = 'all',
        teacher_stage: int | str = 'same',
        cross_layer: str | None = None,
    ) -> None:
        check_choice('locations', locations, LOCATIONS)
        self.locations = locations
        self.teacher_stage = _checked_stage(teacher_stage)
        self.cross = None if cross_layer is None else BoxCross(cross_layer)
        self.crosses = self.cross is not None

    def __repr__(self) -> str:
        text = f'two-stage, {self.locations} sampled RoIs of the student'
        if self.teacher_stage != 'same':
            text += f", the teacher's stage: {self.teacher_stage}"
        if self.cross is None:
            return text
        return f"{text}, from {self.cross.layer} on by the teacher's head"

    @classmethod
    def fits(cls, model: nn.Module) -> bool:
        """See :meth:`Reader.fits`."""
        return hasattr(model, 'roi_head')

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Refuses models that this reader cannot match.

        Raises:
            TypeError: one has no RoI head with a box classifier, or one has
                a softmax and the other a sigmoid.
            ValueError: the teacher has not the stage that is asked for, or
                a box head not the layer.
        """
        check_box_head('student', student)
        check_box_head('teacher', teacher)
        check_activation(
            student,
            teacher,
            self.scores,
            'Use a teacher with the same loss_cls',
            'boxes',
        )
        stages = len(box_stages(teacher))
        if isinstance(self.teacher_stage, int) and (
            self.teacher_stage >= stages
        ):
            raise ValueError(
                f'teacher_stage={self.teacher_stage}, but the teacher '
                f'{type(teacher).__name__} has {stages} RoI stages, counted '
                'from 0'
            )
        if self.cross is not None:
            for stage, (_, head) in enumerate(box_stages(student)):
                for other in self._teaching(teacher, stage):
                    self.cross.check(head, other)

    def scores(self, model: nn.Module) -> Scores:
        """See :meth:`Reader.scores`."""
        return box_scores(box_stages(model)[0][1])

    @contextmanager
    def tap(self, student: nn.Module) -> Iterator[list[StageTap]]:
        """Notes the logits of the student's forward run inside the block."""
        stages = box_stages(student)
        taps = [StageTap() for _ in stages]
        with ExitStack() as stack:
            for tap, (extractor, head) in zip(taps, stages, strict=True):
                for handle in (
                    extractor.register_forward_pre_hook(
                        tap.see_rois, with_kwargs=True
                    ),
                    head.register_forward_hook(tap.see_scores),
                    head.loss_cls.register_forward_pre_hook(
                        tap.loss.see, with_kwargs=True
                    ),
                ):
                    stack.enter_context(handle)
                if self.cross is not None:
                    tap.calls = stack.enter_context(self.cross.calls(head))
            yield taps

    @torch.no_grad()
    def read(
        self,
        taps: list[StageTap],
        student: nn.Module,
        teacher: nn.Module,
        teacher_inputs: Tensor,
        data_samples: Sequence,
    ) -> list[Match]:
        """Scores the tapped boxes with the teacher.

        Args:
            taps: What :meth:`tap` gave, after the student's forward.
            student: The student.
            teacher: The teacher, in eval mode.
            teacher_inputs: (B, 3, H, W), preprocessed for the teacher. Its
                boxes are the student's: both see the same geometry.
            data_samples: B samples; unused.

        Returns:
            One match for each of the student's RoI stages.

        Raises:
            RuntimeError: a stage's boxes, scores and labels do not belong
                together.
            ValueError: a box lies in an image that the teacher has not, or
                the student's features do not fit the teacher's head.
        """
        features = teacher.extract_feat(teacher_inputs)
        context = box_context(teacher, features)
        weights = getattr(student.roi_head, 'stage_loss_weights', [1.0])
        placement = Placement(self.locations)
        heads = [head for _, head in box_stages(student)]
        matches = []
        for stage, (tap, head) in enumerate(zip(taps, heads, strict=True)):
            # Seesaw's logits are made of the student's scores.
            with torch.enable_grad():
                tap.close(head, teacher_inputs.device)
            rois = in_teachers_batch(tap, student, len(teacher_inputs))
            teaching = self._teaching(teacher, stage)
            with (
                self._calls(teaching) as calls,
                noted_outputs(
                    *(teaching if 'boxes' in self.wants else ())
                ) as noted,
            ):
                logits = box_logits(
                    teacher, self._taught_by(stage), features, rois, context
                )
            own, source = tap.scores, tap.source
            mover, movement = head, tap.deltas
            if self.cross is not None and len(rois):
                own, source, movement = self._crossed(tap, calls, teaching)
                mover = teaching[0]
            match = Match(
                own,
                logits,
                tap.labels,
                prefix=f's{stage}.' if len(taps) > 1 else '',
                scale=float(weights[stage]),
                places=rois,
                sources=(source,),
            )
            match.weight = located(
                match, self.scores(student), placement, self.class_map
            )
            if 'groups' in self.wants:
                match.groups = objects_of_boxes(
                    match.places, match.labels, data_samples
                )
            if 'boxes' in self.wants:
                if mover is head and movement is not None:
                    match.box_sources = (movement,)
                match.boxes = matched_boxes(
                    logits,
                    rois,
                    (mover, movement),
                    (teaching[0], noted),
                    self.class_map,
                )
            matches.append(match)
        return matches

    def want(
        self, what: str, loss: str, student: nn.Module, teacher: nn.Module
    ) -> None:
        """See :meth:`Reader.want`."""
        if what == 'boxes':
            check_boxes(loss, student, teacher, self.teacher_stage)
        super().want(what, loss, student, teacher)

    @torch.no_grad()
    def held_out(
        self,
        student: nn.Module,
        teacher: nn.Module,
        inputs: Tensor,
        teacher_inputs: Tensor,
        data_samples: Sequence,
    ) -> tuple[Tensor, Tensor] | None:
        """See :meth:`Reader.held_out`: annotated boxes, by the last stage."""
        rois = annotated_boxes(data_samples, inputs.device)
        if not len(rois):
            return None
        return (
            box_logits(student, 'last', student.extract_feat(inputs), rois),
            box_logits(
                teacher, 'last', teacher.extract_feat(teacher_inputs), rois
            ),
        )

    def _taught_by(self, stage: int) -> int | str:
        """Which of the teacher's stages teaches a student's."""
        return stage if self.teacher_stage == 'same' else self.teacher_stage

    def _teaching(self, teacher: nn.Module, stage: int) -> list[nn.Module]:
        """The teacher's box heads that score a student's stage."""
        heads = [head for _, head in box_stages(teacher)]
        used = used_stages(teacher, self._taught_by(stage))
        return [heads[each] for each in used]

    def _calls(
        self, teaching: Sequence[nn.Module]
    ) -> AbstractContextManager[list[Call]]:
        """Notes the calls of the teaching box heads, if they are crossed."""
        return self.cross.calls(*teaching) if self.cross else nullcontext([])

    def _crossed(
        self, tap: StageTap, calls: list[Call], teaching: list[nn.Module]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The crossed scores of a stage, and the features they come from.

        Args:
            tap: The student's stage, closed.
            calls: Those of the teaching box heads on its boxes.
            teaching: The heads.

        Returns:
            (R, C_s); what the student's box head was called with, which its
            own scores are made of, too; and how the boxes are moved.
        """
        (own,) = (call for call in tap.calls if call.scores is tap.source)
        with torch.enable_grad():
            logits, deltas = self.cross.outputs(
                own, list(zip(teaching, calls, strict=True))
            )
            return (
                in_students_channels(
                    logits, self.class_map, tap.scores.shape[-1]
                ),
                own.features,
                deltas,
            )


def _checked_stage(stage: int | str) -> int | str:
    if stage in TEACHER_STAGES and isinstance(stage, str):
        return stage
    if isinstance(stage, bool) or not isinstance(stage, int) or stage < 0:
        raise ValueError(
            "teacher_stage must be 'same', 'last', 'mean' or the number of a "
            f'stage, from 0; got {stage!r}'
        )
    return stage
