"""Draws a figure of the papers from one's own runs.

    mmrkkd figure --help
    mmrkkd figure alignment work_dirs/kd work_dirs/rkkd

RUN is the work directory of a training or a distillation, or a folder of
many, as ablations and the demo leave it. Beside the picture stand the
numbers that it is drawn from.
"""

import argparse
import io
import json
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

from mmrkkd.checkpoint.atomic import write_atomically
from mmrkkd.cli import add_change_option, add_trust_option, change_config
from mmrkkd.ops.checks import nearest_name
from mmrkkd.report.figures import FIGURES, PaperFigure
from mmrkkd.report.figures.options import whole_number
from mmrkkd.report.matched_logits import MatchedLogits, matched_logits
from mmrkkd.report.runs import check_alike, find_runs
from mmrkkd.report.selection import Selection

from . import landscape_options
from .landscape_grids import loss_grids
from .scoring import score_runs

FOLDER = 'figures'
IMAGES = 200
# Text of an SVG stays text, and two writings of one figure are equal.
SVG = {'svg.fonttype': 'none', 'svg.hashsalt': 'mmrkkd'}


class Input(NamedTuple):
    """What figures of one need get.

    Args:
        gather: Makes it from the runs and the command line.
        add_options: Adds the arguments that say how.
    """

    gather: Callable[[Selection, argparse.Namespace], object]
    add_options: Callable[[argparse.ArgumentParser], None]


def _logits(selection: Selection, args: argparse.Namespace) -> MatchedLogits:
    scored = score_runs(
        selection.students,
        selection.teacher_run,
        args.images,
        detect=False,
        trust=args.trust_checkpoint,
        asked=f'the figure {args.name}',
    )
    return matched_logits(scored, selection.teacher or 'teacher')


def _add_logit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--images',
        type=whole_number,
        default=IMAGES,
        metavar='N',
        help='validation images that the models see, evenly spaced '
        '(default: %(default)s)',
    )
    add_trust_option(parser)


INPUTS = {
    'logits': Input(_logits, _add_logit_options),
    'runs': Input(lambda selection, args: selection, lambda parser: None),
    'losses': Input(loss_grids, landscape_options.add_options),
}


def figure(args: argparse.Namespace) -> tuple[Path, dict]:
    """Writes ``NAME.png``, ``NAME.svg`` and ``NAME.json``.

    Args:
        args: See :func:`parse_args`.

    Returns:
        Path of the picture, and the content of the JSON file.

    Raises:
        FileNotFoundError: there is no run, or weights or data are missing.
        ValueError: the runs cannot be compared, or do not hold what the
            figure shows.
    """
    chosen = FIGURES[args.name]
    runs, unfinished = find_runs(args.runs)
    for run in runs:
        change_config(run.config, args.cfg_options)
    check_alike(runs)
    args.out = Path(args.out or Path(args.runs[0]) / FOLDER)
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f'--out must be a folder, got the file {args.out}')
    selection = Selection(runs)
    chosen.check(selection, args)
    found = INPUTS[chosen.needs].gather(selection, args)
    # What is drawn is what is written: the picture can be made again.
    numbers = json.loads(json.dumps(_finite(chosen.numbers(found, args))))
    content = dict(
        figure=chosen.name,
        title=chosen.title,
        source=chosen.source,
        reading=chosen.reading,
        command=args.command,
        runs={run.title: str(run.folder) for run in runs},
        unfinished=[str(path) for path in unfinished],
        numbers=numbers,
    )
    _write(args.out, chosen, content)
    return args.out / f'{chosen.name}.png', content


def _finite(value: object) -> object:
    """The same for JSON, which knows neither NaN nor infinity."""
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write(folder: Path, chosen: PaperFigure, content: dict) -> None:
    with rc_context(SVG):
        drawn = chosen.draw(content['numbers'])
        # All are made before the first is written.
        files = {
            'json': (json.dumps(content, indent=2) + '\n').encode(),
            'png': _saved(drawn, 'png'),
            'svg': _saved(drawn, 'svg'),
        }
    for kind, data in files.items():
        write_atomically(folder / f'{chosen.name}.{kind}', data)


def _saved(drawn: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    dated = {'Date': None} if kind == 'svg' else None
    drawn.savefig(buffer, format=kind, metadata=dated)
    return buffer.getvalue()


def usage() -> str:
    """The text of --help: every figure with its source."""
    width = max(map(len, FIGURES)) + 2
    lines = [
        f'  {figure.name:{width}}{figure.title} ({figure.source})'
        for figure in FIGURES.values()
    ]
    return '\n'.join(
        [
            'usage: mmrkkd figure NAME RUN [RUN ...] [OPTIONS]',
            '',
            __doc__.split('\n')[0],
            '',
            'Figures:',
            *lines,
            '',
            "'mmrkkd figure NAME --help' tells how to read it, and its "
            'options.',
        ]
    )


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Reads the command line of a figure.

    Args:
        argv: A name of ``FIGURES``, and the rest.
    """
    chosen = FIGURES[argv[0]]
    parser = argparse.ArgumentParser(
        f'mmrkkd figure {chosen.name}',
        description=f'{chosen.title} ({chosen.source}). {chosen.reading}',
    )
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='RUN',
        help='work directory of a training or a distillation, or the folder '
        'of an ablation or the demo',
    )
    parser.add_argument(
        '--out',
        metavar='FOLDER',
        help=f'where the files go; default: {FOLDER} in the first RUN',
    )
    INPUTS[chosen.needs].add_options(parser)
    chosen.add_options(parser)
    add_change_option(parser)
    args = parser.parse_args(argv[1:])
    args.name = chosen.name
    args.command = shlex.join(['mmrkkd', 'figure', *argv])
    return args


def main(argv: list[str] | None = None) -> int:
    """Draws what the command line says; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ('-h', '--help'):
        print(usage())
        if argv:
            raise SystemExit(0)
        return 2
    if argv[0] not in FIGURES:
        print(
            f'mmrkkd figure: there is no figure {argv[0]!r}'
            f'{nearest_name(argv[0], FIGURES)} The figures: '
            f'{", ".join(FIGURES)}',
            file=sys.stderr,
        )
        return 2
    args = parse_args(argv)
    try:
        path, content = figure(args)
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f'mmrkkd figure {args.name}: {error}', file=sys.stderr)
        return 1
    if content['numbers'].get('note'):
        print(content['numbers']['note'])
    print(f'Figure: {path}, beside it .svg and .json (the numbers)')
    return 0
