"""Distillation of detectors."""

from collections.abc import Sequence

from torch import nn

from mmrkkd.ops.checks import check_choice
from mmrkkd.registry import MODELS

from .distiller import LogitDistiller
from .readers import Reader
from .readers.two_stage import LOCATIONS


@MODELS.register_module()
class KDDetector(LogitDistiller):
    """A detector that learns from a frozen teacher's logits.

    Teacher and student of two-stage detectors classify the same boxes:
    those that the student's RoI head samples for its own loss. Their logits
    are the num_classes + 1 scores before softmax, background last. Dense
    detectors score the same cells.

    Args:
        student: Config of the student detector, or the detector.
        teacher: Arguments of :func:`mmrkkd.distillers.teacher.build_teacher`.
        losses: Config of a logit loss, or a list of them.
        task_weight: beta, the weight of the detector's own losses (RPN,
            boxes, cross entropy), a number or a schedule. Defaults to 1.0.
        rois: The same as ``matching=dict(type='rois', locations=rois)``:
            'all', 'foreground' or 'confidence'. Defaults to None, what
            ``matching`` says.
        matching: How logits are matched, see :class:`LogitDistiller`.
            Defaults to 'auto', for a two-stage detector all RoIs that it
            samples, for a dense one all cells.
        classes: 'same' or 'shared', see :class:`LogitDistiller`.
            Defaults to 'same'.
        class_names: The student's classes. Defaults to those of the
            training set.
        gradient_interval: See :class:`LogitDistiller`. Defaults to 0.
        feature_size: See :class:`LogitDistiller`. Defaults to None.
        data_preprocessor: See :class:`LogitDistiller`.

    Source: Guan et al., arXiv:2409.17823, section 5 (table 5 does not say
        which logits; these are the choice of Zhao et al., arXiv:2203.08679).
    """

    def __init__(
        self,
        student: dict | nn.Module,
        teacher: dict,
        losses: dict | Sequence[dict],
        task_weight: float | dict = 1.0,
        rois: str | None = None,
        matching: str | dict | Reader = 'auto',
        classes: str = 'same',
        class_names: Sequence[str] | None = None,
        gradient_interval: int = 0,
        feature_size: int | None = None,
        data_preprocessor: dict | None = None,
    ) -> None:
        if rois is not None:
            check_choice('rois', rois, LOCATIONS)
            if matching != 'auto':
                raise ValueError(
                    'give either rois or matching=dict(type="rois", '
                    f'locations=...), got rois={rois!r} and '
                    f'matching={matching!r}'
                )
            matching = dict(type='rois', locations=rois)
        super().__init__(
            student=student,
            teacher=teacher,
            losses=losses,
            task_weight=task_weight,
            matching=matching,
            classes=classes,
            class_names=class_names,
            gradient_interval=gradient_interval,
            feature_size=feature_size,
            data_preprocessor=data_preprocessor,
        )
