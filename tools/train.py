"""Trains or distils a model from a config.

The options are those of MMDetection's script of the same name, whose own
script runs our configs too. This one makes runs survive: checkpoints are
written whole or not at all, ``--resume`` goes on from the newest intact one,
no checkpoint can run code, and a loss that is not finite stops the run
(docs/en/robust_runs.md).
"""

import argparse

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmrkkd.checkpoint import prepare_resume, use_safe_reader
from mmrkkd.cli import (
    add_config_options,
    add_trust_option,
    check_data,
    read_config,
    refuse_strategies,
)
from mmrkkd.datasets import name_broken_images
from mmrkkd.engine import join_processes, use_robust_hooks


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_config_options(parser)
    parser.add_argument(
        '--amp',
        action='store_true',
        help='train with automatic mixed precision',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint; without a value, from the newest '
        'intact one in the work directory',
    )
    add_trust_option(parser)
    return parser.parse_args()


def use_amp(config: Config) -> None:
    """Turns on mixed precision in a config, whatever it set before."""
    wrapper = config.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') not in (
        'OptimWrapper',
        'AmpOptimWrapper',
    ):
        raise ValueError(
            '--amp replaces an optim_wrapper of type OptimWrapper, the '
            f'config has {wrapper.type!r}; choose its precision there'
        )
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def main() -> None:
    """Builds the runner and trains."""
    args = parse_args()
    config = read_config(args)
    if args.amp:
        use_amp(config)
    if args.auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise ValueError(
                '--auto-scale-lr needs auto_scale_lr.base_batch_size in the '
                'config: the batch size that its learning rate is for'
            )
        config.auto_scale_lr.enable = True
    if args.resume == 'auto':
        config.resume, config.load_from = True, None
    elif args.resume is not None:
        config.resume, config.load_from = True, args.resume
    refuse_strategies(config)
    check_data(config, ('train_dataloader', 'val_dataloader'))
    use_safe_reader(args.trust_checkpoint)
    use_robust_hooks(config)
    name_broken_images(config)
    prepare_resume(config, args.trust_checkpoint)
    join_processes(config)
    if 'runner_type' in config:
        runner = RUNNERS.build(config)
    else:
        runner = Runner.from_cfg(config)
    runner.train()


if __name__ == '__main__':
    main()
