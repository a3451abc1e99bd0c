"""A student beside its teacher, with all that joins the two."""

from collections.abc import Callable, Sequence

from mmengine.logging import print_log
from torch import Tensor, nn

from mmrkkd.losses import LogitLoss, Progress, build_loss, build_schedule
from mmrkkd.losses.feature import FeatureLoss
from mmrkkd.ops.checks import check_choice
from mmrkkd.registry import MODELS

from .acts_as_student import ActsAsStudent
from .bridge import PreprocessBridge
from .class_map import (
    CLASS_MODES,
    RANKING,
    ClassMap,
    fewest_shared,
    match_classes,
)
from .feature_seam import FeatureSeam
from .graft import as_merged
from .log_keys import refuse_repeated_keys
from .model_config import with_preprocessor
from .readers import Reader, build_reader
from .teacher import build_teacher, check_teacher
from .views import CheckedPreprocessor, refuse_mixing


class StudentWithTeacher(ActsAsStudent):
    """What :class:`LogitDistiller` takes its steps with.

    The constructor is the distillers'; the arguments are told there.
    """

    # What a batch goes through first.
    _preprocessor = CheckedPreprocessor

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
        self._register_state_dict_hook(as_merged)
        check_choice('classes', classes, CLASS_MODES)
        if type(gradient_interval) is not int or gradient_interval < 0:
            raise ValueError(
                'gradient_interval must be a number of steps >= 0, got '
                f'{gradient_interval!r}'
            )
        self.gradient_interval = gradient_interval
        self.task_weight = build_schedule('task_weight', task_weight)
        self.progress = Progress()
        self.classes, self.class_names = classes, class_names
        self.class_map: ClassMap | None = None
        # What the class map was made from, where a run stated it.
        self.metainfo: object | None = None
        self.teacher = self.reader = self.bridge = self.seam = None
        self.student = _built(student, data_preprocessor)
        self.teacher = build_teacher(**check_teacher(teacher))
        self.distiller = nn.ModuleList(map(build_loss, _listed(losses)))
        self.reader = build_reader(matching, self.student)
        self.reader.prompts = self.teacher.classes
        self.reader.check(self.student, self.teacher.model)
        self._suit_losses()
        # The default KD loss of a ranking is the one that suits the head.
        refuse_repeated_keys(self.distiller)
        refuse_mixing(self.student.data_preprocessor, self.distiller)
        for loss in self._losses_of(FeatureLoss):
            if loss.needs_stages:
                self.teacher.engine.stay_exact(type(loss).__name__)
        self.bridge = PreprocessBridge(
            self.student.data_preprocessor,
            self.teacher.model.data_preprocessor,
            self.reader.keeps_size,
        )
        self.seam = FeatureSeam(
            self.student,
            self.teacher.model,
            self._losses_of(FeatureLoss),
            feature_size,
            getattr(self, 'teacher_size', None),
        )
        if class_names is not None:
            self.class_map = self.match_student_classes(class_names)
        elif classes == 'same':
            # The names of the training set are known at the first batch;
            # other numbers of channels are refused now.
            self.match_student_classes(None)
        print_log(self.settings(), logger='current')

    @property
    def data_preprocessor(self) -> CheckedPreprocessor:
        """The student's, behind a look at the annotations."""
        single = self.student.data_preprocessor
        if self.reader is None:
            return self._preprocessor(single)
        return self._preprocessor(
            single,
            self.reader.scores(self.student).classes,
            self.reader.learns_boxes(self.student),
        )

    @data_preprocessor.setter
    def data_preprocessor(self, value: nn.Module) -> None:
        if isinstance(value, CheckedPreprocessor):
            value = value.single
        self.student.data_preprocessor = value

    def __setattr__(self, name: str, value: object) -> None:
        if name == 'student' and self.__dict__.get('seam') is not None:
            self._check_other_student(value)
            for graft in self.seam.grafts:
                graft.attach(value)
        super().__setattr__(name, value)

    def _check_other_student(self, student: nn.Module) -> None:
        """Refuses a student that the rest was not made for."""
        self.reader.check(student, self.teacher.model)
        scores = self.reader.scores(student), self.reader.scores(self.student)
        if scores[0] != scores[1]:
            raise ValueError(
                'a student may be replaced by one with the same scores, '
                f'which are {scores[1]}; got one with {scores[0]}. Build a '
                'distiller of it instead'
            )

    @property
    def grows_student(self) -> bool:
        """Whether the student trains with more than it has in the end."""
        return self.seam is not None and bool(self.seam.grafts)

    def learned_state(self) -> dict[str, Tensor]:
        """See :meth:`ActsAsStudent.learned_state`; with what was merged."""
        state = super().learned_state()
        for graft in self.seam.grafts:
            state.update(graft.unmerged(self.student))
        return state

    def load_learned_state(self, state: dict[str, Tensor]) -> None:
        """See :meth:`ActsAsStudent.load_learned_state`."""
        state, parts = dict(state), []
        for graft in self.seam.grafts:
            parts.append(graft.split_off(state))
        super().load_learned_state(state)
        for part in parts:
            # In place: the optimizer has these tensors.
            self.student.load_state_dict(part, strict=False)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: object, **options: object
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **options)
        for graft in self.seam.grafts if self.seam else ():
            graft.loaded(state_dict, prefix)

    def _losses_of(self, kind: type) -> list:
        return [loss for loss in self.distiller if isinstance(loss, kind)]

    def _suit_losses(self) -> None:
        """Refuses losses that the head's scores are not for."""
        scores = self.reader.scores(self.student)
        for loss in self._losses_of(LogitLoss):
            if loss.views > 1 and not self._preprocessor.many_views:
                raise TypeError(
                    f'{type(loss).__name__} compares {loss.views} views of '
                    f'each image, and a {type(self).__name__} sees one: take '
                    'another loss'
                )
            loss.suit(scores.activation)
            for what in loss.asks_for:
                self.reader.want(
                    what, type(loss).__name__, self.student, self.teacher.model
                )
            if scores.channels < loss.min_classes:
                raise ValueError(
                    f'{type(loss).__name__} compares classes, and the '
                    f'student has {scores.channels}; use BinaryKDLoss'
                )
            for part in loss.modules():
                if (
                    isinstance(part, RANKING)
                    and part.placement.locations is None
                    and self.reader.ranked_at is not None
                ):
                    part.place(locations=self.reader.ranked_at)

    def match_student_classes(self, names: Sequence[str] | None) -> ClassMap:
        """Which of the teacher's channels belongs to which class name.

        Args:
            names: The student's classes, or None if they are not known.
        """
        scores = self.reader.scores(self.student)
        fewest, needed_by = fewest_shared(
            self.distiller, scores.background, scores.activation
        )
        return match_classes(
            names,
            self.teacher.classes,
            scores.channels,
            self.reader.scores(self.teacher.model).channels,
            background=scores.background,
            mode=self.classes,
            min_shared=fewest,
            needed_by=needed_by,
        )

    def settings(self) -> str:
        """The effective settings of the distillation, for the log."""
        losses = '\n'.join(repr(loss) for loss in self.distiller)
        lines = [
            f'teacher: {type(self.teacher.model).__name__}, '
            f'{self.teacher.source}',
            f'teacher precision: {self.teacher.engine}',
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


def _listed(losses: object) -> list:
    if isinstance(losses, (dict, nn.Module)):
        return [losses]
    if not isinstance(losses, (list, tuple)) or not losses:
        raise TypeError(
            'losses must be the config of a distillation loss or a list of '
            f"them, such as dict(type='mmrkkd.RankKDLoss'), got {losses!r}"
        )
    return list(losses)


def _built(student: dict | nn.Module, preprocessor: dict | None) -> nn.Module:
    if isinstance(student, nn.Module):
        return student
    return MODELS.build(with_preprocessor(student, preprocessor))
