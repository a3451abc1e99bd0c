"""The whole path of one training step of distillation."""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mmengine.config import ConfigDict
from mmengine.logging import print_log
from torch import Tensor, nn

from mmrkkd.losses import (
    LogitLoss,
    Progress,
    build_loss,
    build_schedule,
    set_progress,
)
from mmrkkd.losses.feature import FeatureLoss, FeaturePair
from mmrkkd.ops.checks import check_choice
from mmrkkd.registry import MODELS

from .acts_as_student import ActsAsStudent
from .annotations import check_samples
from .bridge import PreprocessBridge
from .class_map import CLASS_MODES, ClassMap, fewest_shared, match_classes
from .feature_seam import FeatureSeam
from .readers import Match, Reader, build_reader, stack_views
from .running import training_classes, training_progress
from .sharding import refuse_sharding
from .teacher import build_teacher, check_teacher
from .terms import add_terms, feature_terms, logit_terms, task_terms


class Pass(NamedTuple):
    """What one view of a batch gave."""

    task_losses: dict
    matches: list[Match]
    features: list[FeaturePair]


class LogitDistiller(ActsAsStudent):
    """A student that learns from data and from a frozen teacher.

    ::

        loss = beta * (task losses) + (distillation losses)

    To a runner it is the student (:class:`ActsAsStudent`): its state dict,
    ``predict`` and ``tensor`` are the student's. The teacher is in no state
    dict, optimizer, EMA copy or parameter count.

    Args:
        student: Config of the student, or the model.
        teacher: Arguments of :func:`mmrkkd.distillers.build_teacher`:
            config, checkpoint, sha256, classes, allow_random_weights,
            trust_checkpoint.
        losses: Config of a distillation loss, or a list of them; of logits
            and of features.
        task_weight: beta >= 0, or a schedule
            (:func:`mmrkkd.losses.build_schedule`). Defaults to 1.0.
        matching: How logits are matched: 'auto', the name of a reader, or a
            dict with ``type`` and its arguments; see
            :mod:`mmrkkd.distillers.readers`. Defaults to 'auto'.
        classes: 'same' wants teacher and student to know the same class
            names, in any order; 'shared' distils on those that both know.
            Defaults to 'same'.
        class_names: The student's classes; by default those of the training
            set, which the runner makes known.
        gradient_interval: Every how many steps to log how hard each term
            pulls (``kd/grad_norm_<term>``, ``kd/grad_share_<term>``; the
            task's terms count as one): logit losses at the student's
            logits, feature losses at its features. Defaults to 0, never.
        feature_size: Side in pixels of the empty image on which the shapes
            of features are read, for models that take one size only.
            Defaults to None, some usual ones.
        data_preprocessor: Config of the student's, where its own config
            has none: MMEngine's runner hands on the ``data_preprocessor``
            that stands beside the model in a config.

    Raises:
        TypeError: teacher has a key that :func:`build_teacher` does not.
        ValueError: gradient_interval is negative, or the models do not fit,
            see :func:`match_classes`.
    """

    def __init__(
        self,
        student: dict | nn.Module,
        teacher: dict,
        losses: dict | Sequence[dict],
        task_weight: float | dict = 1.0,
        matching: str | dict | Reader = 'auto',
        classes: str = 'same',
        class_names: Sequence[str] | None = None,
        gradient_interval: int = 0,
        feature_size: int | None = None,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__()
        check_choice('classes', classes, CLASS_MODES)
        if not isinstance(gradient_interval, int) or gradient_interval < 0:
            raise ValueError(
                'gradient_interval must be a number of steps >= 0, got '
                f'{gradient_interval!r}'
            )
        self.gradient_interval = gradient_interval
        self.task_weight = build_schedule('task_weight', task_weight)
        self.progress = Progress()
        self.classes, self.class_names = classes, class_names
        self.class_map: ClassMap | None = None
        self.teacher = self.reader = self.bridge = self.seam = None
        self.student = _built(student, data_preprocessor)
        self.teacher = build_teacher(**check_teacher(teacher))
        self.distiller = nn.ModuleList(
            build_loss(loss)
            for loss in ([losses] if isinstance(losses, dict) else losses)
        )
        self.reader = build_reader(matching, self.student)
        self.reader.check(self.student, self.teacher.model)
        self.bridge = PreprocessBridge(
            self.student.data_preprocessor,
            self.teacher.model.data_preprocessor,
        )
        self.seam = FeatureSeam(
            self.student,
            self.teacher.model,
            self._losses_of(FeatureLoss),
            feature_size,
        )
        if class_names is not None:
            self.class_map = self.match_student_classes(class_names)
        elif classes == 'same':
            # The names of the training set are known at the first batch;
            # other numbers of channels are refused now.
            self.match_student_classes(None)
        print_log(self.settings(), logger='current')

    def _losses_of(self, kind: type) -> list:
        return [loss for loss in self.distiller if isinstance(loss, kind)]

    def forward(
        self,
        inputs: Tensor,
        data_samples: list | None = None,
        mode: str = 'tensor',
    ) -> dict | list | tuple | Tensor:
        """The student's forward; in mode 'loss' with distillation.

        Args:
            inputs: (N, 3, H, W), preprocessed for the student.
            data_samples: N samples.
            mode: 'loss', 'predict' or 'tensor'.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self.student(inputs, data_samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Task losses, distillation losses and telemetry of one batch.

        Returns:
            Log key to scalar or list of scalars. Those with 'loss' in the
            key are added up and optimised.

        Raises:
            NotImplementedError: FSDP has split the parameters.
            ValueError: a label is no class of the student's, or a box has
                no area.
        """
        refuse_sharding(self)
        if self.class_map is None:
            self.class_map = self.match_student_classes(training_classes())
        check_samples(data_samples, self.reader.scores(self.student).classes)
        self.progress = training_progress()
        set_progress(self.distiller, self.progress)
        views = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        passes = [self._pass(view, data_samples) for view in views]
        terms = task_terms(
            [each.task_losses for each in passes],
            self.task_weight(self.progress),
        )
        task = dict(terms) if self._logs_gradients() else None
        logit_losses = self._losses_of(LogitLoss)
        for heads in zip(*(each.matches for each in passes), strict=True):
            match = stack_views(heads)
            add_terms(
                terms, logit_terms(logit_losses, match, self.class_map, task)
            )
        features = [each.features for each in passes]
        add_terms(
            terms, feature_terms(self._losses_of(FeatureLoss), features, task)
        )
        return terms

    def _pass(self, inputs: Tensor, data_samples: list) -> Pass:
        """One view through both models, each run once."""
        teacher, seam = self.teacher.model, self.seam
        with (
            self.reader.tap(self.student) as taps,
            seam.tap_student(self.student) as student_taps,
        ):
            task_losses = self.student(inputs, data_samples, mode='loss')
        teacher_inputs = self.teacher_inputs(inputs, data_samples)
        with seam.tap_teacher(teacher) as teacher_taps:
            matches = self.reader.read(
                taps, self.student, teacher, teacher_inputs, data_samples
            )
        features = seam.read(student_taps, teacher_taps, data_samples, inputs)
        return Pass(task_losses, matches, features)

    def teacher_inputs(self, inputs: Tensor, data_samples: list) -> Tensor:
        """What the teacher sees of a batch that the student sees."""
        return self.bridge(inputs, data_samples)

    def _logs_gradients(self) -> bool:
        interval = self.gradient_interval
        return bool(interval) and (self.progress.iteration - 1) % interval == 0

    def match_student_classes(self, names: Sequence[str] | None) -> ClassMap:
        """Which of the teacher's channels belongs to which class name.

        Args:
            names: The student's classes, or None if they are not known.
        """
        scores = self.reader.scores(self.student)
        return match_classes(
            names,
            self.teacher.classes,
            scores.channels,
            self.reader.scores(self.teacher.model).channels,
            background=scores.background,
            mode=self.classes,
            min_shared=fewest_shared(
                self.distiller, scores.background, scores.activation
            ),
        )

    def settings(self) -> str:
        """The effective settings of the distillation, for the log."""
        losses = '\n'.join(repr(loss) for loss in self.distiller)
        lines = [
            f'teacher: {type(self.teacher.model).__name__}, '
            f'{self.teacher.source}',
            f'teacher input: {self.input_settings()}',
            f'classes: {self.classes}, {self.reader.scores(self.student)}',
            f'matched logits: {self.reader}',
            f'task_weight: {self.task_weight}',
            *losses.splitlines(),
        ]
        return 'Distillation settings\n' + '\n'.join(
            f'  {line}' for line in lines
        )

    def input_settings(self) -> str:
        """How the teacher's input is made, for the log."""
        return str(self.bridge)

    def _apply(self, fn: Callable, *args, **kwargs) -> nn.Module:
        self.teacher.apply(fn)
        return super()._apply(fn, *args, **kwargs)


def _built(student: dict | nn.Module, preprocessor: dict | None) -> nn.Module:
    if isinstance(student, nn.Module):
        return student
    student = ConfigDict(copy.deepcopy(student))
    if preprocessor is not None:
        student.setdefault('data_preprocessor', preprocessor)
    return MODELS.build(student)
