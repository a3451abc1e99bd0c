"""Matched logits of detectors with learned proposals: Sparse R-CNN."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .base import Match, Scores
from .loss_tap import LossTap, by_class, is_sigmoid
from .method_tap import Call, noted_calls
from .query_matching import Predictions
from .query_pairs import PairedQueries, labels_of_layers
from .score_checks import check_activation

SPARSE = {'SparseRoIHead': True}


class SparseTap(NamedTuple):
    """What the stages put out, and what their losses were called with."""

    stages: list[Call]
    losses: list[LossTap]


class SparseReader(PairedQueries):
    """Reads the class logits of the proposals of each stage.

    Sparse R-CNN and QueryInst refine learned proposals, which are other
    ones in the teacher than in the student: as with decoder layers, each of
    the teacher's surest ones is answered by the student's proposal that
    says most nearly the same. Each stage is matched, under its loss weight.

    Args:
        teacher_top: See :class:`PairedQueries`. Defaults to 100.
        layers: The stages that learn, see :class:`PairedQueries`. Defaults
            to 'all'.
        teacher_layer: The stage that teaches, see :class:`PairedQueries`.
            Defaults to 'same'.
        locations: See :class:`PairedQueries`. Defaults to 'confidence'.
    """

    name = 'sparse'
    # Before the reader of boxes, which other RoI heads have.
    rank = -1
    unit = 'proposals'

    def __repr__(self) -> str:
        return (
            f"proposals, the teacher's {self.teacher_top} surest of an image "
            f"and stage, {self.locations}, {self.layers} stages, teacher's "
            f'stage: {self.teacher_layer}'
        )

    @classmethod
    def fits(cls, model: nn.Module) -> bool:
        """See :meth:`Reader.fits`."""
        return bool(by_class(SPARSE, getattr(model, 'roi_head', None)))

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Refuses models whose proposals cannot be compared.

        Raises:
            TypeError: one has no learned proposals, or one scores classes
                by a sigmoid and the other by a softmax.
        """
        for owner, model in (('student', student), ('teacher', teacher)):
            if not self.fits(model):
                raise TypeError(
                    f'the {owner} {type(model).__name__} has no learned '
                    'proposals: the reader sparse is for Sparse R-CNN and '
                    "QueryInst (SparseRoIHead); use matching='auto', and a "
                    'teacher of the same kind'
                )
        check_activation(
            student,
            teacher,
            self.scores,
            'Use a teacher with the same loss_cls',
        )

    def scores(self, model: nn.Module) -> Scores:
        """See :meth:`Reader.scores`."""
        head = model.roi_head.bbox_head[-1]
        sigmoid = is_sigmoid(head.loss_cls)
        return Scores(
            head.num_classes + (not sigmoid),
            'sigmoid' if sigmoid else 'softmax',
            background=not sigmoid,
        )

    @contextmanager
    def tap(self, student: nn.Module) -> Iterator[SparseTap]:
        """Notes the stages of the student's forward inside the block."""
        head = student.roi_head
        losses = [LossTap() for _ in head.bbox_head]
        with ExitStack() as stack:
            for loss, stage in zip(losses, head.bbox_head, strict=True):
                stack.enter_context(
                    stage.loss_cls.register_forward_pre_hook(
                        loss.see, with_kwargs=True
                    )
                )
            calls = stack.enter_context(noted_calls(head, '_bbox_forward'))
            yield SparseTap(calls, losses)

    def read(
        self,
        taps: SparseTap,
        student: nn.Module,
        teacher: nn.Module,
        teacher_inputs: Tensor,
        data_samples: Sequence,
    ) -> list[Match]:
        """Pairs student's and teacher's proposals: :meth:`Reader.read`.

        Returns:
            One match for each stage that learns.
        """
        teachers = self.predicted(teacher, teacher_inputs, data_samples)
        students = _stages(taps.stages, data_samples)
        labels = [
            (labels_of_layers(loss, [stage]) or [None])[0]
            for loss, stage in zip(taps.losses, students, strict=True)
        ]
        if any(each is None for each in labels):
            labels = None
        self.say_where_labels_are_from('by layer' if labels else 'none')
        matches = self.pair(students, teachers, self.scores(student), labels)
        weights = student.roi_head.stage_loss_weights
        for stage, match in zip(self.learning(students), matches, strict=True):
            match.prefix, match.scale = f's{stage}.', float(weights[stage])
            match.sources = (students[stage].scores,)
            if 'boxes' in self.wants:
                found = taps.stages[stage].result['decoded_bboxes']
                match.box_sources = (found,)
        return matches

    @torch.no_grad()
    def predicted(
        self, model: nn.Module, inputs: Tensor, data_samples: Sequence
    ) -> list[Predictions]:
        """See :meth:`PairedQueries.predicted`."""
        features, head = model.extract_feat(inputs), model.roi_head
        proposals = model.rpn_head.predict(
            features, data_samples, rescale=False
        )
        with noted_calls(head, '_bbox_forward') as calls:
            head.predict_bbox(
                features,
                [sample.metainfo for sample in data_samples],
                proposals,
                head.test_cfg,
                rescale=False,
            )
        return _stages(calls, data_samples)


def _stages(
    calls: Sequence[Call], data_samples: Sequence
) -> list[Predictions]:
    """The scores and boxes of each stage."""
    stages = []
    for call in calls:
        scores = call.result['cls_score']
        boxes = call.result['decoded_bboxes'].view(*scores.shape[:2], 4)
        corners = (
            boxes
            / boxes.new_tensor(
                [
                    [width, height] * 2
                    for height, width in (
                        each.img_shape for each in data_samples
                    )
                ]
            )[:, None]
        )
        first, second = corners.split(2, -1)
        boxes = torch.cat([(first + second) / 2, second - first], -1)
        stages.append(Predictions(scores, boxes))
    return stages
