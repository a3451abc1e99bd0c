"""The page on the runs: what they are, their scores, their settings."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from mmengine.config import Config

from mmrkkd.evaluation.metric_units import scale_of, unit_of
from mmrkkd.registry import type_name

from .differences import difference_sentence
from .measurements import AP50
from .page import Section
from .runs import firsts
from .surroundings import origin, versions
from .tables import html_table, plus_minus
from .training_run import Run

NOT_PAIRED = (
    'One seed each: an interval over seeds needs at least two, so it is not '
    'known whether another seed would repeat the difference.'
)


def summary_section(
    runs: Sequence[Run],
    rows: Sequence[dict],
    baseline: str,
    metric: str | None,
    unfinished: Sequence[Path],
) -> Section:
    """What was trained, and what the differences say.

    Args:
        runs: The runs.
        rows: Of :func:`mmrkkd.evaluation.summary.summarize`; one with
            ``compared`` gets a sentence.
        baseline: Label of the baseline.
        metric: Log key; None where nothing was validated.
        unfinished: Folders of cells without a result.
    """
    compared = [row for row in rows if row['compared']]
    findings = [difference_sentence(row, baseline, metric) for row in compared]
    if not findings:
        findings = ['No two methods are compared, so no difference is given.']
    facts = [*_trained(runs), *_origin(runs)]
    parts = [
        *(f'<p class="finding">{escape(text)}</p>' for text in findings),
        _facts(facts),
    ]
    if unfinished:
        folders = ', '.join(
            f'{path.parent.name}/{path.name}' for path in unfinished
        )
        parts.append(
            '<p class="warning">Not finished, and left out: '
            f'{escape(folders)}.</p>'
        )
    faults = [fault for run in runs for fault in run.log_faults]
    if faults:
        parts.append(
            '<p class="warning">Left out, as it cannot be read: '
            f'{escape("; ".join(faults))}.</p>'
        )
    return Section('summary', 'Summary', '\n'.join(parts))


def _trained(runs: Sequence[Run]) -> list[tuple[str, str]]:
    facts = []
    for run in firsts(runs).values():
        config = run.config
        model = config.model.get('student', config.model)
        losses = config.model.get('losses') if run.distils else None
        losses = [losses] if isinstance(losses, dict) else losses
        text = _model(model)
        if losses:
            names = ' + '.join(type_name(loss) for loss in losses)
            text += f', distilled with {names}'
        facts.append((run.label, f'{text}, {_length(config)}'))
    taught = [run for run in runs if run.distils]
    teachers = dict.fromkeys(
        f'{_teacher(run.config.model.teacher)}, '
        f'{Path(run.config.model.teacher.checkpoint).name}'
        for run in taught
    )
    if teachers:
        facts.append(('taught by', '; '.join(teachers)))
    places = runs[0].data.get('annotations') or runs[0].data.get('images')
    if places:
        facts.append(('validated on', ', '.join(map(str, places))))
    return facts


def _model(model: dict) -> str:
    backbone = model.get('backbone') or {}
    depth = backbone.get('depth', '')
    inside = f'{type_name(backbone)} {depth}'.strip()
    return f'{type_name(model)} ({inside})' if inside else type_name(model)


def _teacher(teacher: dict) -> str:
    config = teacher.get('config')
    if isinstance(config, dict):
        return _model(config.get('model', config))
    return Path(str(config)).stem


def _length(config: Config) -> str:
    train = config.get('train_cfg') or {}
    if train.get('max_epochs'):
        return f'{train["max_epochs"]} epochs'
    return f'{train.get("max_iters")} iterations'


def _origin(runs: Sequence[Run]) -> list[tuple[str, str]]:
    facts = []
    for line in origin([run.result for run in runs]):
        name, found, text = line.partition(': ')
        text = text.removesuffix('.')
        facts.append((name, text) if found else ('note', line))
    if not any(run.result.get('attempts') for run in runs):
        facts.append(('versions', 'not recorded with these runs'))
    made = ', '.join(f'{name} {text}' for name, text in versions().items())
    return [*facts, ('this page', f'made with {made}')]


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    lines = ''.join(
        f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>'
        for name, text in facts
    )
    return f'<dl class="facts">{lines}</dl>'


def runs_section(
    runs: Sequence[Run],
    rows: Sequence[dict],
    baseline: str,
    metric: str | None,
) -> Section:
    """The methods with their differences, and each run.

    Args:
        runs: The runs.
        rows: See :func:`summary_section`.
        baseline: Label of the baseline.
        metric: Log key; None where nothing was validated.
    """
    if metric is None:
        return Section(
            'runs',
            'Runs',
            '<p>No run was ever validated: there are no scores.</p>'
            + _each_run(runs),
        )
    scale, unit = scale_of(metric), unit_of(metric)
    detection = any(AP50 in row['scores'] for row in rows)
    resampled = any(row['over_images'] for row in rows)
    head = ['method', 'seeds', unit, *['AP50'] * detection]
    head += [
        f'minus {baseline}',
        '95 % over seeds',
        'by seed',
        *['95 % over images'] * resampled,
    ]
    head += ['tau', 'same first class', 'KL', 'minutes']
    lines = [_line(row, scale, detection, resampled) for row in rows]
    notes = [
        f'{metric}{" in percent" if scale == 100 else ""} of the last '
        'validation; mean ± sample standard deviation over the seeds.',
        "Differences are paired: by seed, with the interval of Student's t; "
        'over images, 1.96 standard errors of bootstrap samples that are the '
        'same for all runs.',
        'Tau, same first class and KL: the last checkpoint against the '
        'teacher on held-out data.',
    ]
    if all(len(row['seeds']) < 2 for row in rows):
        notes.append(NOT_PAIRED)
    return Section(
        'runs',
        'Runs',
        html_table(head, lines, sortable=True)
        + ''.join(f'<p class="note">{escape(note)}</p>' for note in notes)
        + _each_run(runs),
    )


def _line(
    row: dict, scale: float, detection: bool, resampled: bool
) -> list[str]:
    found, images = row['difference'], row['over_images']
    half = found and found['half_width']
    minutes = row['seconds']['mean']
    return [
        row['label'],
        str(len(row['seeds'])),
        plus_minus(row['last'], 2, scale),
        *[plus_minus(row['scores'].get(AP50, {}), 2, 100)] * detection,
        f'{scale * found["mean"]:+.2f}' if found else '-',
        '-'
        if half is None
        else _interval(
            scale * (found['mean'] - half), scale * (found['mean'] + half)
        ),
        ' '.join(f'{scale * v:+.2f}' for v in found['by_seed'].values())
        if found
        else '-',
        *[_interval(images['low'][0], images['high'][0]) if images else '-']
        * resampled,
        plus_minus(row['tau'], 3),
        plus_minus(row['top1_agreement'], 3),
        plus_minus(row['kl'], 3),
        '-' if minutes is None else f'{minutes / 60:.1f}',
    ]


def _interval(low: float, high: float) -> str:
    return f'{low:+.2f} to {high:+.2f}'


def _each_run(runs: Sequence[Run]) -> str:
    lines = []
    for run in runs:
        record = run.record if run.metric else {}
        scale = scale_of(run.metric) if run.metric else 1
        lines.append(
            [
                run.title,
                *(
                    f'{scale * record[name]:.2f}' if record else '-'
                    for name in ('last', 'best')
                ),
                str(record.get('epochs', '-')),
                str(run.folder),
            ]
        )
    table = html_table(
        ['run', 'last', 'best', 'validated at', 'folder'], lines
    )
    return f'<details><summary>Each run</summary>{table}</details>'


def settings_section(runs: Sequence[Run]) -> Section:
    """The config of the first run of each label."""
    parts = [
        f'<details><summary>{escape(run.title)}</summary>'
        f'<pre tabindex="0">{escape(run.config_file.read_text())}</pre>'
        '</details>'
        for run in firsts(runs).values()
    ]
    return Section('settings', 'Settings', '\n'.join(parts))
