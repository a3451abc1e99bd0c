"""The chart of the classes, for a file."""

from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .curves import COLOURS, LEGEND_COLUMNS
from .figures.drawing import decorate

# As the page has them (curves.js).
MARKERS = ('o', 's', 'D', 'P', '^', 'X', '*')


def class_figure(plotted: dict, numbers: Mapping[str, int]) -> Figure:
    """Draws a row for each class, with a mark for each model.

    Args:
        plotted: ``names`` of the classes, ``unit`` of their scores and
            ``values``: model to a score for each name, None for none.
        numbers: Model to the number of its colour.
    """
    names = plotted['names']
    figure = Figure(
        (7, 1.2 + 0.24 * len(names)), dpi=110, layout='constrained'
    )
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    places = np.arange(len(names))
    for model, values in plotted['values'].items():
        number = numbers[model]
        axis.plot(
            [np.nan if value is None else value for value in values],
            places,
            linestyle='none',
            marker=MARKERS[number % len(MARKERS)],
            markersize=6,
            color=COLOURS[number % len(COLOURS)],
            label=model,
        )
    axis.set_yticks(places, names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(left=min(0, axis.get_xlim()[0]))
    decorate(axis, '', plotted['unit'], '')
    figure.legend(
        fontsize=11,
        frameon=False,
        loc='outside lower center',
        ncols=min(len(plotted['values']), LEGEND_COLUMNS),
    )
    return figure
