"""The score over a grid of two settings."""

import argparse
from numbers import Number

from matplotlib.figure import Figure

from mmrkkd.evaluation.metric_units import unit_of
from mmrkkd.report.selection import Selection

from .base import PaperFigure
from .drawing import decorate, or_gaps, panels, written
from .sweeps import SweepPoint, setting, students_of


class Coefficients(PaperFigure):
    """A cell for each pair of values, its mean score written in it."""

    title = 'A grid of two coefficients'
    source = 'RKKD, figure 9'
    reading = (
        'Each cell is the mean score of the seeds with its deviation below: '
        'cells that differ by less than their deviations are not told apart.'
    )
    needs = 'runs'

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """See :meth:`PaperFigure.add_options`."""
        for name, default in (('across', 'kd_weight'), ('up', 'rank_weight')):
            parser.add_argument(
                f'--{name}',
                default=f'model.losses.{default}',
                metavar='SETTING',
                help='a setting of the configs that the sweep changes '
                '(default: %(default)s)',
            )

    def numbers(self, found: Selection, args: argparse.Namespace) -> dict:
        """See :meth:`PaperFigure.numbers`.

        ``cells`` is a row for each value of ``up``, from the least, with a
        cell for each of ``across``, None where nothing was trained.
        """
        points, left_out = {}, {}
        for run in students_of(found):
            place = tuple(
                setting(run.config, key) for key in (args.across, args.up)
            )
            if None in place:
                left_out[run.label] = None
                continue
            named = f'{args.across}={place[0]}, {args.up}={place[1]}'
            points.setdefault(place, SweepPoint(named)).add(run)
        across, up = (
            sorted({place[axis] for place in points}, key=_order)
            for axis in range(2)
        )
        if len(across) < 2 or len(up) < 2:
            raise ValueError(
                f'a grid needs two values of {args.across} and of {args.up}, '
                f'got {across} and {up}'
                + (f'; {", ".join(left_out)} state none' if left_out else '')
                + '; name the settings that the sweep changes with --across '
                'and --up'
            )
        result = dict(
            metric=found.metric,
            across=args.across,
            up=args.up,
            across_values=across,
            up_values=up,
            cells=[
                [
                    points[x, y].numbers() if (x, y) in points else None
                    for x in across
                ]
                for y in up
            ],
        )
        if left_out:
            result['note'] = (
                f'Not in the grid, for lack of {args.across} or {args.up}: '
                f'{", ".join(left_out)}.'
            )
        return result

    def draw(self, numbers: dict) -> Figure:
        """See :meth:`PaperFigure.draw`."""
        cells = numbers['cells']
        size = (1.1 * len(cells[0]) + 2.4, 0.8 * len(cells) + 1.2)
        figure, (axis,) = panels(1, size=size)
        decorate(axis, self.title, numbers['across'], numbers['up'])
        axis.grid(False)
        means = [or_gaps(cell and cell['mean'] for cell in r) for r in cells]
        image = axis.imshow(means, cmap='cividis', aspect='auto')
        axis.invert_yaxis()
        axis.set_xticks(range(len(cells[0])), numbers['across_values'])
        axis.set_yticks(range(len(cells)), numbers['up_values'])
        for y, row in enumerate(cells):
            for x, cell in enumerate(row):
                if cell is not None:
                    dark = image.norm(means[y][x]) < 0.5
                    axis.text(
                        x,
                        y,
                        _written(cell),
                        ha='center',
                        va='center',
                        fontsize=10,
                        color='white' if dark else 'black',
                    )
        figure.colorbar(image, ax=axis, label=unit_of(numbers['metric']))
        return figure


def _order(value: object) -> tuple:
    return (0, value) if isinstance(value, Number) else (1, str(value))


def _written(cell: dict) -> str:
    text = written(cell['mean'], '.2f')
    if cell['deviation'] is not None:
        text += f'\n± {cell["deviation"]:.2f}'
    return text
