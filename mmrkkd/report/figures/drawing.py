"""How the papers' figures look: the report's colours, legends below."""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmrkkd.report.curves import COLOURS, LEGEND_COLUMNS, STYLES

PANEL = (5.0, 3.8)


def panels(
    count: int, columns: int = 2, size: tuple[float, float] = PANEL
) -> tuple[Figure, list[Axes]]:
    """An empty figure.

    Args:
        count: How many panels it has.
        columns: Panels side by side. Defaults to 2.
        size: Width and height of a panel in inches. Defaults to ``PANEL``.

    Returns:
        The figure, and its panels.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(
        (size[0] * columns, size[1] * rows + 0.4),
        dpi=100,
        layout='constrained',
    )
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def decorate(axis: Axes, title: str, across: str, up: str) -> None:
    """Titles, grid and spines as the report's curves have them.

    Args:
        axis: The panel.
        title: Above it.
        across: What the horizontal axis counts.
        up: What the vertical axis counts.
    """
    axis.set_title(title, fontsize=12)
    axis.set_xlabel(across, fontsize=11)
    axis.set_ylabel(up, fontsize=11)
    axis.tick_params(labelsize=10)
    axis.grid(color='#dddddd', linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[['top', 'right']].set_visible(False)


def legend_below(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all panels, outside of them.

    Args:
        figure: The figure.
        axes: Its panels.
    """
    handles = {}
    for axis in axes:
        for handle, label in zip(
            *axis.get_legend_handles_labels(), strict=True
        ):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(),
        handles.keys(),
        fontsize=11,
        frameon=False,
        loc='outside lower center',
        ncols=min(len(handles), LEGEND_COLUMNS),
        handlelength=3,
    )


def look(number: int) -> dict[str, object]:
    """Colour and line style of a model; of the teacher, 0, black.

    Args:
        number: Its place among the models.
    """
    return dict(
        color=COLOURS[number % len(COLOURS)],
        linestyle=STYLES[number % len(STYLES)],
        linewidth=1.8,
    )


def or_gaps(values: Iterable[float | None]) -> np.ndarray:
    """Numbers as JSON has them: None becomes NaN, which is not drawn.

    Args:
        values: The numbers.
    """
    return np.array([np.nan if v is None else v for v in values], float)
