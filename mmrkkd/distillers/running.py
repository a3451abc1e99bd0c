"""What the running experiment tells whoever asks: classes, progress."""

import logging
from collections.abc import Sequence

from mmengine.logging import MessageHub, print_log
from mmengine.visualization import Visualizer

from mmrkkd.losses import Progress


def training_progress() -> Progress:
    """The epoch and iteration in progress, as the running loop states."""
    info = MessageHub.get_current_instance().runtime_info
    return Progress(info.get('epoch', 0) + 1, info.get('iter', 0) + 1)


def training_classes() -> Sequence[str] | None:
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
