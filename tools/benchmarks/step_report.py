"""The table and the picture of whole training steps."""

from pathlib import Path

from mmrkkd.report.tables import markdown_table

HEAD = (
    'step',
    'ms',
    'x student alone',
    'processor time, x',
    'peak MB',
    'checkpoint MB',
)
# Of ours, of the student alone, of the others'.
COLOURS = dict(ours='#0b62a4', alone='#888888', others='#c27a00')


def markdown(result: dict) -> str:
    """All pairs' tables, with what they were measured on."""
    machine = result['environment']
    parts = [
        'Whole training steps: preprocessing, forward, backward and SGD, '
        'random weights. Median and quartiles of turns taken side by side; '
        "ratios to the student's step of the same turn. Telemetry, which a "
        'run makes where its log has a line, is in none. In brackets: what '
        "a distiller's teacher runs in. Peak: memory in use during a "
        'step beyond that between steps, models and momentum.',
        *(f'{pair_table(pair)}' for pair in result['pairs']),
        'Measured on {gpu}, {processor}, {threads} threads, Python {python}, '
        'torch {torch}, {commit}{date}; load average {load_average} at the '
        'start.'.format(
            **dict(machine, gpu=device_of(result), commit=_commit(machine))
        ),
    ]
    return '\n\n'.join(parts) + '\n'


def _commit(machine: dict) -> str:
    """Left out where only the files were brought."""
    commit = machine['commit']
    return '' if commit == 'unknown' else f'commit {commit}, '


def device_of(result: dict) -> str:
    """The card, or that it was none."""
    if result['device'] == 'cpu':
        return 'the CPU'
    return result['environment']['gpu']


def pair_table(pair: dict) -> str:
    """One pair's table under its title."""
    table = markdown_table(HEAD, [_cells(row) for row in pair['rows']])
    return f'{pair["title"]}, {pair["images"]}:\n\n{table}'


def _cells(row: dict) -> list[str]:
    if 'failure' in row:
        failure = f'{row["way"]}: {row["failure"]:.100}'
        return [failure, *([''] * (len(HEAD) - 1))]
    peak, checkpoint = row.get('peak_mb'), row.get('checkpoint_mb')
    teacher = f' ({row["teacher"]})' if row.get('teacher') else ''
    return [
        row['way'] + teacher,
        '{median_ms:.1f} ({low_ms:.1f} to {high_ms:.1f})'.format(**row),
        '{median:.3f} ({low:.3f} to {high:.3f})'.format(**row['ratio']),
        '{median:.3f}'.format(**row['processor_ratio']),
        'not measured' if peak is None else f'{peak:.0f}',
        '' if checkpoint is None else f'{checkpoint:.1f}',
    ]


def draw(result: dict, path: Path) -> None:
    """Ratios to the student alone, a panel for each pair.

    Args:
        result: What step.py writes.
        path: A PNG.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    key = 'ratio' if result['device'] == 'cuda' else 'processor_ratio'
    measured = [
        [row for row in pair['rows'] if key in row] for pair in result['pairs']
    ]
    figure, axes = pyplot.subplots(
        len(measured),
        1,
        figsize=(9, 1.2 + sum(0.6 + 0.33 * len(rows) for rows in measured)),
        gridspec_kw=dict(height_ratios=[2 + len(rows) for rows in measured]),
        squeeze=False,
        sharex=True,
        layout='constrained',
    )
    for axis, pair, rows in zip(
        axes[:, 0], result['pairs'], measured, strict=True
    ):
        _panel(axis, f'{pair["title"]}, {pair["images"]}', rows, key)
    wall = 'wall' if key == 'ratio' else 'processor'
    axes[-1, 0].set_xlabel(
        f"{wall} time of a training step, the student's alone = 1; "
        'median and quartiles'
    )
    figure.suptitle(
        f'{device_of(result)}, torch {result["environment"]["torch"]}',
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _panel(axis: object, title: str, rows: list[dict], key: str) -> None:
    places = range(len(rows))
    for place, row in zip(places, rows, strict=True):
        ratio, name = row[key], row['way']
        ours = name.startswith(('RKKD', 'mmrkkd'))
        kind = 'ours' if ours else 'others'
        if name == 'student alone':
            kind = 'alone'
        axis.barh(place, ratio['median'], 0.66, color=COLOURS[kind])
        axis.plot([ratio['low'], ratio['high']], [place] * 2, color='#222222')
        axis.text(
            max(ratio['high'], ratio['median']),
            place,
            f' {ratio["median"]:.2f}',
            va='center',
            fontsize=8,
        )
    axis.axvline(1.0, color='#444444', linewidth=0.8)
    axis.set_yticks(places, [row['way'] for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_title(title, fontsize=9, loc='left')
    axis.spines[['top', 'right']].set_visible(False)
    axis.margins(x=0.08)
