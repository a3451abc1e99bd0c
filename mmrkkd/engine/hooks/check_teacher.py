"""A look at the teacher before a training begins."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmrkkd.checkpoint.random_state import random_state_kept
from mmrkkd.distillers import LogitDistiller
from mmrkkd.distillers.class_names import metainfo_classes
from mmrkkd.engine.launch import unwrapped
from mmrkkd.evaluation.teacher_scores import RULE, teacher_scores, useless
from mmrkkd.registry import HOOKS


class UselessTeacherError(RuntimeError):
    """The teacher scores no better than nothing."""


@HOOKS.register_module()
class CheckTeacherHook(Hook):
    """Scores the teacher on some validation images before the first step.

    It sees what it will see in training: the student's images, through the
    bridge, and its classes in the student's order. A run that is resumed
    has done this already. The training that follows is the same, bit for
    bit, as without the hook.

    Args:
        images: How many, evenly spaced over the validation set.
            Defaults to 50.

    Raises:
        ValueError: images is not a number >= 1.
    """

    # After the runner has told the class names of the training set.
    priority = 'LOW'

    def __init__(self, images: int = 50) -> None:
        if not isinstance(images, int) or images < 1:
            raise ValueError(f'images must be a number >= 1, got {images!r}')
        self.images = images

    def before_train(self, runner: Runner) -> None:
        """Scores the teacher.

        Args:
            runner: The runner.

        Raises:
            TypeError: its model has no teacher.
            UselessTeacherError: the teacher is useless, by ``RULE``.
            ValueError: the images have no object, which tells nothing.
        """
        if runner.iter:
            return
        model = unwrapped(runner.model)
        if not isinstance(model, LogitDistiller):
            raise TypeError(
                'CheckTeacherHook needs a KDDetector or a KDClassifier, got '
                f'{type(model).__name__}'
            )
        names = model.class_names or metainfo_classes(
            'the class names of the training set',
            getattr(runner.train_dataloader.dataset, 'metainfo', None),
        )
        class_map = model.match_student_classes(names)
        with random_state_kept():
            metrics, images, _, found = teacher_scores(
                model, runner.cfg, self.images, class_map, progress=False
            )
        scores = ', '.join(f'{k} {v:.4g}' for k, v in metrics.items())
        print_log(
            f'The teacher on {images} validation images: {scores}',
            logger='current',
        )
        classes = model.reader.scores(model.student).classes
        reason = useless(metrics, images, classes, found)
        if reason is not None:
            raise UselessTeacherError(
                f'the teacher {model.teacher.source} is useless: {reason} '
                f"({RULE}). 'mmrkkd check-teacher' tells more; to train all "
                'the same remove CheckTeacherHook from custom_hooks'
            )
