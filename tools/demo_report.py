"""The demo's table: as Markdown, as JSON, and whether it may stand."""

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

# Held-out COCO AP50. A detector with perfect boxes that guesses among 24
# classes reaches about 1/24 = 0.04.
TEACHER_AP50 = 0.5
STUDENT_AP50 = 0.2

PACKAGES = (
    'mmrkkd',
    'torch',
    'torchvision',
    'onedl-mmengine',
    'mmengine',
    'onedl-mmcv',
    'mmcv',
    'onedl-mmdetection',
    'mmdet',
    'onedl-mmpretrain',
    'mmpretrain',
    'numpy',
)

CAVEAT = (
    'This demo proves that the machinery works: that a teacher and students '
    'train, that both terms flow, that the checkpoints are plain students. '
    'It proves nothing about the method: one seed, a few hundred iterations '
    'and a few hundred drawn images decide differences of some points.'
)


def surroundings(root):
    """Versions, commit and hardware, for the record."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    hardware = dict(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(
            os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30, 1
        ),
        device=(
            torch.cuda.get_device_name()
            if torch.cuda.is_available()
            else 'CPU'
        ),
    )
    return dict(
        versions=versions,
        commit=_commit(root),
        hardware=hardware,
        python=platform.python_version(),
        system=platform.platform(),
    )


def _processor():
    try:
        with open('/proc/cpuinfo') as file:
            names = [
                line.split(':', 1)[1].strip()
                for line in file
                if line.startswith('model name')
            ]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _commit(root):
    """The commit of the checkout, with '+' where files differ from it."""

    def git(*arguments):
        return subprocess.run(
            ['git', '-C', str(root), *arguments],
            text=True,
            capture_output=True,
            check=True,
        ).stdout.strip()

    try:
        return git('rev-parse', 'HEAD') + '+' * bool(
            git('status', '--porcelain')
        )
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


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
    head = [
        'model',
        'AP',
        'AP50',
        'tau to the teacher',
        'same top class',
        'training, s',
    ]
    lines = [
        [
            row['title'],
            _number(row['ap'] * 100, 1),
            _number(row['ap50'] * 100, 1),
            _number(row.get('tau'), 3),
            _number(row.get('top1_agreement'), 3),
            f'{row["seconds"]:.0f}',
        ]
        for row in rows
    ]
    widths = [
        max(map(len, column)) for column in zip(head, *lines, strict=True)
    ]
    rule = [
        '-' * widths[0],
        *('-' * (width - 1) + ':' for width in widths[1:]),
    ]

    def line(cells):
        first, *others = zip(cells, widths, strict=True)
        return (
            '| '
            + ' | '.join(
                [
                    first[0].ljust(first[1]),
                    *(cell.rjust(width) for cell, width in others),
                ]
            )
            + ' |'
        )

    return '\n'.join(map(line, [head, rule, *lines]))


def _number(value, digits):
    return '-' if value is None else f'{value:.{digits}f}'


def write_report(folder, rows, facts):
    """Writes ``report.json`` and ``report.md``; returns the latter's text.

    Args:
        folder: Where.
        rows: Dicts with title, ap, ap50 (in [0, 1]), seconds, and for
            students tau and top1_agreement.
        facts: What else belongs in the JSON: ``surroundings``, seed,
            recipe, commands.
    """
    problems = facts['shortcomings']
    where = facts['surroundings']
    lines = [
        '# The demo',
        '',
        table(rows),
        '',
        f'AP and AP50 in percent on {facts["recipe"]["val"]} held-out images '
        '(COCO evaluation). Tau: mean exact Kendall tau-b between the class '
        'scores of student and teacher on their ground-truth boxes, in '
        '[-1, 1].',
        '',
        CAVEAT,
        '',
    ]
    lines += [
        'The checkpoint distilled with KL + Kendall was scored once '
        'more with the plain student config, by tools/test.py: same '
        'AP.',
        '',
    ]
    if facts['quick']:
        lines += [
            'Quick run: a few iterations, no result may be read from '
            'it, and the quality is not checked.',
            '',
        ]
    lines += [f'NOT GOOD ENOUGH: {problem}.' for problem in problems]
    lines += [''] * bool(problems)
    lines += [
        f'Seed {facts["seed"]}, commit {where["commit"]}, '
        f'{where["hardware"]["processor"]} with '
        f'{where["hardware"]["cores"]} cores, device '
        f'{where["hardware"]["device"]}, {facts["seconds"]:.0f} s in all.',
        '',
        '```shell',
        *facts['commands'],
        '```',
        '',
        '![Detections](detections.png)',
        '',
        '![Curves](curves.png)',
        '',
    ]
    text = '\n'.join(lines)
    (folder / 'report.md').write_text(text)
    (folder / 'report.json').write_text(
        json.dumps(dict(rows=rows, **facts), indent=2) + '\n'
    )
    return text
