"""From a config to something that runs: the one call that tools make."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from mmengine.config import Config
from mmengine.registry import RUNNERS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from mmrkkd.checkpoint import prepare_resume, safe_reader
from mmrkkd.datasets import check_data, name_broken_images
from mmrkkd.distillers.model_config import refuse_misplaced, whole_model
from mmrkkd.distillers.sharding import refuse_strategies
from mmrkkd.registry import MODELS

from .launch import join_processes, refuse_unjoined, training_in
from .run_settings import (
    dump_beside,
    log_validations_by_step,
    refuse_amp_without_gpu,
    use_amp,
    use_auto_scale_lr,
    use_own_visualizer,
    use_robust_hooks,
)

TASKS = dict(
    train=('train_dataloader', 'val_dataloader'), test=('test_dataloader',)
)


@contextmanager
def prepare_run(
    config: Config,
    task: str = 'train',
    *,
    amp: bool = False,
    auto_scale_lr: bool = False,
    resume: str | None = None,
    checkpoint: str | None = None,
    trust: bool = False,
) -> Iterator[Runner]:
    """Makes a runner that survives out of any config.

    ::

        with prepare_run(config, resume='auto') as runner:
            runner.train()

    Missing data and strategies that split a distiller are refused before
    anything is built, images that cannot be read are named, and a training
    gets the hooks of :func:`use_robust_hooks`. While the context lasts,
    MMEngine reads checkpoints by :func:`safe_reader`. The process group of
    :func:`join_processes` lasts as long as the process, as MMEngine's own.

    Args:
        config: The whole config, with ``work_dir`` and ``launcher``; changed
            in place.
        task: 'train' or 'test': which data are looked for, and what is
            added. Defaults to 'train'.
        amp: See :func:`use_amp`. Defaults to False.
        auto_scale_lr: See :func:`use_auto_scale_lr`. Defaults to False.
        resume: A checkpoint to go on from, or 'auto' for the newest intact
            one in the work directory.
        checkpoint: The weights to test.
        trust: Read checkpoints that hold more than a training state, which
            can run code of their author. Defaults to False.

    Raises:
        FileExistsError: another process trains in the work directory.
        FileNotFoundError: data or a checkpoint are not there.
        ValueError: an option does not go with the config.
    """
    refuse_unjoined(config.get('launcher'))
    if amp:
        use_amp(config)
    if task == 'train':
        refuse_amp_without_gpu(config)
    if auto_scale_lr:
        use_auto_scale_lr(config)
    weights = config.get('load_from')
    if resume is not None:
        config.resume = True
        config.load_from = None if resume == 'auto' else resume
    if task == 'test':
        config.resume, config.load_from = False, checkpoint
    refuse_strategies(config)
    refuse_misplaced(config)
    check_data(config, TASKS[task])
    name_broken_images(config)
    use_own_visualizer(config)
    dump_beside(config, task)
    alone = training_in(config) if task == 'train' else nullcontext()
    with alone, safe_reader(trust):
        if task == 'train':
            use_robust_hooks(config)
            log_validations_by_step(config)
            prepare_resume(config, trust)
            if resume == 'auto' and not config.resume:
                config.load_from = weights
        join_processes(config)
        if 'runner_type' in config:
            yield RUNNERS.build(config)
        else:
            yield Runner.from_cfg(config)


@contextmanager
def prepare_model(
    config: Config, loader: str, trust: bool = False
) -> Iterator[nn.Module]:
    """Builds the model of a config for a tool that has no runner.

    In the context names resolve in the config's scope, and checkpoints are
    read as in :func:`prepare_run`; nothing is written.

    Args:
        config: The whole config; its data sets are changed in place.
        loader: The data loader that will be used.
        trust: See :func:`prepare_run`. Defaults to False.

    Raises:
        FileNotFoundError: data or the teacher are not there.
        ValueError: see :func:`refuse_misplaced`.
    """
    refuse_misplaced(config)
    check_data(config, (loader,))
    name_broken_images(config)
    # As MMEngine's runner has it.
    scope = config.get('default_scope') or 'mmengine'
    with DefaultScope.overwrite_default_scope(scope), safe_reader(trust):
        yield MODELS.build(whole_model(config))
