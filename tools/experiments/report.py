"""An ablation's table, as Markdown and as JSON, and its differences drawn."""

import io
from collections.abc import Sequence
from pathlib import Path

from mmrkkd.checkpoint.atomic import write_atomically, write_json
from mmrkkd.evaluation.metric_units import scale_of
from mmrkkd.evaluation.summary import quantile
from mmrkkd.report.difference_figure import Compared, differences_figure
from mmrkkd.report.measurements import AP50
from mmrkkd.report.surroundings import origin
from mmrkkd.report.tables import markdown_table, number, plus_minus

from .progress import clock

NOTES = (
    '{metric}{unit} on the validation data after the last epoch and at its '
    'best; mean ± sample standard deviation over the seeds. The best epoch '
    'is chosen on the same images, which flatters every method: compare the '
    'last.',
    'Minus {baseline}: differences of runs with the same seed, mean ± '
    'standard error.{interval}',
    'Tau (exact Kendall tau-b, in [-1, 1]) and same top class (in [0, 1]): '
    "the last checkpoint's class scores on {where} "
    "against the teacher's. Time: wall time of a training.",
)
# What a reader compares -> how it is told, with their number.
COMPARED_ON = dict(
    images='{:,} images of the validation data',
    boxes='{:,} ground-truth boxes of the validation data',
    cells='the {:,} cells of the validation data that the teacher is surest '
    'of',
    queries='the {:,} queries on the validation data that the teacher is '
    'surest of',
    proposals='the {:,} proposals on the validation data that the teacher is '
    'surest of',
)
DIFFERENCES = 'differences.png'
IMAGES_NOTE = (
    'Mean difference over the seeds, and its 95 % interval, 1.96 standard '
    'errors of {samples} bootstrap samples of the {images} validation images, '
    'the same for all runs: what other images would have done to these runs. '
    'What other seeds would have done is in the table above.'
)


def table(rows: Sequence[dict], baseline: str, scale: float) -> str:
    """The rows of ``summarize`` as a Markdown table.

    Args:
        rows: The rows.
        baseline: Label of the baseline.
        scale: What the metric is multiplied by.
    """
    extra = [AP50] if any(AP50 in row['scores'] for row in rows) else []
    head = [
        'method',
        'seeds',
        'last',
        'best',
        f'minus {baseline}',
        'by seed',
        *('AP50' for _ in extra),
        'tau',
        'same top class',
        'time',
    ]
    return markdown_table(head, [_line(row, extra, scale) for row in rows])


def _line(row: dict, extra: Sequence[str], scale: float) -> list[str]:
    difference = row['difference'] or {}
    seconds = row['seconds']['mean']
    return [
        row['label'],
        str(len(row['seeds'])),
        plus_minus(row['last'], 2, scale),
        plus_minus(row['best'], 2, scale),
        plus_minus(difference, 2, scale, 'standard_error', signed=True),
        ' '.join(
            f'{value * scale:+.2f}'
            for value in difference.get('by_seed', {}).values()
        ),
        *(plus_minus(row['scores'].get(name, {}), 2, scale) for name in extra),
        plus_minus(row['tau'], 3),
        plus_minus(row['top1_agreement'], 3),
        '-' if seconds is None else clock(seconds),
    ]


def images_table(rows: Sequence[dict], baseline: str) -> str:
    """Differences and what the choice of images does, '' where unknown."""
    rows = [row for row in rows if row['over_images']]
    lines = []
    for row in rows:
        found = row['over_images']
        cells = [
            [
                f'{found["mean"][metric]:+.2f}',
                f'{found["low"][metric]:+.2f} to {found["high"][metric]:+.2f}',
            ]
            for metric in range(2)
        ]
        lines.append(
            [row['label'], str(len(found['seeds'])), *cells[0], *cells[1]]
        )
    head = ['AP', '95 % over images', 'AP50', '95 % over images']
    head = [f'minus {baseline}', 'seeds', *head]
    return markdown_table(head, lines) if lines else ''


def share_table(rows: Sequence[dict]) -> str:
    """Mean gradient shares by term, '' where none was logged."""
    rows = [row for row in rows if row['gradient_shares']]
    terms = sorted({term for row in rows for term in row['gradient_shares']})
    if not terms:
        return ''
    lines = [
        [
            row['label'],
            *(number(row['gradient_shares'].get(term), 3) for term in terms),
        ]
        for row in rows
    ]
    return markdown_table(['method', *terms], lines)


def _interval(rows: Sequence[dict]) -> str:
    counts = {
        len(row['difference']['by_seed']) for row in rows if row['difference']
    }
    if counts == {1}:
        return ' With one seed nothing can be said about chance.'
    if len(counts) != 1:
        return ''
    count = counts.pop()
    return (
        f' With {count} seeds a difference within ±'
        f'{quantile(count - 1):.1f} standard errors (95 %, Student) may be '
        'chance.'
    )


def _compared_on(results: Sequence[dict]) -> str:
    """What student and teacher were compared on, the same for all cells."""
    for result in results:
        agreement = result.get('agreement') or {}
        for unit, words in COMPARED_ON.items():
            if unit in agreement:
                return words.format(agreement[unit])
    return 'the validation data'


def write_report(
    folder: Path, rows: Sequence[dict], results: Sequence[dict], facts: dict
) -> str:
    """Writes ``ablation.md``, ``ablation.json`` and ``differences.png``.

    The picture is left out where no two methods have a seed in common.

    Args:
        folder: Where.
        rows: See ``summarize``.
        results: Those of the finished cells.
        facts: ``baseline``, ``metric``, ``seeds``, ``missing`` (titles of
            cells without a result), ``failures``, ``command``.

    Returns:
        The Markdown text.
    """
    baseline = facts['baseline']
    scale = scale_of(facts['metric'])
    names = dict(
        facts,
        interval=_interval(rows),
        unit=' in percent' * (scale == 100),
        where=_compared_on(results),
    )
    parts = ['# Ablation', table(rows, baseline, scale)]
    parts += [note.format(**names) for note in NOTES]
    images = images_table(rows, baseline)
    if images:
        known = next(row['over_images'] for row in rows if row['over_images'])
        parts += [images, IMAGES_NOTE.format(**known)]
    shares = share_table(rows)
    if shares:
        parts += [
            'Mean share of each term in the gradient (norm over the sum of '
            "norms): of a logit term at the student's logits, of a feature "
            'term, or one of boxes, beside the task at what it compares:',
            shares,
        ]
    if facts['missing']:
        parts.append(f'NOT FINISHED: {"; ".join(facts["missing"])}.')
    # The end of its log was shown when it failed.
    parts += [f'FAILED: {f.splitlines()[0]}.' for f in facts['failures']]
    seeds = ' '.join(map(str, facts['seeds']))
    parts += [
        ' '.join([f'Seeds: {seeds}.', *origin(results)]),
        f'```shell\n{facts["command"]}\n```',
    ]
    compared = Compared('', rows, baseline, facts['metric'])
    if compared.rows:
        picture = io.BytesIO()
        differences_figure([compared]).savefig(picture, format='png')
        write_atomically(folder / DIFFERENCES, picture.getvalue())
        parts.append(f'![Differences]({DIFFERENCES})')
    if results:
        parts.append('![Curves](curves.png)')
    text = '\n\n'.join(parts) + '\n'
    write_atomically(folder / 'ablation.md', text.encode())
    results = [_wherever_it_lies(result, folder) for result in results]
    write_json(
        folder / 'ablation.json', dict(facts, rows=rows, results=results)
    )
    return text


def _wherever_it_lies(result: dict, folder: Path) -> dict:
    """A result whose checkpoint is named as seen from the folder."""
    path, folder = Path(result.get('checkpoint', '')), folder.absolute()
    if folder not in path.parents:
        return result
    return dict(result, checkpoint=path.relative_to(folder).as_posix())
