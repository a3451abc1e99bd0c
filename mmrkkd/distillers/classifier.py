"""Distillation of image classifiers."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate

from mmrkkd.registry import MODELS

from .distiller import LogitDistiller
from .readers import Reader
from .views import MultiViewPreprocessor


@MODELS.register_module()
class KDClassifier(LogitDistiller):
    """An image classifier that learns from a frozen teacher's logits.

    Args:
        student: Config of the student classifier, or the classifier.
        teacher: Arguments of :func:`mmrkkd.distillers.teacher.build_teacher`.
        losses: Config of a logit loss, or a list of them. Losses that
            compare two views of each image (MLKD, CRLD) need a data
            pipeline that makes them.
        task_weight: beta, the weight of the classifier's own loss, a number
            or a schedule. With several views their task losses are added
            up. Defaults to 1.0.
        teacher_size: Side of the teacher's input in pixels: the student's
            batch is resized to it, bilinearly and without antialiasing, as
            for a ViT at 224 pixels that learns from a ResNet at 32. By
            default the teacher sees what the student sees.
        matching: See :class:`LogitDistiller`. Defaults to 'images', one
            row for each image.
        classes: 'same' or 'shared', see :class:`LogitDistiller`.
            Defaults to 'same'.
        class_names: The student's classes. Defaults to those of the
            training set.
        gradient_interval: See :class:`LogitDistiller`. Defaults to 0.
        feature_size: See :class:`LogitDistiller`. Defaults to None.
        data_preprocessor: See :class:`LogitDistiller`.

    Source: Guan et al., arXiv:2409.17823, section 5.
    """

    _preprocessor = MultiViewPreprocessor

    def __init__(
        self,
        student: dict | nn.Module,
        teacher: dict,
        losses: dict | Sequence[dict],
        task_weight: float | dict = 1.0,
        teacher_size: int | None = None,
        matching: str | dict | Reader = 'images',
        classes: str = 'same',
        class_names: Sequence[str] | None = None,
        gradient_interval: int = 0,
        feature_size: int | None = None,
        data_preprocessor: dict | None = None,
    ) -> None:
        if teacher_size is not None and (
            type(teacher_size) is not int or teacher_size < 1
        ):
            raise ValueError(
                'teacher_size must be a number of pixels >= 1 or None, got '
                f'{teacher_size!r}'
            )
        self.teacher_size = teacher_size
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

    def teacher_inputs(self, inputs: Tensor, data_samples: list) -> Tensor:
        """See :meth:`LogitDistiller.teacher_inputs`."""
        # Classifiers' images fill their frame, whatever size their
        # metainfo remembers from before the last crop.
        inputs = self.bridge(inputs, [None] * len(inputs))
        if self.teacher_size is None:
            return inputs
        return interpolate(
            inputs, size=(self.teacher_size,) * 2, mode='bilinear'
        )

    def input_settings(self) -> str:
        """See :meth:`LogitDistiller.input_settings`."""
        text = super().input_settings()
        if self.teacher_size is not None:
            text += f', resized to {self.teacher_size} pixels'
        return text
