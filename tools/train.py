"""Trains or distils a model from a config.

The options are those of MMDetection's script of the same name, whose own
script runs our configs too. This one makes runs survive: checkpoints are
written whole or not at all, ``--resume`` goes on from the newest intact one,
no checkpoint can run code, and a loss that is not finite stops the run
(docs/en/robust_runs.md).
"""

import argparse

from mmrkkd.cli import add_config_options, add_trust_option, read_config
from mmrkkd.engine import prepare_run


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


def main() -> None:
    """Builds the runner and trains."""
    args = parse_args()
    with prepare_run(
        read_config(args),
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        resume=args.resume,
        trust=args.trust_checkpoint,
    ) as runner:
        runner.train()


if __name__ == '__main__':
    main()
