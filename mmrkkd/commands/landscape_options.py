"""The options of the loss landscape."""

import argparse

from mmrkkd.cli import add_trust_option
from mmrkkd.evaluation.held_out_loss import TASK, TOTAL
from mmrkkd.report.figures.options import positive, whole_number


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds those of :func:`mmrkkd.commands.landscape_grids.loss_grids`.

    Args:
        parser: Gets them.
    """
    parser.add_argument(
        '--loss',
        default=TASK,
        metavar='NAME',
        help=f"'{TASK}', the student's own losses (default); '{TOTAL}', what "
        'a distillation adds up; or a log key of it, such as loss_rank',
    )
    parser.add_argument(
        '--losses-of',
        metavar='LABEL',
        help="the distillation whose losses these are, the students' all; "
        'default: the last one',
    )
    parser.add_argument(
        '--images',
        type=whole_number,
        default=256,
        metavar='N',
        help='validation images, evenly spaced, the same for all '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--points',
        type=_odd,
        default=25,
        metavar='N',
        help='points along each side of the grid, odd (default: %(default)s)',
    )
    parser.add_argument(
        '--span',
        type=positive,
        default=1.0,
        metavar='X',
        help='how far the grid reaches on each side, in lengths of the '
        'weights (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the directions (default: %(default)s)',
    )
    add_trust_option(parser)


def _odd(text: str) -> int:
    if not text.isdecimal() or int(text) < 3 or int(text) % 2 == 0:
        raise argparse.ArgumentTypeError(
            'must be an odd number of at least 3, so that the trained '
            f'weights are a point of the grid, got {text!r}'
        )
    return int(text)
