"""The whole path of one training step of distillation."""

import copy
import logging
from collections.abc import Callable, Sequence

from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.visualization import Visualizer
from torch import Tensor, nn

from mmrkkd.losses import build_loss
from mmrkkd.ops.checks import check_choice, check_non_negative
from mmrkkd.registry import MODELS

from .bridge import PreprocessBridge
from .class_map import CLASS_MODES, ClassMap, match_classes
from .logits.base import LogitPair
from .teacher import build_teacher
from .telemetry import agreement

STUDENT = 'student.'
DISTILLER = 'distiller.'


class LogitDistiller(BaseModel):
    """A student that learns from data and from a frozen teacher's logits.

    ::

        loss = beta * (task losses) + (distillation losses)

    To a runner it is the student: ``state_dict()`` has the plain student's
    keys (what a loss learns itself stands under ``distiller.``), and
    ``predict`` and ``tensor`` are the student's. The teacher is in no state
    dict, optimizer, EMA copy or parameter count.

    Args:
        student: Config of the student, or the model.
        teacher: Arguments of :func:`mmrkkd.models.teacher.build_teacher`:
            config, checkpoint, sha256, classes, allow_random_weights,
            trust_checkpoint.
        losses: Config of a logit loss, or a list of them.
        reader: Reads matched logits out of both models.
        task_weight: beta >= 0. Defaults to 1.0.
        classes: 'same' wants teacher and student to know the same class
            names, in any order; 'shared' distils on those that both know.
            Defaults to 'same'.
        class_names: The student's classes; by default those of the training
            set, which the runner makes known.

    Raises:
        ValueError: the models do not fit, see :func:`match_classes`.
    """

    def __init__(
        self,
        student: dict | nn.Module,
        teacher: dict,
        losses: dict | Sequence[dict],
        reader: object,
        task_weight: float = 1.0,
        classes: str = 'same',
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        # BaseModel registers a preprocessor; ours is the student's.
        del self.data_preprocessor
        check_choice('classes', classes, CLASS_MODES)
        self.task_weight = check_non_negative('task_weight', task_weight)
        if not isinstance(student, nn.Module):
            student = MODELS.build(ConfigDict(copy.deepcopy(student)))
        self.student = student
        self.teacher = build_teacher(**teacher)
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
            self.class_map = self._match_classes(class_names)
        elif classes == 'same':
            # The names of the training set are known at the first batch;
            # other numbers of channels are refused now.
            self._match_classes(None)
        self._register_state_dict_hook(_as_plain_student)
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
        """
        if self.class_map is None:
            self.class_map = self._match_classes(_training_classes())
        with self.reader.tap(self.student) as taps:
            task_losses = self.student(inputs, data_samples, mode='loss')
        pairs = self.reader.read(
            taps,
            self.student,
            self.teacher.model,
            self.bridge(inputs, data_samples),
        )
        terms = self._task_terms(task_losses)
        for pair in pairs:
            self._add_new(terms, self._distillation_terms(pair))
        return terms

    def _task_terms(self, losses: dict) -> dict:
        """The student's own losses times beta.

        MMPretrain's heads call theirs 'loss', the key under which MMEngine
        keeps the total.
        """
        terms = {}
        for name, value in losses.items():
            if 'loss' in name and self.task_weight != 1:
                value = (
                    [self.task_weight * item for item in value]
                    if isinstance(value, (list, tuple))
                    else self.task_weight * value
                )
            terms['loss_task' if name == 'loss' else name] = value
        return terms

    def _distillation_terms(self, pair: LogitPair) -> dict[str, Tensor]:
        """The losses and telemetry of one head's matched logits."""
        channels = pair.student_logits.shape[-1]
        student = self.class_map.select_student(pair.student_logits)
        teacher = self.class_map.select_teacher(pair.teacher_logits)
        labels, known = self.class_map.select_labels(pair.labels, channels)
        weight = pair.weight
        if self.class_map.student is not None:
            # A sample of a class that the teacher never saw is left out.
            weight = known.float() if weight is None else weight * known
        terms = {}
        for loss in self.distiller:
            values = loss(student, teacher, labels, weight)
            self._add_new(
                terms,
                {
                    pair.prefix + name: pair.scale * value
                    for name, value in values.items()
                },
            )
        if weight is not None:
            student, teacher = student[weight > 0], teacher[weight > 0]
        for name, value in agreement(student, teacher).items():
            terms[pair.prefix + name] = value
        return terms

    @staticmethod
    def _add_new(terms: dict, new: dict) -> None:
        taken = sorted(set(terms) & set(new))
        if taken:
            raise ValueError(
                f'two losses are logged under the same key {taken[0]!r}; '
                'use each type of loss once'
            )
        terms.update(new)

    def _match_classes(self, names: Sequence[str] | None) -> ClassMap:
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
            f'teacher input: {self.bridge}',
            f'classes: {self.classes}, '
            f'{self.reader.channels(self.student)} channels'
            f'{" with background" if self.reader.background else ""}',
            f'matched logits: {self.reader}',
            f'task_weight: {self.task_weight:g}',
            *losses.splitlines(),
        ]
        return 'Distillation settings\n' + '\n'.join(
            f'  {line}' for line in lines
        )

    def _apply(self, fn: Callable, *args, **kwargs) -> nn.Module:
        self.teacher.apply(fn)
        return super()._apply(fn, *args, **kwargs)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args, **kwargs
    ) -> None:
        # The plain student's keys, brought to where its modules stand.
        for key in list(state_dict):
            name = key[len(prefix) :]
            if key.startswith(prefix) and not name.startswith(
                (DISTILLER, STUDENT)
            ):
                state_dict[prefix + STUDENT + name] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _as_plain_student(
    module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict
) -> None:
    """State dict hook: the student's keys without their prefix."""
    inner = prefix + STUDENT
    for key in list(state_dict):
        if key.startswith(inner):
            state_dict[prefix + key[len(inner) :]] = state_dict.pop(key)
    # The versions of the modules travel beside the keys, dots left off.
    metadata = getattr(state_dict, '_metadata', {})
    for key in list(metadata):
        if (key + '.').startswith(inner):
            name = (prefix + (key + '.')[len(inner) :])[:-1]
            metadata[name] = metadata.pop(key)


def _training_classes() -> Sequence[str] | None:
    """The class names of the training set, from the running experiment.

    A training loop hands its data set's metainfo to the visualizer; it is
    the one place where a model can see it.
    """
    try:
        meta = Visualizer.get_current_instance().dataset_meta
    except RuntimeError:
        meta = None
    classes = (meta or {}).get('classes')
    if classes is None:
        print_log(
            'The class names of the training set are not known: channels of '
            'teacher and student are matched by position. Give '
            'class_names=[...] to have them compared.',
            logger='current',
            level=logging.WARNING,
        )
    return classes
