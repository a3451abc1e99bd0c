"""The demo's table: as Markdown, as JSON, and whether it may stand."""

from experiments.records import AP50
from experiments.report import number

from mmrkkd.checkpoint.atomic import write_json
from mmrkkd.report import markdown_table

# Held-out COCO AP50. A detector with perfect boxes that guesses among 24
# classes reaches about 1/24 = 0.04.
TEACHER_AP50 = 0.5
STUDENT_AP50 = 0.2

CAVEAT = (
    'This demo proves that the machinery works: that a teacher and students '
    'train, that both terms flow, that the checkpoints are plain students. '
    'It proves nothing about the method: one seed, a few hundred iterations '
    'and a few hundred drawn images decide differences of some points.'
)
PLAIN = (
    'The checkpoint distilled with KL + Kendall was scored once more with '
    'the plain student config, by tools/test.py: same AP.'
)
QUICK = (
    'Quick run: a few iterations, no result may be read from it, and the '
    'quality is not checked.'
)


def row(title, result):
    """A model's row, from the result of its training.

    Args:
        title: What it is called.
        result: See ``experiments.records.result_of``.
    """
    return dict(
        name=result['label'],
        title=title,
        ap=result['last'],
        ap50=result['scores'][AP50],
        seconds=round(result['seconds'], 1),
        **result['agreement'],
    )


def shortcomings(rows):
    """What is too weak to call the demo a success, as sentences.

    Args:
        rows: The teacher's row first, then the students'.
    """
    teacher, *students = rows
    found = []
    if not teacher['ap50'] >= TEACHER_AP50:
        found.append(
            f'the teacher is not trained: AP50 {teacher["ap50"]:.3f} '
            f'on held-out images, at least {TEACHER_AP50} expected'
        )
    found += [
        f'"{row["title"]}" is close to chance: AP50 {row["ap50"]:.3f} on '
        f'held-out images, at least {STUDENT_AP50} expected'
        for row in students
        if not row['ap50'] >= STUDENT_AP50
    ]
    return found


def table(rows):
    """The rows as a Markdown table."""
    return markdown_table(
        [
            'model',
            'AP',
            'AP50',
            'tau to the teacher',
            'same top class',
            'training, s',
        ],
        [
            [
                row['title'],
                number(row['ap'] * 100, 1),
                number(row['ap50'] * 100, 1),
                number(row.get('tau'), 3),
                number(row.get('top1_agreement'), 3),
                number(row['seconds'], 0),
            ]
            for row in rows
        ],
    )


def write_report(folder, rows, facts):
    """Writes ``report.json`` and ``report.md``; returns the latter's text.

    Args:
        folder: Where.
        rows: Those of :func:`row`.
        facts: What else belongs in the JSON: ``surroundings``, seed,
            recipe, commands.
    """
    where = facts['surroundings']
    parts = [
        '# The demo',
        table(rows),
        f'AP and AP50 in percent on {facts["recipe"]["val"]} held-out images '
        '(COCO evaluation). Tau: mean exact Kendall tau-b between the class '
        'scores of student and teacher on their ground-truth boxes, in '
        '[-1, 1].',
        CAVEAT,
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
