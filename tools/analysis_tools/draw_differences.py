"""Draws the differences of several experiments side by side.

    python tools/analysis_tools/draw_differences.py OUT TITLE=FILE [...]

FILE is what tools/ablation.py or tools/gpu/evidence.py leave as JSON: each
method minus the baseline, by seed, with its intervals. The axis is the same
for all.
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmrkkd.checkpoint.atomic import write_atomically
from mmrkkd.report.difference_figure import Compared, differences_figure

SUFFIXES = ('.png', '.svg', '.pdf')


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line and draws; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('out', help='the picture, PNG, SVG or PDF')
    parser.add_argument(
        'experiments',
        nargs='+',
        metavar='TITLE=FILE',
        help='what stands above a panel, and its ablation.json',
    )
    args = parser.parse_args(argv)
    try:
        draw(args.out, args.experiments)
    except (OSError, ValueError) as error:
        print(f'draw_differences: {error}', file=sys.stderr)
        return 1
    print(f'Picture: {args.out}')
    return 0


def draw(out: str, experiments: Sequence[str]) -> None:
    """Writes the picture.

    Args:
        out: The file.
        experiments: 'TITLE=FILE' each.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: an argument is not of its form, or a file holds no
            differences.
    """
    kind = Path(out).suffix
    if kind not in SUFFIXES:
        raise ValueError(
            f'the picture must end with one of {", ".join(SUFFIXES)}, got '
            f'{out!r}'
        )
    compared = [_read(each) for each in experiments]
    picture = io.BytesIO()
    differences_figure(compared).savefig(picture, format=kind[1:])
    write_atomically(out, picture.getvalue())


def _read(experiment: str) -> Compared:
    title, _, file = experiment.partition('=')
    if not (title and file):
        raise ValueError(
            f'an experiment must be TITLE=FILE, got {experiment!r}'
        )
    try:
        facts = json.loads(Path(file).read_text())
        return Compared(
            title, facts['rows'], facts['baseline'], facts['metric']
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f'{file} must be the JSON of tools/ablation.py or '
            f'tools/gpu/evidence.py: {error!r}'
        ) from error


if __name__ == '__main__':
    sys.exit(main())
