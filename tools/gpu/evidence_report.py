"""The tables of ``evidence.py``, written again as each training ends."""

import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import ablation
import numpy as np
import torch
from experiments.cells import Cell
from experiments.detection import PREDICTIONS, bootstraps, write_arrays
from experiments.records import last_checkpoint, result_of
from experiments.report import DIFFERENCES, write_report

from mmrkkd.checkpoint import read_checkpoint
from mmrkkd.checkpoint.atomic import write_atomically, write_json
from mmrkkd.evaluation.metric_units import scale_of
from mmrkkd.evaluation.summary import summarize
from mmrkkd.report.measurements import AP50, DETECTION
from mmrkkd.report.tables import markdown_table, plus_minus

from .arms import ALONE
from .comparisons import Comparison
from .halved import halved_weights
from .schedule import DONE, Task

PROCESSES = 16
REHEARSAL = '**A rehearsal: trained on some images only.** '
TEACHER_NOTE = (
    'Teacher: {scores}. Students: {epochs} epochs, the same for all.'
)


def write_tables(
    comparison: Comparison, out: Path, command: str, samples: int = 0
) -> None:
    """Writes ``NAME.md``, ``NAME.json`` and pictures ``NAME*.png``.

    Args:
        comparison: Whatever of it is finished.
        out: Where.
        command: What was typed.
        samples: Bootstrap samples of the validation images. Defaults to 0,
            none.
    """
    students = [t for t in comparison.tasks if t is not _teacher(comparison)]
    finished = [task.cell for task in students if task.state == DONE]
    results = [result_of(cell) for cell in finished]
    found = bootstraps(finished, samples) if samples else {}
    labels = comparison.labels
    baseline = ALONE if ALONE in labels else labels[0]
    folder = comparison.folder
    if finished:
        curves = folder / 'curves.png'
        ablation.draw(finished, curves, comparison.metric)
        write_atomically(out / f'{comparison.name}.png', curves.read_bytes())
    facts = dict(
        baseline=baseline,
        metric=comparison.metric,
        seeds=sorted(comparison.seeds),
        missing=[t.cell.title for t in students if t.state != DONE],
        failures=[
            f'{t.cell.title}: {t.failure}'
            for t in comparison.tasks
            if t.failure
        ],
        command=command,
    )
    rows = summarize(labels, results, baseline, found)
    text = write_report(folder, rows, results, facts)
    text = text.replace('(curves.png)', f'({comparison.name}.png)')
    if f'({DIFFERENCES})' in text:
        picture = f'{comparison.name}_{DIFFERENCES}'
        write_atomically(out / picture, (folder / DIFFERENCES).read_bytes())
        text = text.replace(f'({DIFFERENCES})', f'({picture})')
    title = f'# Distilling on {comparison.name}\n\n'
    title += REHEARSAL * comparison.is_rehearsal + comparison.title
    text = text.replace('# Ablation', f'{title} {_teacher_note(comparison)}')
    text += ''.join(
        f'\n{part}\n'
        for part in (
            _minus_kd(labels, results, found, comparison.metric),
            _unfinished(students, comparison.metric),
            _steps(comparison.tasks),
        )
        if part
    )
    write_atomically(out / f'{comparison.name}.md', text.encode())
    unfinished = [
        dict(title=t.cell.title, state=t.state, **t.last_scores())
        for t in comparison.tasks
        if t.state != DONE
    ]
    teacher = _teacher(comparison)
    write_json(
        out / f'{comparison.name}.json',
        dict(
            facts,
            rows=rows,
            results=results,
            unfinished=unfinished,
            teacher=result_of(teacher.cell) if teacher else {},
        ),
    )


def keep_files(comparison: Comparison, out: Path) -> None:
    """What was found on each image, and the teacher in half precision."""
    arrays = {}
    for task in comparison.tasks:
        path = task.cell.folder / PREDICTIONS
        if task.state == DONE and path.is_file():
            name = f'{task.cell.method.label}-{task.cell.seed}'
            with np.load(path) as found:
                arrays.update({f'{name}-{k}': found[k] for k in found.files})
    if arrays:
        write_arrays(out / f'{comparison.name}_predictions.npz', **arrays)
    teacher = _teacher(comparison)
    if teacher is not None and teacher.state == DONE:
        content = read_checkpoint(last_checkpoint(teacher.cell.folder))
        halved = dict(
            state_dict=halved_weights(content['state_dict']),
            meta=dict(
                dataset_meta=content.get('meta', {}).get('dataset_meta')
            ),
        )
        content = io.BytesIO()
        torch.save(halved, content)
        path = out / f'{comparison.name}_teacher.pth'
        write_atomically(path, content.getvalue())


def bootstrap_in_parallel(comparison: Comparison, samples: int) -> None:
    """Draws each training's samples in a process of its own; they are kept."""
    cells = [task.cell for task in comparison.tasks if task.state == DONE]
    if cells:
        with ProcessPoolExecutor(min(len(cells), PROCESSES)) as pool:
            list(pool.map(_bootstrap, cells, [samples] * len(cells)))


def _bootstrap(cell: Cell, samples: int) -> None:
    bootstraps([cell], samples)


def _teacher(comparison: Comparison) -> Task | None:
    if comparison.checkpoint is None and comparison.tasks:
        return comparison.tasks[0]
    return None


def _teacher_note(comparison: Comparison) -> str:
    teacher = _teacher(comparison)
    if teacher is None:
        text = f'{comparison.checkpoint.name}, trained before'
    else:
        text = teacher.state
        if teacher.state == DONE:
            text = _scores(result_of(teacher.cell), comparison.metric)
        text += f', {comparison.teacher_epochs} epochs'
    return TEACHER_NOTE.format(scores=text, epochs=comparison.epochs)


def _scores(scores: dict, metric: str) -> str:
    """AP and AP50 in percent, or the metric."""
    if not scores:
        return 'no validation'
    if not metric.startswith(DETECTION):
        return f'{metric} {scale_of(metric) * scores["last"]:.2f}'
    half = scores['scores'].get(AP50) or 0.0
    return f'AP {100 * scores["last"]:.1f}, AP50 {100 * half:.1f}'


def _minus_kd(
    labels: Sequence[str], results: Sequence[dict], found: dict, metric: str
) -> str:
    """The differences to KL alone; '' without it."""
    if not any(result['label'] == 'kd' for result in results):
        return ''
    lines = []
    for row in summarize(labels, results, 'kd', found):
        seeds, images = row['difference'], row['over_images']
        if not seeds:
            continue
        line = [
            row['label'],
            plus_minus(
                seeds, 2, scale_of(metric), 'standard_error', signed=True
            ),
            '-',
        ]
        if images:
            line[-1] = f'{images["low"][0]:+.2f} to {images["high"][0]:+.2f}'
        lines.append(line)
    head = ['minus kd', 'mean ± s.e. over seeds', '95 % over images']
    return markdown_table(head, lines) if lines else ''


def _unfinished(tasks: Sequence[Task], metric: str) -> str:
    lines = []
    for task in tasks:
        if task.state != DONE:
            scores = task.last_scores()
            at = f'epoch {scores["epochs"]}' if scores else '-'
            lines.append(
                [
                    task.cell.title,
                    task.state,
                    f'{task.epochs:.1f} of {task.cell.epochs}',
                    at,
                    _scores(scores, metric),
                ]
            )
    head = ['unfinished', 'state', 'epochs', 'last validation', 'scores']
    return markdown_table(head, lines) if lines else ''


def _steps(tasks: Sequence[Task]) -> str:
    known = [
        f'{t.cell.method.label}-{t.cell.seed} {1000 * t.step_seconds:.0f}'
        for t in tasks
        if t.step_seconds is not None
    ]
    return f'Milliseconds a step, at its end: {", ".join(known)}.' * bool(
        known
    )
