"""The whole path of one training step of distillation."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from mmrkkd.losses import LogitLoss, set_progress
from mmrkkd.losses.feature import FeatureLoss, FeaturePair

from .annotations import check_samples
from .inference.ahead import Ahead
from .readers import Match, stack_views
from .running import (
    is_logged,
    training_classes,
    training_metainfo,
    training_progress,
)
from .sharding import refuse_sharding
from .student_with_teacher import StudentWithTeacher
from .terms import (
    LossParts,
    add_terms,
    feature_terms,
    logit_terms,
    loss_parts,
    task_terms,
)


class Pass(NamedTuple):
    """What one view of a batch gave."""

    task_losses: dict
    matches: list[Match]
    features: list[FeaturePair]


class LogitDistiller(StudentWithTeacher):
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
            trust_checkpoint, precision, compile, stream.
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
            logits, losses of features or boxes at what they compare, where
            the task's norm is ``kd/grad_norm_task_at_<loss>``. Defaults to
            0, never.
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

    # Whether the next parse_losses gives the two sums apart: DOT's wrapper
    # asks for it before each step.
    splits_losses = False
    # The keys of the task's terms, as the last step had them.
    task_names: tuple[str, ...] = ()

    def parse_losses(
        self, losses: dict[str, Tensor]
    ) -> tuple[Tensor | LossParts, dict[str, Tensor]]:
        """The loss to optimise, and what is logged.

        Args:
            losses: What :meth:`loss` gave.

        Returns:
            The sum of the terms with 'loss' in their key, or, if
            ``splits_losses`` was set, the sums of the task's and of
            distillation's; and the log, the same for both.
        """
        total, log = super().parse_losses(losses)
        if self.splits_losses:
            self.splits_losses = False
            return loss_parts(losses, self.task_names), log
        return total, log

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
            ValueError: a label is no class of the student's, or a box that
                it learns has no area.
        """
        refuse_sharding(self)
        self._know_classes()
        scores = self.reader.scores(self.student)
        check_samples(
            data_samples,
            scores.classes,
            self.reader.learns_boxes(self.student),
        )
        self.progress = training_progress()
        set_progress(self.distiller, self.progress)
        views = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        seen = [self.teacher_inputs(view, data_samples) for view in views]
        ahead = self._together(seen)
        logit_losses, logged = self._losses_of(LogitLoss), is_logged()
        scored = logged or bool(logit_losses) or self._logs_gradients()
        passes = [
            self._pass(view, data_samples, other, ahead, scored)
            for view, other in zip(views, seen, strict=True)
        ]
        terms = task_terms(
            [each.task_losses for each in passes],
            self.task_weight(self.progress),
        )
        self.task_names = tuple(terms)
        task = dict(terms) if self._logs_gradients() else None
        for heads in zip(*(each.matches for each in passes), strict=True):
            match = stack_views(heads)
            add_terms(
                terms,
                logit_terms(
                    logit_losses, match, self.class_map, scores, task, logged
                ),
            )
        features = [each.features for each in passes]
        add_terms(
            terms, feature_terms(self._losses_of(FeatureLoss), features, task)
        )
        return terms

    def _know_classes(self) -> None:
        """Matches the classes, again where a run states other names.

        A step taken before a run has begun knows none.
        """
        metainfo = training_metainfo()
        if self.class_map is None or (
            self.class_names is None and metainfo is not self.metainfo
        ):
            self.metainfo = metainfo
            self.class_map = self.match_student_classes(training_classes())
        self.reader.class_map = self.class_map

    def _together(self, views: Sequence[Tensor]) -> Ahead | None:
        """The teacher's features of several views, in one pass.

        Not in float32, whose numbers a larger batch would change in their
        last digits, nor where hooks note the features of each view.
        """
        alone = len(views) == 1 or len({view.shape for view in views}) > 1
        exact = self.teacher.engine.running == 'float32'
        if alone or exact or self.seam.teacher.layers:
            return None
        return self.teacher.begin(views)

    def _pass(
        self,
        inputs: Tensor,
        data_samples: list,
        teacher_inputs: Tensor,
        ahead: Ahead | None,
        scored: bool,
    ) -> Pass:
        """One view through both models, each run once.

        But for the first batch, on which the teacher's precision is
        settled. Where nobody asks for scores the teacher stops at its
        features.
        """
        teacher, seam = self.teacher.model, self.seam
        with (
            seam.tap_teacher(teacher) as teacher_taps,
            self.teacher.given(teacher_inputs, ahead, teacher_taps.tensors),
        ):
            with (
                self.reader.tap(self.student) as taps,
                seam.tap_student(self.student) as student_taps,
            ):
                task_losses = self.student(inputs, data_samples, mode='loss')
            read = partial(
                self.reader.read,
                taps,
                self.student,
                teacher,
                teacher_inputs,
                data_samples,
            )
            if not self.teacher.engine.settled:
                self._settle(read)
                teacher_taps.outputs.clear()
            if scored or seam.teacher.needs_head:
                matches = read()
            else:
                matches = []
                with torch.no_grad():
                    teacher.extract_feat(teacher_inputs)
        features = seam.read(
            student_taps, teacher_taps, data_samples, inputs, self.class_map
        )
        return Pass(task_losses, matches, features)

    def _settle(self, read: Callable[[], list[Match]]) -> None:
        # Replaces weights and looks at layers: nothing for Dynamo to trace.
        # Disabled here, as its import takes a second.
        settle = torch.compiler.disable(self.teacher.engine.settle)
        settle(
            self.teacher.model,
            read,
            self.reader.scores(self.teacher.model).activation,
            kept=self.seam.teacher.paths,
            exact_heads=self.reader.needs_exact_heads,
            whole_heads=self.reader.needs_whole_heads,
            passed=partial(self.reader.passed_layers, self.teacher.model),
        )

    def teacher_inputs(self, inputs: Tensor, data_samples: list) -> Tensor:
        """What the teacher sees of a batch that the student sees."""
        return self.bridge(inputs, data_samples)

    def _logs_gradients(self) -> bool:
        interval = self.gradient_interval
        return bool(interval) and (self.progress.iteration - 1) % interval == 0
