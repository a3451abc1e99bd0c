"""How the papers' figures look: the report's colours, legends below."""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from mmrkkd.report.curves import COLOURS, LEGEND_COLUMNS, STYLES

PANEL = (5.0, 3.8)


def panels(
    count: int, columns: int = 0, size: tuple[float, float] = PANEL
) -> tuple[Figure, list[Axes]]:
    """An empty figure.

    Args:
        count: How many panels it has.
        columns: Panels side by side. Defaults to 2 of four, or else 3.
        size: Width and height of a panel in inches. Defaults to ``PANEL``.

    Returns:
        The figure, and its panels.
    """
    columns = min(columns or (2 if count == 4 else 3), count)
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
    # Inches of a handle and of a letter.
    width = 0.8 + 0.09 * max(map(len, handles))
    fitting = max(1, int(figure.get_size_inches()[0] / width))
    figure.legend(
        handles.values(),
        handles.keys(),
        fontsize=11,
        frameon=False,
        loc='outside lower center',
        ncols=min(len(handles), LEGEND_COLUMNS, fitting),
        handlelength=3,
    )


def count_ranks(axis: Axes, upwards: bool = False) -> None:
    """Ranks across, whole numbers from 1.

    Args:
        axis: The panel.
        upwards: Up as well. Defaults to False.
    """
    sides = [axis.xaxis, axis.yaxis] if upwards else [axis.xaxis]
    for side in sides:
        side.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=2))


def log_heights(axis: Axes) -> None:
    """A logarithmic vertical axis with plain numbers.

    Args:
        axis: The panel.
    """
    axis.set_yscale('log')
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axis.yaxis.set_major_formatter('{x:g}')
    axis.yaxis.set_minor_formatter(NullFormatter())


def same_heights(axes: Iterable[Axes]) -> None:
    """One vertical range for all panels, wide enough for each.

    Args:
        axes: The panels, with everything drawn.
    """
    axes = list(axes)
    low, high = zip(*(axis.get_ylim() for axis in axes), strict=True)
    for axis in axes:
        axis.set_ylim(min(low), max(high))


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


def written(value: float | None, form: str) -> str:
    """A number as JSON has it: of None, which was not finite, '-'.

    Args:
        value: The number.
        form: Its format, '.2f' for two decimals.
    """
    return '-' if value is None else format(value, form)


def or_gaps(values: Iterable[float | None]) -> np.ndarray:
    """Numbers as JSON has them: None becomes NaN, which is not drawn.

    Args:
        values: The numbers.
    """
    return np.array([np.nan if v is None else v for v in values], float)
