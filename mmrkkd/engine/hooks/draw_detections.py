"""The same images after each validation, with teacher and student."""

import copy
import io
from collections.abc import Sequence

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from PIL import Image

from mmrkkd.checkpoint.random_state import random_state_kept
from mmrkkd.distillers import LogitDistiller
from mmrkkd.engine.launch import unwrapped
from mmrkkd.evaluation.image_scores import ImageScores, ScoredImages
from mmrkkd.registry import HOOKS

NAME = 'teacher_and_student'


@HOOKS.register_module()
class DrawDetectionsHook(Hook):
    """Draws validation images with the boxes of teacher and student.

    One picture goes to every backend of the runner's visualizer (a folder,
    TensorBoard, Weights & Biases, MLflow): the images as rows, the ground
    truth, the teacher and the student as columns. The training that follows
    is the same, bit for bit, as without the hook.

    Args:
        images: How many, evenly spaced over the validation set.
            Defaults to 4.
        interval: Draw after every so many validations. Defaults to 1.
        threshold: Lower scores are not drawn. Defaults to 0.3.

    Raises:
        ValueError: images or interval is not a number >= 1, or threshold
            is not in [0, 1].
    """

    # Before an EMAHook takes the averaged weights away again.
    priority = 'ABOVE_NORMAL'

    def __init__(
        self, images: int = 4, interval: int = 1, threshold: float = 0.3
    ) -> None:
        for name, value in (('images', images), ('interval', interval)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f'{name} must be a number >= 1, got {value!r}'
                )
        if not 0 <= threshold <= 1:
            raise ValueError(f'threshold must be in [0, 1], got {threshold!r}')
        self.images, self.interval = images, interval
        self.threshold = threshold
        self.scored: ScoredImages | None = None

    @master_only
    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Draws.

        Args:
            runner: The runner.
            metrics: Unused.

        Raises:
            TypeError: its model has no teacher, or finds no boxes.
        """
        loop = runner._train_loop
        # By itself a validation is always drawn. Counted by how far the run
        # is: a resumed one goes on.
        if isinstance(loop, BaseLoop):
            done = (runner.epoch or runner.iter) // loop.val_interval
            if done % self.interval:
                return
        with random_state_kept():
            picture = self._picture(runner)
        runner.visualizer.add_image(NAME, picture, step=runner.iter)

    def _picture(self, runner: Runner) -> np.ndarray:
        """(H, W, 3), uint8, RGB."""
        # Who has classifiers alone can do without MMDetection.
        from mmrkkd.report.detections import draw_detections

        if self.scored is None:
            self.scored = _fixed_images(runner)
        found = list(self.scored.score(self.scored.evenly(self.images)))
        if not found[0].found:
            raise TypeError(
                'DrawDetectionsHook draws boxes, and '
                f'{type(unwrapped(runner.model).student).__name__} finds '
                'none; remove it from custom_hooks'
            )
        file = io.BytesIO()
        draw_detections(
            file,
            [self.scored.pictures[each.path] for each in found],
            _truths(found, self.scored.data_names),
            {
                side.capitalize(): _detections(found, side)
                for side in ('teacher', 'student')
            },
            self.scored.data_names,
            self.threshold,
        )
        with Image.open(file) as image:
            return np.asarray(image.convert('RGB'))


def _fixed_images(runner: Runner) -> ScoredImages:
    model = unwrapped(runner.model)
    if not isinstance(model, LogitDistiller):
        raise TypeError(
            'DrawDetectionsHook needs a KDDetector, got '
            f'{type(model).__name__}'
        )
    config = copy.deepcopy(runner.cfg)
    config.test_dataloader = config.val_dataloader
    return ScoredImages(model, config, {})


def _truths(found: Sequence[ImageScores], names: Sequence[str]) -> list:
    from mmrkkd.report.verdicts import Detections

    return [
        Detections(
            each.boxes, np.array([names.index(n) for n in each.labels], int)
        )
        for each in found
    ]


def _detections(found: Sequence[ImageScores], side: str) -> list:
    from mmrkkd.report.verdicts import Detections

    return [Detections(*each.found[side]) for each in found]
