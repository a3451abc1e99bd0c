"""A soak's table and picture."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

TITLES = {
    'memory_mib': 'Memory of its own, MiB',
    'resident_mib': 'Resident memory, MiB',
    'open_files': 'Open files',
    'threads': 'Threads',
    'step_ms': 'Wall time of a step, ms',
    'step_cpu_ms': 'Processor time of a step, all included, ms',
}


def table(verdict):
    """First against last quarter as a Markdown table.

    Args:
        verdict: What ``watching.judge`` found.
    """
    lines = [
        '| | first quarter | last quarter | more | limit |',
        '|---|--:|--:|--:|--:|',
    ]
    for name, found in verdict.items():
        limit = '-' if found['limit'] is None else f'{found["limit"]:g} %'
        lines.append(
            f'| {TITLES[name]} | {found["first"]:.1f} | {found["last"]:.1f} '
            f'| {found["percent"]:+.2f} % | {limit} |'
        )
    return '\n'.join(lines)


def draw_soak(path, series, verdict):
    """One panel for each curve, with the medians of its quarters.

    Args:
        path: PNG file to write.
        series: Name to (seconds, value) pairs.
        verdict: What ``watching.judge`` found.
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
