"""Matched logits of two-stage detectors: the same boxes for both."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmrkkd.ops.checks import check_choice

from .base import Match, Reader, Scores

LOCATIONS = ('all', 'foreground', 'confidence')


class StageTap:
    """Notes what passes through one RoI stage of the student's forward."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.rois: Tensor | None = None
        self.scored_rois: Tensor | None = None
        self.scores: Tensor | None = None
        self.labels: Tensor | None = None

    def see_rois(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Hook before the RoI extractor: forward(features, rois)."""
        self.rois = kwargs['rois'] if 'rois' in kwargs else args[1]

    def see_scores(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Hook before the classification loss: forward(scores, labels)."""
        # Some heads run the extractor more than once in a step; the boxes
        # that belong to the scores are those of the last run before them.
        self.scored_rois = self.rois
        self.scores, self.labels = args[:2]
        if len(self.scores) != len(self.scored_rois):
            raise RuntimeError(
                f'the RoI head scored {len(self.scores)} boxes but extracted '
                f'{len(self.scored_rois)}: it is not a standard RoI head, '
                "and its logits cannot be matched with the teacher's"
            )

    def close(self, device: torch.device) -> None:
        """Fills in an empty stage: no box was sampled, no loss computed."""
        if self.scores is None:
            self.scored_rois = torch.zeros(0, 5, device=device)
            self.scores = torch.zeros(0, self.channels, device=device)
            self.labels = torch.zeros(0, dtype=torch.long, device=device)


class TwoStageReader(Reader):
    """Reads classification logits (num_classes + 1, background last).

    The student's training forward is run once; hooks note the boxes that
    its RoI head samples, their scores and labels on the way. The teacher
    scores the same boxes on its own features.

    Every head built like MMDetection's ``StandardRoIHead`` (Faster and Mask
    R-CNN and others) or ``CascadeRoIHead`` will do. In a cascade each stage
    is matched with the teacher's stage, under the stage's loss weight; a
    teacher with one stage serves all the student's.

    Args:
        locations: Which of the sampled boxes count. 'all' (as published);
            'foreground', those matched with an object; 'confidence', all,
            each weighted by the teacher's highest foreground probability.
            Defaults to 'all'.
    """

    name = 'rois'

    def __init__(self, locations: str = 'all') -> None:
        check_choice('locations', locations, LOCATIONS)
        self.locations = locations

    def __repr__(self) -> str:
        return f'two-stage, {self.locations} sampled RoIs of the student'

    @classmethod
    def fits(cls, model: nn.Module) -> bool:
        """See :meth:`Reader.fits`."""
        return hasattr(model, 'roi_head')

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Refuses models that this reader cannot match.

        Raises:
            TypeError: one has no RoI head with a softmax box classifier.
            ValueError: the numbers of stages do not fit.
        """
        for owner, model in (('student', student), ('teacher', teacher)):
            if not hasattr(model, 'roi_head'):
                raise TypeError(
                    f'the {owner} {type(model).__name__} has no roi_head: '
                    'KDDetector distils two-stage detectors (Faster, Mask, '
                    'Cascade R-CNN and relatives)'
                )
            for _, head in _stages(model):
                if head.loss_cls.use_sigmoid or getattr(
                    head.loss_cls, 'custom_cls_channels', False
                ):
                    raise TypeError(
                        f"the {owner}'s box head classifies with "
                        f'{type(head.loss_cls).__name__}, which is no '
                        'softmax over the classes and background; set '
                        'use_sigmoid=False'
                    )
        stages = len(_stages(student)), len(_stages(teacher))
        if stages[1] not in (1, stages[0]):
            raise ValueError(
                f'the student has {stages[0]} RoI stages, the teacher '
                f'{stages[1]}; it must have as many, or one'
            )

    def scores(self, model: nn.Module) -> Scores:
        """See :meth:`Reader.scores`."""
        return Scores(_stages(model)[0][1].num_classes + 1, background=True)

    @contextmanager
    def tap(self, student: nn.Module) -> Iterator[list[StageTap]]:
        """Notes the logits of the student's forward run inside the block."""
        stages = _stages(student)
        taps = [StageTap(self.scores(student).channels) for _ in stages]
        handles = []
        for tap, (extractor, head) in zip(taps, stages, strict=True):
            handles.append(
                extractor.register_forward_pre_hook(
                    tap.see_rois, with_kwargs=True
                )
            )
            handles.append(
                head.loss_cls.register_forward_pre_hook(
                    tap.see_scores, with_kwargs=True
                )
            )
        try:
            yield taps
        finally:
            for handle in handles:
                handle.remove()

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
            One match for each RoI stage.
        """
        features = teacher.extract_feat(teacher_inputs)
        weights = getattr(student.roi_head, 'stage_loss_weights', [1.0])
        matches = []
        for stage, tap in enumerate(taps):
            tap.close(teacher_inputs.device)
            logits = box_logits(teacher, stage, features, tap.scored_rois)
            matches.append(
                Match(
                    tap.scores,
                    logits,
                    tap.labels,
                    self._weight(tap.labels, logits, tap.channels - 1),
                    prefix=f's{stage}.' if len(taps) > 1 else '',
                    scale=float(weights[stage]),
                    places=tap.scored_rois,
                )
            )
        return matches

    def _weight(
        self, labels: Tensor, teacher_logits: Tensor, background: int
    ) -> Tensor | None:
        if self.locations == 'all':
            return None
        if self.locations == 'foreground':
            return (labels < background).float()
        return teacher_logits.float().softmax(-1)[:, :-1].amax(-1)


def box_logits(
    model: nn.Module, stage: int, features: tuple[Tensor, ...], rois: Tensor
) -> Tensor:
    """The classification logits that a detector gives to boxes.

    Args:
        model: A two-stage detector.
        stage: RoI stage; a model with one stage uses it for every number.
        features: Its feature maps.
        rois: (R, 5): index of the image in the batch, x1, y1, x2, y2.

    Returns:
        (R, num_classes + 1), background last.
    """
    head = model.roi_head
    if not len(rois):
        return rois.new_zeros(0, _stages(model)[0][1].num_classes + 1)
    if isinstance(head.bbox_head, nn.ModuleList):
        return head._bbox_forward(stage, features, rois)['cls_score']
    return head._bbox_forward(features, rois)['cls_score']


def _stages(model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """The (RoI extractor, box head) of each stage."""
    head = model.roi_head
    if isinstance(head.bbox_head, nn.ModuleList):
        return list(zip(head.bbox_roi_extractor, head.bbox_head, strict=True))
    return [(head.bbox_roi_extractor, head.bbox_head)]
