"""What :func:`prepare_run` writes into a config before anything is built."""

import itertools
from pathlib import Path

from mmengine.config import Config
from mmengine.device import (
    is_cuda_available,
    is_mlu_available,
    is_musa_available,
    is_npu_available,
)
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.visualization import Visualizer

from mmrkkd.registry import builds, type_name

from .launch import named

# What MMEngine takes where a config says nothing.
CHECKPOINT_HOOK = dict(type='CheckpointHook', interval=1)
ADDED_HOOKS = ('mmrkkd.RunStateHook', 'mmrkkd.NonFiniteHook')
# DOT's wrapper, and the one with a loss scaler.
DOT_WRAPPERS = ('DOTOptimWrapper', 'DOTAmpOptimWrapper')


def use_amp(config: Config) -> None:
    """Turns on mixed precision in a config.

    Args:
        config: Changed in place.

    Raises:
        ValueError: it has no optim_wrapper, one of another kind, or one for
            each part of the model.
    """
    wrapper = config.get('optim_wrapper')
    if not isinstance(wrapper, dict):
        raise ValueError(
            '--amp sets the type of the optim_wrapper of a training, and '
            f'optim_wrapper of the config is {wrapper!r}; give it an '
            'optim_wrapper, or leave --amp out'
        )
    parts = [
        name
        for name, part in wrapper.items()
        if isinstance(part, dict)
        and ('optimizer' in part or type_name(part).endswith('OptimWrapper'))
    ]
    if parts:
        raise ValueError(
            '--amp sets the type of one optim_wrapper, and the config has '
            f"one for each part of the model; set type='AmpOptimWrapper' in "
            f'{" and ".join(f"optim_wrapper.{name}" for name in parts)}'
        )
    kind = 'AmpOptimWrapper'
    if type_name(wrapper) in DOT_WRAPPERS:
        kind = f'mmrkkd.{DOT_WRAPPERS[-1]}'
    elif type_name(wrapper) and not (
        builds(wrapper, OptimWrapper) or builds(wrapper, AmpOptimWrapper)
    ):
        raise ValueError(
            '--amp replaces an optim_wrapper of type OptimWrapper, the '
            f'config has {type_name(wrapper)!r}; choose its precision there'
        )
    wrapper.type = kind
    wrapper.setdefault('loss_scale', 'dynamic')


def refuse_amp_without_gpu(config: Config) -> None:
    """Refuses MMEngine's mixed precision where it does not run.

    Args:
        config: The whole config.

    Raises:
        ValueError: its optim_wrapper has it, and there is no GPU.
    """
    wrapper = config.get('optim_wrapper')
    if not isinstance(wrapper, dict) or not type_name(wrapper):
        return
    devices = (
        is_cuda_available,
        is_npu_available,
        is_mlu_available,
        is_musa_available,
    )
    scaled = builds(wrapper, AmpOptimWrapper) or (
        type_name(wrapper) == DOT_WRAPPERS[-1]
    )
    if scaled and not any(sees() for sees in devices):
        raise ValueError(
            "mixed precision (--amp, optim_wrapper.type='AmpOptimWrapper') is "
            'for a GPU in MMEngine, and torch sees none: leave --amp out, '
            "and set optim_wrapper.type='OptimWrapper', or for bfloat16 "
            "'mmrkkd.AutocastOptimWrapper'"
        )


def use_auto_scale_lr(config: Config) -> None:
    """Scales the learning rate with the batch size.

    Args:
        config: Changed in place.

    Raises:
        ValueError: it does not say which batch size its rate is for.
    """
    if 'base_batch_size' not in (config.get('auto_scale_lr') or {}):
        raise ValueError(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size in the '
            'config: the batch size that its learning rate is for'
        )
    config.auto_scale_lr.enable = True


def use_own_visualizer(config: Config) -> None:
    """Leaves the visualizer of an earlier run in this process to that run.

    MMEngine keeps visualizers by their name, and the usual configs all call
    theirs 'visualizer': a second run would write into the first one's
    folder. It gets a number: the name of its experiment, which MMEngine
    would take, is the same for two runs of one second.

    Args:
        config: Changed in place where the name is taken.
    """
    settings = config.get('visualizer')
    if not isinstance(settings, dict):
        return
    taken = Visualizer.check_instance_created
    name = settings.get('name')
    if taken(name):
        free = (f'{name}_{n}' for n in itertools.count(2))
        settings['name'] = next(each for each in free if not taken(each))


def dump_beside(config: Config, task: str) -> None:
    """Keeps MMEngine's dump of the config from the file that was read.

    The runner writes the config as it is run into the work directory, under
    the name of its file: over itself, where that lies there, and over the
    training's where a test has the same.

    Args:
        config: Renamed in place, as ``run_<name>`` or ``test_<name>``.
        task: 'train' or 'test'.
    """
    if config.filename is None:
        return
    read = Path(config.filename)
    dumped = Path(config.work_dir) / read.name
    if task == 'test' or dumped.resolve() == read.resolve():
        prefix = 'test' if task == 'test' else 'run'
        named(config, read.with_name(f'{prefix}_{read.name}'))


def log_validations_by_step(config: Config) -> None:
    """Has the validations of a training without epochs logged by iteration.

    MMEngine logs all of them at step 0, unless told otherwise.

    Args:
        config: Changed in place where it does not say itself.
    """
    if (config.get('train_cfg') or {}).get('max_epochs') is not None:
        return
    hooks = config.get('default_hooks') or {}
    logger = hooks.get('logger', dict(type='LoggerHook'))
    if isinstance(logger, dict) and builds(logger, LoggerHook):
        hooks['logger'] = dict(dict(log_metric_by_epoch=False), **logger)
        config.default_hooks = hooks


def use_robust_hooks(config: Config) -> None:
    """Makes a run that survives out of any config.

    MMEngine's checkpoint hook is replaced by
    :class:`AtomicCheckpointHook` with the same settings, and
    :class:`RunStateHook` and :class:`NonFiniteHook` are added unless the
    config has them. Another checkpoint hook, and a config with a
    ``runner_type`` of its own, are left as they are.

    Args:
        config: Changed in place.
    """
    if 'runner_type' in config:
        return
    hooks = dict(config.get('default_hooks') or {})
    checkpoint = hooks.get('checkpoint', CHECKPOINT_HOOK)
    # None turns the hook off.
    if builds(checkpoint, CheckpointHook):
        hooks['checkpoint'] = dict(
            checkpoint, type='mmrkkd.AtomicCheckpointHook'
        )
        config.default_hooks = hooks
    custom = list(config.get('custom_hooks') or [])
    present = {type_name(hook) for hook in custom}
    config.custom_hooks = custom + [
        dict(type=name)
        for name in ADDED_HOOKS
        if type_name(dict(type=name)) not in present
    ]
