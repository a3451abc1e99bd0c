"""The whole path of one training step of distillation."""

import copy
from collections.abc import Callable, Sequence

from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmrkkd.losses import build_loss, build_schedule, set_progress
from mmrkkd.ops.checks import check_choice
from mmrkkd.registry import MODELS

from .annotations import check_samples
from .bridge import PreprocessBridge
from .class_map import CLASS_MODES, ClassMap, match_classes
from .gradient_share import gradient_telemetry
from .readers.base import LogitPair, stack_views
from .running import training_classes, training_progress
from .sharding import refuse_sharding
from .student_state import as_distiller, as_plain_student
from .task_losses import total_loss, weighted_sum
from .teacher import build_teacher, check_teacher
from .telemetry import agreement


class LogitDistiller(BaseModel):
    """A student that learns from data and from a frozen teacher's logits.

    ::

        loss = beta * (task losses) + (distillation losses)

    To a runner it is the student: ``state_dict()`` has the plain student's
    keys (what a loss learns itself travels in its metadata), and ``predict``
    and ``tensor`` are the student's. The teacher is in no state dict,
    optimizer, EMA copy or parameter count.

    Args:
        student: Config of the student, or the model.
        teacher: Arguments of :func:`mmrkkd.distillers.teacher.build_teacher`:
            config, checkpoint, sha256, classes, allow_random_weights,
            trust_checkpoint.
        losses: Config of a logit loss, or a list of them.
        reader: Reads matched logits out of both models.
        task_weight: beta >= 0, or a schedule
            (:func:`mmrkkd.losses.build_schedule`). Defaults to 1.0.
        classes: 'same' wants teacher and student to know the same class
            names, in any order; 'shared' distils on those that both know.
            Defaults to 'same'.
        class_names: The student's classes; by default those of the training
            set, which the runner makes known.
        gradient_interval: Every how many steps to log how hard each term
            pulls at the student's logits (``kd/grad_norm_<term>``,
            ``kd/grad_share_<term>``); the task's terms count as one.
            Defaults to 0, never.
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
        reader: object,
        task_weight: float | dict = 1.0,
        classes: str = 'same',
        class_names: Sequence[str] | None = None,
        gradient_interval: int = 0,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__()
        # BaseModel registers a preprocessor; ours is the student's.
        del self.data_preprocessor
        check_choice('classes', classes, CLASS_MODES)
        if not isinstance(gradient_interval, int) or gradient_interval < 0:
            raise ValueError(
                'gradient_interval must be a number of steps >= 0, got '
                f'{gradient_interval!r}'
            )
        self.gradient_interval = gradient_interval
        self.task_weight = build_schedule('task_weight', task_weight)
        if not isinstance(student, nn.Module):
            student = ConfigDict(copy.deepcopy(student))
            if data_preprocessor is not None:
                student.setdefault('data_preprocessor', data_preprocessor)
            student = MODELS.build(student)
        self.student = student
        self.teacher = build_teacher(**check_teacher(teacher))
        if isinstance(losses, dict):
            losses = [losses]
        self.distiller = nn.ModuleList(build_loss(loss) for loss in losses)
        self.reader = reader
        reader.check(self.student, self.teacher.model)
        self.bridge = PreprocessBridge(
            self.student.data_preprocessor,
            self.teacher.model.data_preprocessor,
        )
        self.classes, self.class_names = classes, class_names
        self.class_map: ClassMap | None = None
        if class_names is not None:
            self.class_map = self.match_student_classes(class_names)
        elif classes == 'same':
            # The names of the training set are known at the first batch;
            # other numbers of channels are refused now.
            self.match_student_classes(None)
        self._register_state_dict_hook(as_plain_student)
        print_log(self.settings(), logger='current')

    @property
    def data_preprocessor(self) -> nn.Module:
        """The student's."""
        return self.student.data_preprocessor

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
        classes = self.reader.channels(self.student) - self.reader.background
        check_samples(data_samples, classes)
        self.progress = training_progress()
        set_progress(self.distiller, self.progress)
        views = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        passes = [self._pass(view, data_samples) for view in views]
        terms = self._task_terms([losses for losses, _ in passes])
        task_terms = dict(terms)
        for heads in zip(*(pairs for _, pairs in passes), strict=True):
            self._add_new(
                terms,
                self._distillation_terms(stack_views(heads), task_terms),
            )
        return terms

    def _pass(
        self, inputs: Tensor, data_samples: list
    ) -> tuple[dict, list[LogitPair]]:
        """One view through both models: task losses, matched logits."""
        with self.reader.tap(self.student) as taps:
            task_losses = self.student(inputs, data_samples, mode='loss')
        pairs = self.reader.read(
            taps,
            self.student,
            self.teacher.model,
            self.teacher_inputs(inputs, data_samples),
        )
        return task_losses, pairs

    def teacher_inputs(self, inputs: Tensor, data_samples: list) -> Tensor:
        """What the teacher sees of a batch that the student sees."""
        return self.bridge(inputs, data_samples)

    def _task_terms(self, views: Sequence[dict]) -> dict:
        """The student's own losses times beta, added up over the views.

        MMPretrain's heads call theirs 'loss', the key under which MMEngine
        keeps the total.
        """
        weight = self.task_weight(self.progress)
        terms = {}
        for name, value in views[0].items():
            if 'loss' in name:
                values = [losses[name] for losses in views]
                value = weighted_sum(values, weight)
            terms['loss_task' if name == 'loss' else name] = value
        return terms

    def _distillation_terms(
        self, pair: LogitPair, task_terms: dict
    ) -> dict[str, Tensor]:
        """The losses and telemetry of one head's matched logits."""
        student = self.class_map.select_student(pair.student_logits)
        teacher = self.class_map.select_teacher(pair.teacher_logits)
        labels, weight = self._compared(pair)
        terms = {}
        for loss in self.distiller:
            values = loss(student, teacher, labels, weight)
            self._add_new(
                terms,
                {
                    pair.prefix + name: pair.scale * value
                    if 'loss' in name
                    else value
                    for name, value in values.items()
                },
            )
        self._add_new(terms, self._gradients(pair, task_terms, terms))
        if weight is not None:
            student, teacher = student[weight > 0], teacher[weight > 0]
        for name, value in agreement(student, teacher).items():
            terms[pair.prefix + name] = value
        return terms

    def _compared(self, pair: LogitPair) -> tuple[Tensor | None, ...]:
        """Labels and weights of a pair in the compared channels."""
        labels, weight = pair.labels, pair.weight
        if labels is None or self.class_map.student is None:
            return labels, weight
        channels = pair.student_logits.shape[-1]
        labels, known = self.class_map.select_labels(labels, channels)
        # A sample of a class that the teacher never saw is left out.
        return labels, known.float() if weight is None else weight * known

    def _gradients(
        self, pair: LogitPair, task_terms: dict, terms: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """How hard the terms pull, on the steps that log it."""
        interval = self.gradient_interval
        if not interval or (self.progress.iteration - 1) % interval:
            return {}
        pulling = {
            name.removeprefix(pair.prefix): value
            for name, value in terms.items()
            if 'loss' in name
        }
        pulling['task'] = total_loss(task_terms)
        shares = gradient_telemetry(pulling, pair.sources)
        return {pair.prefix + name: value for name, value in shares.items()}

    @staticmethod
    def _add_new(terms: dict, new: dict) -> None:
        taken = sorted(set(terms) & set(new))
        if taken:
            raise ValueError(
                f'two losses are logged under the same key {taken[0]!r}; '
                'use each type of loss once'
            )
        terms.update(new)

    def match_student_classes(self, names: Sequence[str] | None) -> ClassMap:
        """Which of the teacher's channels belongs to which class name.

        Args:
            names: The student's classes, or None if they are not known.
        """
        return match_classes(
            names,
            self.teacher.classes,
            self.reader.channels(self.student),
            self.reader.channels(self.teacher.model),
            background=self.reader.background,
            mode=self.classes,
        )

    def init_weights(self) -> None:
        """Initialises the student; the teacher has its weights."""
        self.student.init_weights()

    def settings(self) -> str:
        """The effective settings of the distillation, for the log."""
        losses = '\n'.join(repr(loss) for loss in self.distiller)
        lines = [
            f'teacher: {type(self.teacher.model).__name__}, '
            f'{self.teacher.source}',
            f'teacher input: {self.input_settings()}',
            f'classes: {self.classes}, '
            f'{self.reader.channels(self.student)} channels'
            f'{" with background" if self.reader.background else ""}',
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

    def _load_from_state_dict(
        self,
        state_dict: dict,
        prefix: str,
        local_metadata: dict,
        *args,
        **kwargs,
    ) -> None:
        as_distiller(state_dict, prefix, local_metadata)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, *args, **kwargs
        )
