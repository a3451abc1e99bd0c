"""What the running experiment tells whoever asks: classes, progress."""

import ast
import logging
from collections.abc import Mapping
from functools import lru_cache

from mmengine.logging import MessageHub, print_log

from mmrkkd.losses import Progress

from .class_names import metainfo_classes

# How many iterations of a run by iterations are one pass over the training
# data, as the running experiment's hub has it; None for a run by epochs.
EPOCH_LENGTH = 'mmrkkd_epoch_length'


def training_progress() -> Progress:
    """The epoch and iteration in progress, as RuntimeInfoHook states.

    MMEngine counts a run by iterations as one epoch. There an epoch is a
    pass over the training data: RunStateHook states how long that is, and
    where it does not the epoch is None.
    """
    info = _running_hub().runtime_info
    step, length = info.get('iter', 0), info.get(EPOCH_LENGTH)
    if length is not None:
        epoch = step // length + 1
    elif EPOCH_LENGTH not in info and _counts_iterations(info):
        epoch = None
    else:
        epoch = info.get('epoch', 0) + 1
    return Progress(epoch, step + 1)


def is_logged() -> bool:
    """Whether the running experiment's logger writes after this step.

    It does every ``default_hooks.logger.interval`` steps of an epoch and at
    its end; the first step counts too. True where that is not known, as
    outside of a run.
    """
    info = _running_hub().runtime_info
    interval = _logger_interval(info.get('cfg') or '')
    if interval is None or not info.get('loop_stage'):
        return True
    step = info.get('iter', 0)
    epoch = (info.get('max_iters') or 0) // (info.get('max_epochs') or 1)
    number = step % epoch + 1 if epoch else step + 1
    return step == 0 or number % interval == 0 or number == epoch


@lru_cache(maxsize=2)
def _logger_interval(config: str) -> int | None:
    """``default_hooks.logger.interval`` of a config's text, if it is there.

    The text is not executed: RuntimeInfoHook writes it without ``_base_``.
    """
    logger = _argument(_stated(config, 'default_hooks'), 'logger')
    interval = getattr(_argument(logger, 'interval'), 'value', None)
    return interval if type(interval) is int else None


def _counts_iterations(info: Mapping) -> bool:
    """Whether a hub's facts look like those of a run by iterations."""
    return info.get('max_epochs') == 1 and not _counts_epochs(
        info.get('cfg') or ''
    )


@lru_cache(maxsize=2)
def _counts_epochs(config: str) -> bool:
    """Whether ``train_cfg`` of a config's text says how many epochs."""
    return _argument(_stated(config, 'train_cfg'), 'max_epochs') is not None


def _stated(config: str, name: str) -> ast.expr | None:
    """What a config's text has under a name."""
    try:
        tree = ast.parse(config)
    except SyntaxError:
        return None
    for line in tree.body:
        if isinstance(line, ast.Assign) and (
            getattr(line.targets[0], 'id', None) == name
        ):
            return line.value
    return None


def _argument(called: ast.expr | None, name: str) -> ast.expr | None:
    """The value of a keyword in ``dict(...)``."""
    keywords = getattr(called, 'keywords', ())
    return next((each.value for each in keywords if each.arg == name), None)


def training_metainfo() -> object | None:
    """What the running experiment states of its training set, as it is."""
    return _running_hub().runtime_info.get('dataset_meta')


def training_classes() -> tuple[str, ...] | None:
    """The class names of the training set, from the running experiment.

    MMEngine's RuntimeInfoHook, which every runner has unless a config turns
    it off, states the training set's metainfo in the message hub when
    training begins, and nothing else writes there. The visualizer has a
    ``dataset_meta`` too, but of the data set that came last: the validation
    set's.

    Returns:
        The names, or None where the training set or the loop states none;
        then the log says so.

    Raises:
        ValueError: see :func:`mmrkkd.distillers.class_names.metainfo_classes`.
    """
    classes = metainfo_classes(
        'the class names of the training set (class_names=[...] of the model '
        'takes their place)',
        training_metainfo(),
    )
    if classes is None:
        print_log(
            'The class names of the training set are not known: channels of '
            'teacher and student are matched by position. Give '
            'class_names=[...] to have them compared.',
            logger='current',
            level=logging.WARNING,
        )
    return classes


def _running_hub() -> MessageHub:
    """The message hub of the experiment that is running.

    MMEngine's current one is the latest made: where a second runner was
    made before the first one trains, it knows nothing of the training. The
    running one has a stage.
    """
    current = MessageHub.get_current_instance()
    hubs = reversed(MessageHub._instance_dict.values())
    return next((hub for hub in hubs if hub.get_info('loop_stage')), current)
