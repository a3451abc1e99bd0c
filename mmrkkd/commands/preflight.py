"""Looks at a teacher before the hours of a distillation are spent.

    mmrkkd check-teacher CONFIG CHECKPOINT --student STUDENT_CONFIG

Does the checkpoint fit, what does the teacher score on the student's images,
do the class names agree, what is done about another preprocessing, how far
apart are the rankings now, and what does a step cost. The exit code is 1 if
the teacher is useless.
"""

import argparse
import contextlib
import sys

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from mmrkkd.checkpoint import fetch_checkpoint, read_checkpoint
from mmrkkd.checkpoint.key_names import without_prefix
from mmrkkd.cli import (
    add_change_option,
    add_trust_option,
    change_config,
    load_config,
)
from mmrkkd.datasets import check_data
from mmrkkd.distillers import LogitDistiller
from mmrkkd.distillers.class_names import metainfo_classes
from mmrkkd.distillers.model_config import plain_model
from mmrkkd.distillers.teacher import load_strictly, may_be_missing
from mmrkkd.engine import prepare_model
from mmrkkd.evaluation.metric_units import in_a_line
from mmrkkd.evaluation.teacher_scores import (
    RULE,
    judged,
    teacher_scores,
    useless,
)
from mmrkkd.evaluation.trial_steps import (
    as_in_training,
    mean_terms,
    step_costs,
    training_batches,
)

from .comparison_lines import (
    class_line,
    cost_lines,
    input_lines,
    ranking_line,
)
from .wrapping import wrap


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        'mmrkkd check-teacher', description=__doc__.split('\n')[0]
    )
    parser.add_argument('config', help="path or name of the teacher's config")
    parser.add_argument('checkpoint', help='its weights, a path or an URL')
    parser.add_argument(
        '--student',
        metavar='CONFIG',
        help='whose data it is scored on and whom it would teach; without '
        'it: the data of its own config',
    )
    parser.add_argument(
        '--images',
        type=int,
        default=200,
        help='validation images to score it on (default: %(default)s)',
    )
    parser.add_argument(
        '--batches',
        type=int,
        default=2,
        help='training batches on which the rankings are compared '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--method',
        default='rkkd',
        help='whose step is measured (default: %(default)s)',
    )
    add_change_option(parser)
    add_trust_option(parser)
    args = parser.parse_args(argv)
    if args.images < 1 or args.batches < 1:
        parser.error('--images and --batches must be at least 1')
    return args


def main(argv: list[str] | None = None) -> int:
    """Checks as the command line says; returns the exit code."""
    args = parse_args(argv)
    # Initialisation is told parameter by parameter.
    MMLogger.get_instance('check_teacher', log_level='WARNING')
    try:
        reason = check(args)
    except (OSError, ValueError, TypeError, KeyError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f'mmrkkd check-teacher: {text}', file=sys.stderr)
        return 1
    verdict = f'USELESS: {reason}' if reason else 'nothing speaks against it'
    print(
        f'\nVerdict: {verdict}.\nThe rule: {RULE}; so is one whose '
        'checkpoint, classes or head do not fit.'
    )
    return 1 if reason else 0


def check(args: argparse.Namespace) -> str | None:
    """Prints what is found; returns why the teacher is useless, if it is."""
    config = prepare(args)
    say('teacher', f'{args.config}, {args.checkpoint}')
    with contextlib.ExitStack() as stack:
        try:
            model = stack.enter_context(
                prepare_model(config, 'val_dataloader', args.trust_checkpoint)
            )
            teacher = load(args, model)
            if teacher is not model:
                compare(args, config, model)
        except (ValueError, TypeError) as error:
            print(f'\n{error}')
            return 'it cannot teach as it is, for the reason above'
        scores = teacher_scores(model, config, args.images)
    told = in_a_line(scores.metrics) or 'none'
    say('score', f'{told} ({scores.images} validation images)')
    if judged(scores.metrics)[0] is None and scores.found != 0:
        say('', 'no top-1 accuracy and no AP among these: judge yourself')
    # Without names: the fewest there can be, which guess best.
    classes = len(scores.names) if scores.names else 2
    return useless(scores.metrics, scores.images, classes, scores.found)


def prepare(args: argparse.Namespace) -> Config:
    """The config of the distillation, or of the teacher alone."""
    if args.student is None:
        config = load_config(args.config)
        config.model = plain_model(config)
        fetch_checkpoint(args.checkpoint)
    else:
        student = load_config(args.student)
        # What the distillation config of a student says of it is enough.
        student.model = plain_model(student)
        config = wrap(
            student,
            args.config,
            args.checkpoint,
            args.method,
            args.trust_checkpoint,
        ).config
    change_config(config, args.cfg_options)
    return config


def load(args: argparse.Namespace, model: nn.Module) -> nn.Module:
    """The teacher with its weights, on the device; says what was found."""
    path = fetch_checkpoint(args.checkpoint)
    weights = read_checkpoint(path, args.trust_checkpoint)['state_dict']
    if isinstance(model, LogitDistiller):
        # It has loaded them, or would have been refused.
        teacher = model.teacher.model
    else:
        teacher = model.eval()
        load_strictly(teacher, weights, str(path))
    own = teacher.state_dict()
    weights, prefix = without_prefix(weights, own)
    found = sum(key in weights for key in own)
    renamed = sum(not may_be_missing(key) for key in own.keys() - weights)
    text = f'{found + renamed} of {len(own)} found'
    if renamed:
        text += f', {renamed} by an old name'
        found += renamed
    if prefix:
        text += f', behind {prefix!r}'
    if len(weights) > found:
        text += f'; {len(weights) - found} of the file are not used'
    say('weights', text)
    model.to('cuda' if torch.cuda.is_available() else 'cpu')
    return teacher


def compare(
    args: argparse.Namespace, config: Config, model: LogitDistiller
) -> None:
    """Says how teacher and student go together."""
    check_data(config, ('train_dataloader',))
    dataset, batches = training_batches(config, args.batches)
    names = metainfo_classes(
        'the class names of the training set',
        getattr(dataset, 'metainfo', None),
    )
    model.class_map = model.match_student_classes(names)
    say('classes', class_line(model, names))
    for line in input_lines(model, args.config, config):
        say('input', line)
    try:
        model.init_weights()
    except OSError as error:
        say('ranking', f'initial weights of the student: {error}')
        say('', 'random ones are taken here; a training would stop')
    with as_in_training(dataset):
        terms = mean_terms(model, batches)
        costs = step_costs(model, batches[0])
    say('ranking', ranking_line(terms, len(batches)))
    for line in cost_lines(costs):
        say('a step', line)


def say(what: str, text: str) -> None:
    """One line of the table."""
    print(f'{what:9} {text}', flush=True)
