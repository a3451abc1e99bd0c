"""The loss on a plane through the weights of each student."""

import argparse
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmrkkd.evaluation.loss_landscape import Row

from .base import PaperFigure
from .drawing import decorate, written
from .options import positive

COLUMNS = 3
LEVELS = 12
COLOURS = 'cividis'


class LossGrids(NamedTuple):
    """The losses around students, all on one grid.

    Args:
        loss: The name of the one that is asked for.
        images: On how many images it was measured.
        seed: Of the directions.
        coordinates: Of the grid's sides.
        rows: Student to the rows of its grid, y row by row, x in a row.
    """

    loss: str
    images: int
    seed: int
    coordinates: list[float]
    rows: Mapping[str, Sequence[Row]]


class Landscape(PaperFigure):
    """Contours and a surface for each student, all by one scale."""

    title = 'The loss around the weights of students'
    source = 'RKKD, figure 4'
    reading = (
        'The dot is the student, a step of 1 along an axis a random change '
        'as long as its weights: the wider the dark basin, the flatter the '
        'minimum that it has found.'
    )
    needs = 'losses'

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """See :meth:`PaperFigure.add_options`."""
        parser.add_argument(
            '--top',
            type=positive,
            metavar='LOSS',
            help='losses above it are drawn as it; default: the least of '
            "the students' upper quartiles, as the corners are steep",
        )

    def numbers(self, found: LossGrids, args: argparse.Namespace) -> dict:
        """See :meth:`PaperFigure.numbers`.

        ``values[i][j]`` is the loss at y = coordinates[i] and x =
        coordinates[j]; ``middle`` the student's own; ``rise`` by how much
        the mean of the grid within half the span, as a circle, lies above
        it.
        """
        places = np.array(found.coordinates)
        radius = np.hypot(places[:, None], places[None])
        near = radius <= places[-1] / 2
        half = len(places) // 2
        students = {}
        for label, rows in found.rows.items():
            values = np.array([[p[found.loss] for p in row] for row in rows])
            middle = float(values[half, half])
            students[label] = dict(
                values=values.tolist(),
                middle=middle,
                rise=float(values[near].mean() - middle),
            )
        return dict(
            loss=found.loss,
            images=found.images,
            seed=found.seed,
            coordinates=found.coordinates,
            within=float(places[-1] / 2),
            top=args.top,
            students=students,
        )

    def draw(self, numbers: dict) -> Figure:
        """See :meth:`PaperFigure.draw`."""
        places = np.array(numbers['coordinates'])
        grids = {
            label: np.array(one['values'], float)
            for label, one in numbers['students'].items()
        }
        lowest, top = scale(list(grids.values()), numbers['top'])
        levels = MaxNLocator(LEVELS).tick_values(lowest, top)
        columns = min(COLUMNS, len(grids))
        rows = -(-len(grids) // columns)
        figure = Figure(
            (4.2 * columns + 1.1, 7.4 * rows), dpi=90, layout='constrained'
        )
        figure.get_layout_engine().set(rect=(0.02, 0, 0.98, 1))
        FigureCanvasAgg(figure)
        spec = figure.add_gridspec(2 * rows, columns)
        axes = []
        for number, (label, values) in enumerate(grids.items()):
            row, column = divmod(number, columns)
            one = numbers['students'][label]
            # What is not finite is above any number.
            values = np.nan_to_num(values, nan=np.inf).clip(lowest, top)
            flat = figure.add_subplot(spec[2 * row, column])
            image = _contours(flat, places, values, levels)
            title = f'{label}: {written(one["middle"], ".3g")}'
            if one['rise'] is not None:
                title += f', {one["rise"]:+.3g} around'
            decorate(flat, title, 'first direction', 'second direction')
            flat.grid(False)
            deep = figure.add_subplot(
                spec[2 * row + 1, column], projection='3d'
            )
            _surface(deep, places, values, levels)
            axes += [flat, deep]
        bar = figure.colorbar(image, ax=axes, shrink=0.6, format='%.3g')
        bar.set_label(f'loss ({numbers["loss"]})', fontsize=11)
        return figure


def scale(
    grids: Sequence[np.ndarray], top: float | None
) -> tuple[float, float]:
    """Between which losses all students are coloured.

    Args:
        grids: The losses of each, NaN where they are not finite.
        top: The greatest; None for the least of the students' upper
            quartiles, by which each fills the scale.

    Returns:
        The least and the greatest.

    Raises:
        ValueError: the greatest is not above the least.
    """
    lowest = min(float(np.nanmin(values)) for values in grids)
    highest = top or min(
        float(np.nanquantile(values, 0.75)) for values in grids
    )
    if highest <= lowest:
        raise ValueError(
            f'--top must be above the least loss, {lowest:.4g}, got '
            f'{highest:.4g}'
        )
    return lowest, highest


def _contours(
    axis: Axes, places: np.ndarray, values: np.ndarray, levels: np.ndarray
) -> object:
    image = axis.contourf(places, places, values, levels, cmap=COLOURS)
    lines = axis.contour(
        places, places, values, levels[1:-1], colors='#ffffff', linewidths=0.6
    )
    axis.clabel(lines, lines.levels[::2], fontsize=8, fmt='%.3g')
    axis.plot(0, 0, 'o', color='#ffffff', mec='#000000', markersize=7)
    axis.set_box_aspect(1)
    axis.locator_params(nbins=5)
    return image


def _surface(
    axis: Axes, places: np.ndarray, values: np.ndarray, levels: np.ndarray
) -> None:
    axis.plot_surface(
        *np.meshgrid(places, places),
        values,
        cmap=COLOURS,
        norm=Normalize(levels[0], levels[-1]),
        rcount=len(places),
        ccount=len(places),
        linewidth=0,
    )
    axis.set_zlim(levels[0], levels[-1])
    axis.set_xlabel('first direction', fontsize=9)
    axis.set_ylabel('second direction', fontsize=9)
    axis.tick_params(labelsize=8)
    axis.locator_params(nbins=4)
