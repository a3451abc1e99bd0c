"""Prints how well a student's checkpoint follows its teacher.

Both score the images of the test set, a two-stage detector's ground-truth
boxes, or the cells of which a dense teacher is surest; the result is
Kendall's tau-b between their class rankings, how often they agree on the
first class, and the KL divergence.
"""

import argparse
import json

import torch
from mmengine.runner import load_checkpoint

from mmrkkd.cli import add_config_options, add_trust_option, read_config
from mmrkkd.engine import prepare_model
from mmrkkd.evaluation import (
    held_out_loader,
    student_classes,
    teacher_agreement,
)


def main() -> None:
    """Builds the pair and compares it."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_config_options(parser)
    parser.add_argument('checkpoint', help="the student's checkpoint")
    add_trust_option(parser)
    args = parser.parse_args()
    config = read_config(args)
    with prepare_model(
        config, 'test_dataloader', args.trust_checkpoint
    ) as model:
        content = load_checkpoint(
            model, args.checkpoint, map_location='cpu', strict=True
        )
        model.to('cuda' if torch.cuda.is_available() else 'cpu')
        loader = held_out_loader(config)
        names = student_classes(model, loader.dataset, config, content)
        print(json.dumps(teacher_agreement(model, loader, class_names=names)))


if __name__ == '__main__':
    main()
