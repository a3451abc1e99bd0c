"""Prints how well a student's checkpoint follows its teacher.

Both score the images of the test set, a two-stage detector's ground-truth
boxes, or the cells of which a dense teacher is surest; the result is
Kendall's tau-b between their class rankings, how often they agree on the
first class, and the KL divergence.
"""

import argparse
import json
import sys

import torch

from mmrkkd.cli import add_config_options, add_trust_option, read_config
from mmrkkd.distillers import LogitDistiller
from mmrkkd.engine import prepare_model
from mmrkkd.evaluation import (
    held_out_loader,
    load_weights,
    student_classes,
    teacher_agreement,
)


def main() -> int:
    """Reads the command line and compares; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_config_options(parser)
    parser.add_argument('checkpoint', help="the student's checkpoint")
    add_trust_option(parser)
    args = parser.parse_args()
    try:
        print(json.dumps(compare(args)))
    except (OSError, ValueError, TypeError) as error:
        print(f'agreement: {error}', file=sys.stderr)
        return 1
    return 0


def compare(args: argparse.Namespace) -> dict[str, float]:
    """Builds the pair and compares it.

    Args:
        args: The parsed options.

    Returns:
        See :func:`teacher_agreement`.

    Raises:
        ValueError: the config distils nothing, the checkpoint does not fit,
            or there is nothing to compare on.
    """
    config = read_config(args)
    with prepare_model(
        config, 'test_dataloader', args.trust_checkpoint
    ) as model:
        if not isinstance(model, LogitDistiller):
            raise ValueError(
                f'{args.config} has no distillation: its model is a '
                f'{type(model).__name__}. Give the config of a KDClassifier '
                'or a KDDetector'
            )
        content = load_weights(model, args.checkpoint, args.config)
        model.to('cuda' if torch.cuda.is_available() else 'cpu')
        loader = held_out_loader(config)
        names = student_classes(model, loader.dataset, config, content)
        return teacher_agreement(model, loader, class_names=names)


if __name__ == '__main__':
    sys.exit(main())
