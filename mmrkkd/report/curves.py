"""Curves of runs: a line a model, a band where it ran with several seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours, for the colour-blind; the line styles change too.
COLOURS = (
    '#000000',
    '#e69f00',
    '#0072b2',
    '#cc3311',
    '#009e73',
    '#cc79a7',
    '#56b4e9',
)
STYLES = ('-', '--', '-.', ':')
LEGEND_COLUMNS = 6

Series = Sequence[tuple[float, float]]


@dataclass
class Curve:
    """One panel.

    Args:
        title: Above the panel.
        keys: Log keys, whose sum is drawn; runs that lack one are left out.
    """

    title: str
    keys: Sequence[str]


def band(runs: Sequence[Series]) -> list[tuple[float, float, float, float]]:
    """Mean and range of several runs.

    Args:
        runs: The points (time, value) of each run.

    Returns:
        (time, mean, least, greatest) at the times that all runs have: a
        mean over changing runs would jump.
    """
    points = []
    for time, values in _common([run for run in runs if len(run)]):
        points.append(
            (time, statistics.fmean(values), min(values), max(values))
        )
    return points


def draw_curves(
    path: str | Path,
    runs: dict[str, Sequence[dict[str, Series]]],
    panels: Sequence[Curve],
    unit: str = 'iteration',
    columns: int = 2,
) -> None:
    """Writes what :func:`curves_figure` draws, as PNG or SVG.

    Args:
        path: The file, of the kind that it ends with.
        runs: See :func:`curves_figure`.
        panels: What to draw.
        unit: What the time counts. Defaults to 'iteration'.
        columns: Panels side by side. Defaults to 2.
    """
    curves_figure(runs, panels, [unit] * len(panels), columns).savefig(path)


def curves_figure(
    runs: dict[str, Sequence[dict[str, Series]]],
    panels: Sequence[Curve],
    units: Sequence[str],
    columns: int = 2,
    first: int = 0,
) -> Figure:
    """Draws the mean over the seeds as a line, their range as a band.

    Args:
        runs: Title of a model to its runs, each log key to points.
        panels: What to draw.
        units: What the time of each panel counts.
        columns: Panels side by side. Defaults to 2.
        first: Number of the first model's look; 0, black, is a teacher's
            where there is one. Defaults to 0.
    """
    rows = -(-len(panels) // columns)
    legend_rows = -(-max(len(runs), 1) // LEGEND_COLUMNS)
    figure = Figure(
        (5.4 * columns, 3.8 * rows + 0.3 + 0.25 * legend_rows),
        dpi=110,
        layout='constrained',
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    handles = {}
    for axis, panel, unit in zip(axes, panels, units, strict=False):
        _decorate(axis, panel.title, unit)
        for number, (title, seeds) in enumerate(runs.items(), first):
            points = band([_summed(seed, panel.keys) for seed in seeds])
            if points:
                handles.setdefault(title, _draw_band(axis, points, number))
        if not axis.lines:
            axis.text(
                0.5,
                0.5,
                f'no run logged {", ".join(panel.keys)}',
                transform=axis.transAxes,
                ha='center',
                color='#777777',
            )
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    if handles:
        figure.legend(
            handles.values(),
            handles.keys(),
            fontsize=11,
            frameon=False,
            loc='outside lower center',
            ncols=min(len(handles), LEGEND_COLUMNS),
            handlelength=3,
        )
    return figure


def _summed(run: dict[str, Series], keys: Sequence[str]) -> Series:
    return [
        (time, sum(values))
        for time, values in _common([run.get(key, ()) for key in keys])
    ]


def _common(runs: Sequence[Series]) -> list[tuple[float, list[float]]]:
    """The times that all have, with the value of each."""
    tables = [dict(run) for run in runs]
    if not tables:
        return []
    times = set(tables[0]).intersection(*tables[1:])
    return [
        (time, [table[time] for table in tables]) for time in sorted(times)
    ]


def _decorate(axis: Axes, title: str, unit: str) -> None:
    axis.set_title(title, fontsize=12)
    axis.set_xlabel(unit, fontsize=11)
    axis.tick_params(labelsize=10)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.grid(color='#dddddd', linewidth=0.7)
    axis.spines[['top', 'right']].set_visible(False)


def _draw_band(axis: Axes, points: list[tuple], number: int):
    times, means, least, greatest = zip(*points, strict=True)
    colour = COLOURS[number % len(COLOURS)]
    # 7 colours and 4 styles: the first 28 lines all differ.
    style = STYLES[number % len(STYLES)]
    (line,) = axis.plot(
        times,
        means,
        color=colour,
        linestyle=style,
        linewidth=1.8,
        # A single epoch is a point, which a line does not show.
        marker='o' if len(times) == 1 else None,
    )
    if least != greatest:
        axis.fill_between(
            times, least, greatest, color=colour, alpha=0.15, linewidth=0
        )
    return line
