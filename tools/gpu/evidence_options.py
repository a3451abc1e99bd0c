"""The options of ``evidence.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmrkkd.cli import Settings

from .arms import ARMS, DEFAULT_ARMS

SAMPLES = 1000


def parse_args(
    description: str, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Reads the command line.

    Args:
        description: What the script does.
        argv: The words; None for the process's own. Defaults to None.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--data',
        type=Path,
        required=True,
        help='folder with voc20/ and weights/, or tin32a',
    )
    parser.add_argument(
        '--out', type=Path, required=True, help='where tables and files go'
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='where is trained; default: a folder for temporary files',
    )
    parser.add_argument(
        '--minutes',
        type=float,
        default=9,
        help='for all of it (default: %(default)s)',
    )
    parser.add_argument(
        '--parts',
        nargs='+',
        choices=['photos', 'classes'],
        default=['photos'],
        help='data sets (default: photos)',
    )
    parser.add_argument(
        '--stage',
        choices=['choose', 'final'],
        default='final',
        help='choose: a fifth of the training photos is held out and scored; '
        'final: trained on all, scored on the validation (default)',
    )
    parser.add_argument(
        '--detector',
        choices=list(DEFAULT_ARMS),
        default='faster-rcnn',
        help='of the photos, teacher and students (default: %(default)s)',
    )
    parser.add_argument(
        '--student',
        choices=['lite0-s5', 'mv2'],
        default='lite0-s5',
        help='its backbone, of the photos (default: %(default)s)',
    )
    parser.add_argument(
        '--arms',
        nargs='+',
        help=f'of {" ".join(ARMS)}, or LABEL=METHOD:KEY=VALUE,... with '
        'settings of its loss; default: those of detector and stage',
    )
    parser.add_argument(
        '--seeds', nargs='+', type=int, help='default: 0, final 0 1 2'
    )
    parser.add_argument(
        '--epochs',
        default='auto',
        help="of every student: a number, or 'auto', what fits by a probe "
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--teacher-epochs',
        type=int,
        default=0,
        help="default: the students'",
    )
    parser.add_argument(
        '--teacher', type=Path, help='a checkpoint instead of a training'
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=16,
        help='trainings side by side (default: %(default)s)',
    )
    parser.add_argument(
        '--steps', type=int, help='a rehearsal with so many steps'
    )
    parser.add_argument(
        '--device',
        choices=['cpu', 'cuda'],
        help='default: a GPU if there is one',
    )
    parser.add_argument(
        '--mps',
        action='store_true',
        help="use NVIDIA's multi-process service, where it works",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Settings,
        default={},
        metavar='KEY=VALUE',
        help='settings to change in every config, the teacher too',
    )
    parser.add_argument(
        '--commit', help='for the record, where there is no Git'
    )
    parser.add_argument(
        '--bootstrap',
        type=int,
        default=SAMPLES,
        help='samples of the images (default: %(default)s; 0: none)',
    )
    args = parser.parse_args(argv)
    if args.epochs != 'auto' and not (
        args.epochs.isdigit() and int(args.epochs) > 0
    ):
        parser.error(
            f"--epochs must be a number >= 1 or 'auto', got {args.epochs!r}"
        )
    for name in ('jobs', 'steps', 'minutes'):
        value = getattr(args, name)
        if value is not None and value <= 0:
            parser.error(f'--{name} must be above 0, got {value}')
    if len(set(args.seeds or ())) < len(args.seeds or ()):
        parser.error(f'--seeds must be different numbers, got {args.seeds}')
    if args.teacher is not None and not args.teacher.is_file():
        parser.error(f'--teacher must be a checkpoint, got {args.teacher}')
    if not args.data.is_dir():
        parser.error(
            f'--data must be the folder that docs/en/real_photos.md '
            f'describes, got {args.data}'
        )
    return args
