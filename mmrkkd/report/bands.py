"""Training curves of methods that were run with several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours; with more methods the line styles change.
COLOURS = (
    '#000000',
    '#e69f00',
    '#0072b2',
    '#d55e00',
    '#009e73',
    '#cc79a7',
    '#56b4e9',
)
STYLES = ('-', '--', '-.', ':')
LEGEND_COLUMNS = 6

Series = Sequence[tuple[float, float]]


@dataclass
class Panel:
    """One panel.

    Args:
        key: Log key that is drawn; runs that lack it are left out.
        title: Above the panel.
    """

    key: str
    title: str


def band(runs: Sequence[Series]) -> list[tuple[float, float, float, float]]:
    """Mean and range of several runs.

    Args:
        runs: The points (time, value) of each run.

    Returns:
        (time, mean, least, greatest) at the times that all runs have: a
        mean over changing runs would jump.
    """
    tables = [dict(run) for run in runs if len(run)]
    if not tables:
        return []
    common = set(tables[0]).intersection(*tables[1:])
    points = []
    for time in sorted(common):
        values = [table[time] for table in tables]
        points.append(
            (time, sum(values) / len(values), min(values), max(values))
        )
    return points


def draw_bands(
    path: str | Path,
    runs: dict[str, Sequence[dict[str, Series]]],
    panels: Sequence[Panel],
    unit: str = 'epoch',
) -> None:
    """Draws the mean over the seeds as a line, their range as a band.

    Args:
        path: PNG file to write.
        runs: Label of a method to its runs, each log key to points.
        panels: What to draw, side by side.
        unit: What the time counts. Defaults to 'epoch'.
    """
    rows = -(-max(len(runs), 1) // LEGEND_COLUMNS)
    figure = Figure(
        (5.2 * len(panels), 4.2 + 0.25 * rows), dpi=110, layout='constrained'
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False).ravel()
    handles = {}
    for axis, panel in zip(axes, panels, strict=True):
        _decorate(axis, panel.title, unit)
        for number, (label, seeds) in enumerate(runs.items()):
            points = band([seed.get(panel.key, ()) for seed in seeds])
            if points:
                line = _draw_band(axis, points, number)
                handles.setdefault(label, line)
        if not axis.lines:
            axis.text(
                0.5,
                0.5,
                f'no run logged {panel.key}',
                transform=axis.transAxes,
                ha='center',
                color='#777777',
            )
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
    figure.savefig(path)


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
    (line,) = axis.plot(
        times,
        means,
        color=colour,
        linestyle=STYLES[number // len(COLOURS) % len(STYLES)],
        linewidth=1.8,
        # A single epoch is a point, which a line does not show.
        marker='o' if len(times) == 1 else None,
    )
    axis.fill_between(
        times, least, greatest, color=colour, alpha=0.15, linewidth=0
    )
    return line
