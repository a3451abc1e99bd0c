"""The table, the JSON file and the picture of a benchmark's result."""

import json
from pathlib import Path

from mmrkkd.report.tables import markdown_table

# Arithmetic instructions for a pair, form 1, both sides near, each at the
# rate of a multiply-add; counted in docs/en/algebra.md.
SLOTS_PER_PAIR = 16
# One colour and marker for each backend, readable without colour too.
STYLES = {
    'plain': ('#888888', 's'),
    'chunked': ('#c27a00', '^'),
    'fused': ('#0b62a4', 'o'),
    'approx': ('#a01c5c', 'D'),
}


def floor_seconds(rows: int, classes: int, rate: float) -> float:
    """The least time for all pairs i < j at ``rate`` multiply-adds/s."""
    pairs = rows * classes * (classes - 1) / 2
    return pairs * SLOTS_PER_PAIR / rate


def write(result: dict, folder: Path) -> None:
    """Writes benchmark.md, .json and .png to the folder; prints the first."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(result)
    (folder / 'benchmark.md').write_text(text)
    (folder / 'benchmark.json').write_text(json.dumps(result, indent=1))
    picture(result, folder / 'benchmark.png')
    print(text)
    print(f'Written to {folder}/benchmark.md, .json and .png')


def markdown(result: dict) -> str:
    """The tables, with what they were measured on."""
    machine = result['environment']
    calls = result['first_call_s']
    parts = [
        "Kendall's tau, forward + backward, float32, standardisation "
        'included. Median and quartiles of turns taken side by side; ratios '
        'of medians. Errors are the largest against float64 (of the '
        'gradient: divided by 2 k / C). Floor: '
        f'the time of {SLOTS_PER_PAIR} multiply-adds for each pair i < j '
        'and nothing else, docs/en/algebra.md.',
        _tau_table(result['tau']),
        f'First call of fused: {calls["nothing built"]:.1f} s with nothing '
        f'built yet, {calls["a later process"]:.2f} s in a later process.',
        'Soft ranks, forward + backward. Error: the largest against float64.',
        _rank_table(result['soft_rank']),
        _agreement(result['soft_rank_agreement']),
    ]
    if 'gpu' in result:
        parts += [f'On {machine["gpu"]}:', gpu_table(result['gpu'])]
    parts.append(
        'Measured on {processor} ({vectors}), {threads} threads, Python '
        '{python}, torch {torch}, {compiler}, commit {commit}, {date}; load '
        'average {load_average} at the start; GPU: {gpu}.'.format(**machine)
    )
    return '\n\n'.join(parts) + '\n'


def _times(entry: dict) -> str:
    return '{:.3g} ({:.3g} to {:.3g})'.format(
        entry['median_ms'], entry['low_ms'], entry['high_ms']
    )


def of_backend(entries: list, entry: dict, backend: str) -> dict | None:
    """The same shape with another backend."""
    keys = ('rows', 'classes', 'regularization')
    for other in entries:
        same = all(other.get(key) == entry.get(key) for key in keys)
        if same and other['backend'] == backend:
            return other
    return None


def _ratio(
    entries: list, entry: dict, backend: str, key: str = 'median_ms'
) -> str:
    other = of_backend(entries, entry, backend)
    if other is None or key not in other or key not in entry:
        return ''
    return f'{other[key] / entry[key]:.3g}x'


def _tau_table(entries: list) -> str:
    rows = []
    for entry in entries:
        peak = entry.get('peak_mb')
        exact = entry['backend'] != 'approx'
        rows.append(
            [
                f'{entry["rows"]} x {entry["classes"]}, {entry["backend"]}',
                _times(entry),
                _ratio(entries, entry, 'plain'),
                _ratio(entries, entry, 'plain, torch.compile'),
                '' if peak is None else f'{peak:.3g}',
                f'{entry["tau_error"]:.1e}',
                f'{entry["gradient_error"]:.1e}',
                f'{entry["median_ms"] / entry["floor_ms"]:.3g}x'
                if exact
                else '',
            ]
        )
    head = [
        'N x C, backend',
        'ms',
        'speed / plain',
        '/ its torch.compile',
        'peak MB',
        'tau error',
        'gradient error',
        'time / floor',
    ]
    return markdown_table(head, rows)


def _rank_table(entries: list) -> str:
    return markdown_table(
        ['N x C, regularization, backend', 'ms', 'ours is', 'error'],
        [
            [
                f'{entry["rows"]} x {entry["classes"]}, '
                f'{entry["regularization"]:g}, {entry["backend"]}',
                _times(entry),
                _inverse_ratio(entries, entry),
                f'{entry["rank_error"]:.1e}',
            ]
            for entry in entries
        ],
    )


def _agreement(entries: list) -> str:
    if not entries:
        return 'No published soft_rank is installed to compare with.'
    rows = [
        [
            f'{entry["package"]}, {entry["rows"]} x {entry["classes"]}, '
            f'{entry["dtype"]}',
            *(
                f'{entry[key]:.1e}'
                for key in ('ranks', 'gradient', 'our_error', 'its_error')
            ),
        ]
        for entry in entries
    ]
    head = [
        'Package, N x C, type',
        'ranks differ by',
        'gradients, times e, by',
        'our error',
        'its error',
    ]
    return (
        'Agreement with published soft ranks, regularizations e from 1 to '
        '0.001, largest differences. Errors: against our own float64.\n\n'
        + markdown_table(head, rows)
    )


def _inverse_ratio(entries: list, entry: dict) -> str:
    ours = of_backend(entries, entry, 'soft_rank')
    if entry is ours:
        return ''
    return f'{entry["median_ms"] / ours["median_ms"]:.3g}x faster'


def gpu_table(entries: list) -> str:
    """Times, ratios and memory of one device."""
    return markdown_table(
        [
            'N x C, backend',
            'ms',
            'speed / plain',
            '/ its torch.compile',
            "GPU's own ms",
            'speed / plain',
            '/ its torch.compile',
            'peak MB',
        ],
        [
            [
                f'{entry["rows"]} x {entry["classes"]}, {entry["backend"]}',
                _times(entry),
                _ratio(entries, entry, 'plain'),
                _ratio(entries, entry, 'plain, torch.compile'),
                f'{entry["gpu_ms"]:.3g}' if 'gpu_ms' in entry else '',
                _ratio(entries, entry, 'plain', 'gpu_ms'),
                _ratio(entries, entry, 'plain, torch.compile', 'gpu_ms'),
                f'{entry["peak_mb"]:.3g}' if 'peak_mb' in entry else '',
            ]
            for entry in entries
        ],
    )


def picture(result: dict, path: Path) -> None:
    """Time and memory against the number of classes."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2))
    curve = result['curve']
    for name, (colour, marker) in STYLES.items():
        points = [entry for entry in curve if entry['backend'] == name]
        for axis, key in zip(axes, ('median_ms', 'peak_mb'), strict=True):
            known = [p for p in points if p.get(key) is not None]
            axis.plot(
                [p['classes'] for p in known],
                # A step that takes no new page measures 0.
                [max(p[key], 0.1) for p in known],
                color=colour,
                marker=marker,
                markersize=5,
                label=name,
            )
    rows = curve[0]['rows']
    axes[0].set_ylabel('ms, forward + backward')
    axes[1].set_ylabel('peak MB beyond the inputs')
    for axis in axes:
        axis.set_xscale('log')
        axis.set_yscale('log')
        axis.set_xlabel('classes')
        axis.grid(True, which='major', color='#dddddd', linewidth=0.6)
        axis.spines[['top', 'right']].set_visible(False)
    axes[0].legend(frameon=False)
    machine = result['environment']
    figure.suptitle(
        f"Kendall's tau of {rows} rows, float32, {machine['threads']} "
        f'threads, torch {machine["torch"]}',
        fontsize=11,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
