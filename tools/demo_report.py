"""The demo's table: as Markdown, as JSON, and whether it may stand."""

from mmrkkd.checkpoint.atomic import write_json
from mmrkkd.report.measurements import AP50
from mmrkkd.report.tables import markdown_table, number

# Held-out COCO AP50. A detector with perfect boxes that guesses among 24
# classes reaches about 1/24 = 0.04.
TEACHER_AP50 = 0.5
STUDENT_AP50 = 0.2

READING = (
    'Minus alone: the mean over the seeds of the difference in AP to the '
    'student alone of the same seed, with its 95 % interval, 1.96 standard '
    'errors of {samples} bootstrap samples of the images, and the differences '
    'seed by seed. An interval without 0 says that the choice of images does '
    'not explain the difference; whether other seeds would repeat it, {seeds} '
    'cannot say. Drawn shapes are no photos: how methods compare on '
    'your data is for your data to tell.'
)
PLAIN = (
    'A checkpoint distilled with KL + Kendall was scored once more with '
    'the plain student config, by tools/test.py: same AP.'
)
QUICK = (
    'Quick run: a few iterations, no result may be read from it, and the '
    'quality is not checked.'
)


def shortcomings(rows):
    """What is too weak to call the demo a success, as sentences.

    Args:
        rows: The teacher's row first, then the students'.
    """
    teacher, *students = rows
    found = []
    if not ap50_of(teacher) >= TEACHER_AP50:
        found.append(
            f'the teacher is not trained: AP50 {ap50_of(teacher):.3f} '
            f'on held-out images, at least {TEACHER_AP50} expected'
        )
    found += [
        f'"{row["title"]}" is close to chance: AP50 {ap50_of(row):.3f} on '
        f'held-out images, at least {STUDENT_AP50} expected'
        for row in students
        if not ap50_of(row) >= STUDENT_AP50
    ]
    return found


def ap50_of(row):
    """Mean AP50 over the seeds, in [0, 1]."""
    return row['scores'][AP50]['mean']


def table(rows):
    """The rows of ``summarize`` (see write_report) as a Markdown table."""
    return markdown_table(
        [
            'model',
            'seeds',
            'AP',
            'AP50',
            'minus alone',
            '95 % over images',
            'by seed',
            'tau to the teacher',
            'training, s',
        ],
        [
            [
                row['title'],
                str(len(row['seeds'])),
                number(row['last']['mean'] * 100, 1),
                number(ap50_of(row) * 100, 1),
                *_difference(row),
                number(row['tau']['mean'], 3),
                number(row['seconds']['mean'], 0),
            ]
            for row in rows
        ],
    )


def _difference(row):
    if row['over_images'] is None:
        return ['-', '-', '-']
    found = row['over_images']
    return [
        f'{found["mean"][0]:+.1f}',
        f'{found["low"][0]:+.1f} to {found["high"][0]:+.1f}',
        ' '.join(
            f'{100 * value:+.1f}'
            for value in row['difference']['by_seed'].values()
        ),
    ]


def write_report(folder, rows, facts):
    """Writes ``report.json`` and ``report.md``; returns the latter's text.

    Args:
        folder: Where.
        rows: Those of ``mmrkkd.evaluation.summary.summarize``, with ``title``.
        facts: What else belongs in the JSON: ``surroundings``, seed,
            recipe, commands, samples, compared (images).
    """
    where, seeds = facts['surroundings'], len(rows[-1]['seeds'])
    parts = [
        '# The demo',
        table(rows),
        f'AP and AP50 in percent on {facts["recipe"]["val"]} held-out images '
        '(COCO evaluation). Tau: mean exact Kendall tau-b between the class '
        'scores of student and teacher on the ground-truth '
        f'boxes of the first {facts["compared"]} of them, in [-1, 1]. '
        'Training: wall time of each, two side by side.',
        READING.format(
            samples=facts['samples'],
            seeds=f'{seeds} seed{"s" * (seeds != 1)}',
        ),
        PLAIN,
        *[QUICK] * facts['quick'],
        *(f'NOT GOOD ENOUGH: {found}.' for found in facts['shortcomings']),
        f'Seed {facts["seed"]}, commit {where["commit"]}, '
        f'{where["hardware"]["processor"]} with '
        f'{where["hardware"]["cores"]} cores, device '
        f'{where["hardware"]["device"]}, {facts["seconds"]:.0f} s in all.',
        '\n'.join(['```shell', *facts['commands'], '```']),
        '![Detections](detections.png)',
        '![Curves](curves.png)',
    ]
    text = '\n\n'.join(parts) + '\n'
    (folder / 'report.md').write_text(text)
    write_json(folder / 'report.json', dict(rows=rows, **facts))
    return text
