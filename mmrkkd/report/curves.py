"""Training curves of several runs, from the logs that MMEngine writes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours, each with a line style of its own.
LINES = [
    dict(color='#000000', linestyle='-'),
    dict(color='#e69f00', linestyle='--'),
    dict(color='#0072b2', linestyle='-.'),
    dict(color='#cc3311', linestyle='-'),
    dict(color='#009e73', linestyle=':'),
]


@dataclass
class Curve:
    """One panel.

    Args:
        title: Above the panel.
        keys: Log keys, whose sum is drawn; runs that lack one are left out.
    """

    title: str
    keys: Sequence[str]


def read_scalars(path: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Reads MMEngine's ``vis_data/scalars.json``, one object a line.

    Args:
        path: The file. A last line that was cut off is left out.

    Returns:
        Log key to (step, value), in the order of the log.
    """
    series = {}
    for line in Path(path).read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        step = entry.get('step', entry.get('iter'))
        for key, value in entry.items():
            if isinstance(value, (int, float)) and step is not None:
                series.setdefault(key, []).append((step, value))
    return series


def draw_curves(
    path: str | Path,
    runs: dict[str, dict],
    panels: Sequence[Curve],
    title: str | None = None,
) -> None:
    """Draws each panel's log keys by iteration, a line for each run.

    Args:
        path: PNG file to write.
        runs: Title of a run to its series, as ``read_scalars`` gives them.
        panels: What to draw, two panels a row.
        title: Above the picture.
    """
    rows = (len(panels) + 1) // 2
    figure = Figure((11, 3.7 * rows + 0.7), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    handles = {}
    for axis, panel in zip(axes, panels, strict=False):
        axis.set_title(panel.title, fontsize=12)
        axis.set_xlabel('iteration', fontsize=11)
        axis.tick_params(labelsize=10)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.grid(color='#dddddd', linewidth=0.7)
        axis.spines[['top', 'right']].set_visible(False)
        for number, (name, series) in enumerate(runs.items()):
            points = _summed(series, panel.keys)
            if points:
                (line,) = axis.plot(
                    *zip(*points, strict=True),
                    linewidth=1.8,
                    label=name,
                    **LINES[number % len(LINES)],
                )
                handles.setdefault(name, line)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.legend(
        handles.values(),
        handles.keys(),
        fontsize=11,
        frameon=False,
        loc='outside lower center',
        ncols=len(handles),
        handlelength=3,
    )
    if title:
        figure.suptitle(title, fontsize=13)
    figure.savefig(path)


def _summed(series, keys):
    if any(key not in series for key in keys):
        return []
    columns = [dict(series[key]) for key in keys]
    return [
        (step, sum(column[step] for column in columns))
        for step in columns[0]
        if all(step in c for c in columns)
    ]
