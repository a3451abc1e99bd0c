"""Whether a training takes more at its end than at its beginning."""

import statistics
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmrkkd.report.tables import markdown_table

# The first tenth warms caches up: allocators, cuDNN, the log's window.
WARM_UP = 0.1
# How much more the last quarter may take than the first, in percent. Memory
# breathes with the sizes of the batches; handles and threads are counted.
LIMITS = {
    'memory_mib': 2.0,
    'open_files': 0.0,
    'threads': 0.0,
    'step_cpu_ms': 5.0,
}


TITLES = {
    'memory_mib': 'Memory of its own, MiB',
    'resident_mib': 'Resident memory, MiB',
    'open_files': 'Open files',
    'threads': 'Threads',
    'step_ms': 'Wall time of a step, ms',
    'step_cpu_ms': 'Processor time of a step, all included, ms',
}


def quarters(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Medians of the first and the last quarter after the warm-up.

    Args:
        points: (time, value), in the order of time.

    Raises:
        ValueError: fewer than eight points are left after the warm-up.
    """
    # A watch of one moment has no points at all.
    begin, end = (points[0][0], points[-1][0]) if points else (0.0, 0.0)
    start = begin + WARM_UP * (end - begin)
    quarter = (end - start) / 4
    values = [value for when, value in points if when >= start]
    if len(values) < 8:
        raise ValueError(
            f'{len(values)} points after the warm-up are too few to compare, '
            'at least 8 are needed: watch for longer'
        )
    return (
        statistics.median(
            v for t, v in points if start <= t <= start + quarter
        ),
        statistics.median(v for t, v in points if t >= end - quarter),
    )


def judge(series: dict[str, list[tuple[float, float]]]) -> dict[str, dict]:
    """Compares the end of a watch with its beginning.

    Args:
        series: Name to (time, value) pairs; those in ``LIMITS`` are judged,
            the others compared only.

    Returns:
        Name to ``first``, ``last`` (medians of quarters), ``percent`` (how
        much more the last is), ``limit`` (percent, or None) and ``grew``.
    """
    found = {}
    for name, points in series.items():
        first, last = quarters(points)
        percent = 100 * (last - first) / first
        limit = LIMITS.get(name)
        found[name] = dict(
            first=first,
            last=last,
            percent=percent,
            limit=limit,
            grew=limit is not None and percent > limit,
        )
    return found


def table(verdict: dict[str, dict]) -> str:
    """First against last quarter as a Markdown table.

    Args:
        verdict: What :func:`judge` found.
    """
    return markdown_table(
        ['', 'first quarter', 'last quarter', 'more', 'limit'],
        [
            [
                TITLES[name],
                f'{found["first"]:.1f}',
                f'{found["last"]:.1f}',
                f'{found["percent"]:+.2f} %',
                '-' if found['limit'] is None else f'{found["limit"]:g} %',
            ]
            for name, found in verdict.items()
        ],
    )


def draw_soak(
    path: Path, series: dict[str, list], verdict: dict[str, dict]
) -> None:
    """One panel for each curve, with the medians of its quarters.

    Args:
        path: PNG file to write.
        series: Name to (seconds, value) pairs.
        verdict: What :func:`judge` found.
    """
    rows = (len(series) + 1) // 2
    figure = Figure((11, 2.6 * rows), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 2, sharex=True).ravel()
    for axis, (name, points) in zip(axes, series.items(), strict=False):
        found = verdict[name]
        minutes = [seconds / 60 for seconds, _ in points]
        values = [value for _, value in points]
        axis.plot(minutes, values, color='#0072b2', linewidth=1.0)
        axis.set_title(
            f'{TITLES[name]}  ({found["percent"]:+.2f} %)', fontsize=12
        )
        axis.axhline(
            found['first'], color='#cc3311', linestyle='--', linewidth=1.2
        )
        # From zero, or growth and noise would look alike.
        axis.set_ylim(0, 1.25 * max(values))
        axis.grid(color='#dddddd', linewidth=0.7)
        axis.spines[['top', 'right']].set_visible(False)
    for axis in axes[-2:]:
        axis.set_xlabel('minutes', fontsize=11)
    figure.suptitle(
        'Distillation watched from outside: dashed, the median of the first '
        'quarter;\nin brackets, how much more the last quarter takes',
        fontsize=12,
    )
    figure.savefig(path)
