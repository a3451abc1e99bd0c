"""An ablation's table, as Markdown and as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from .progress import clock
from .statistics import T_QUANTILES

NOTES = (
    '{metric} on the validation data after the last epoch and at its best; '
    'mean ± sample standard deviation over the seeds. The best epoch is '
    'chosen on the same images, which flatters every method: compare the '
    'last.',
    'Minus {baseline}: differences of runs with the same seed, mean ± '
    'standard error.{interval}',
    'Tau (exact Kendall tau-b, in [-1, 1]) and same top class (in [0, 1]): '
    "the last checkpoint's class scores on the validation data against the "
    "teacher's. Time: wall time of a training.",
)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column left, the others right."""
    widths = [
        max(map(len, column)) for column in zip(head, *lines, strict=True)
    ]
    rule = ['-' * widths[0], *('-' * (w - 1) + ':' for w in widths[1:])]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [
            cell.rjust(width)
            for cell, width in zip(cells[1:], widths[1:], strict=True)
        ]
        return f'| {" | ".join(padded)} |'

    return '\n'.join(map(line, [head, rule, *lines]))


def table(rows: Sequence[dict], baseline: str) -> str:
    """The rows of ``summarize`` as a Markdown table."""
    head = [
        'method',
        'seeds',
        'last',
        'best',
        f'minus {baseline}',
        'by seed',
        'tau',
        'same top class',
        'time',
    ]
    return markdown(head, [_line(row) for row in rows])


def _line(row: dict) -> list[str]:
    difference = row['difference'] or {}
    seconds = row['seconds']['mean']
    return [
        row['label'],
        str(len(row['seeds'])),
        _pm(row['last']['mean'], row['last']['std']),
        _pm(row['best']['mean'], row['best']['std']),
        _pm(
            difference.get('mean'),
            difference.get('standard_error'),
            signed=True,
        ),
        ' '.join(
            f'{value:+.2f}' for value in difference.get('by_seed', {}).values()
        ),
        _pm(row['tau']['mean'], row['tau']['std'], 3),
        _pm(row['top1_agreement']['mean'], row['top1_agreement']['std'], 3),
        '-' if seconds is None else clock(seconds),
    ]


def share_table(rows: Sequence[dict]) -> str:
    """Mean gradient shares by term, '' where none was logged."""
    rows = [row for row in rows if row['gradient_shares']]
    terms = sorted({term for row in rows for term in row['gradient_shares']})
    if not terms:
        return ''
    lines = [
        [
            row['label'],
            *(_number(row['gradient_shares'].get(term), 3) for term in terms),
        ]
        for row in rows
    ]
    return markdown(['method', *terms], lines)


def _pm(
    value: float | None,
    deviation: float | None,
    digits: int = 2,
    signed: bool = False,
) -> str:
    text = _number(value, digits, signed)
    if value is None or deviation is None:
        return text
    return f'{text} ± {deviation:.{digits}f}'


def _number(value: float | None, digits: int, signed: bool = False) -> str:
    if value is None:
        return '-'
    return f'{value:{"+" if signed else ""}.{digits}f}'


def _interval(rows: Sequence[dict]) -> str:
    counts = {
        len(row['difference']['by_seed']) for row in rows if row['difference']
    }
    if counts == {1}:
        return ' With one seed nothing can be said about chance.'
    if len(counts) != 1 or next(iter(counts)) - 1 not in T_QUANTILES:
        return ''
    count = counts.pop()
    return (
        f' With {count} seeds a difference within ±'
        f'{T_QUANTILES[count - 1]:.1f} standard errors (95 %, Student) may '
        'be chance.'
    )


def origin(results: Sequence[dict]) -> list[str]:
    """Where the results come from; what differs between them is told."""
    lines = []
    attempts = [a for result in results for a in result['attempts']]
    for name, title in (
        ('commit', 'Commit'),
        ('hardware', 'Hardware'),
        ('versions', 'Versions'),
        ('side_by_side', 'Cells side by side'),
        ('threads', 'Threads for each'),
    ):
        found = list(dict.fromkeys(_plain(a.get(name)) for a in attempts))
        if len(found) == 1:
            lines.append(f'{title}: {found[0]}.')
        elif found:
            lines.append(
                f'{title}: NOT THE SAME FOR ALL: {" / ".join(found)}.'
            )
    interrupted = sum(len(result['attempts']) > 1 for result in results)
    if interrupted:
        lines.append(
            f'{interrupted} cells were interrupted and went on from their '
            'last checkpoint.'
        )
    return lines


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{name} {text}' for name, text in value.items())
    return str(value)


def write_report(
    folder: Path, rows: Sequence[dict], results: Sequence[dict], facts: dict
) -> str:
    """Writes ``ablation.md`` and ``ablation.json``.

    Args:
        folder: Where.
        rows: See ``summarize``.
        results: Those of the finished cells.
        facts: ``baseline``, ``metric``, ``seeds``, ``missing`` (titles of
            cells without a result), ``failures``, ``command``.

    Returns:
        The Markdown text.
    """
    names = dict(facts, interval=_interval(rows))
    lines = ['# Ablation', '', table(rows, facts['baseline']), '']
    for note in NOTES:
        lines += [note.format(**names), '']
    shares = share_table(rows)
    if shares:
        lines += [
            "Mean share of each term in the gradient at the student's "
            'logits (norm over the sum of norms):',
            '',
            shares,
            '',
        ]
    if facts['missing']:
        lines += [f'NOT FINISHED: {"; ".join(facts["missing"])}.', '']
    for failure in facts['failures']:
        # The end of its log was shown when it failed.
        lines += [f'FAILED: {failure.splitlines()[0]}.', '']
    seeds = ' '.join(map(str, facts['seeds']))
    lines += [' '.join([f'Seeds: {seeds}.', *origin(results)]), '']
    lines += ['```shell', facts['command'], '```', '']
    if results:
        lines += ['![Curves](curves.png)', '']
    text = '\n'.join(lines)
    (folder / 'ablation.md').write_text(text)
    (folder / 'ablation.json').write_text(
        json.dumps(dict(facts, rows=rows, results=results), indent=2) + '\n'
    )
    return text
