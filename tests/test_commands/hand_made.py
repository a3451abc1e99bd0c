"""Logits and runs so small that a figure's numbers can be done by hand."""

import json
from argparse import Namespace

import numpy as np
from made_up_runs import by_hand

from mmrkkd.report.matched_logits import MatchedLogits
from mmrkkd.report.runs import find_runs
from mmrkkd.report.selection import Selection

NAMES = ['cat', 'dog', 'fish', 'owl']
METRIC = 'accuracy/top1'


def matched(teacher, labels=None, boxes=None, **students):
    """Of white images, each sample one."""
    teacher = np.array(teacher, float)
    samples = [f'image {row}' for row in range(len(teacher))]
    white = np.full((8, 8, 3), 255, np.uint8)
    return MatchedLogits(
        teacher,
        {label: np.array(z, float) for label, z in students.items()},
        np.array([-1] * len(teacher) if labels is None else labels),
        NAMES[: teacher.shape[1]],
        samples,
        dict.fromkeys(samples, white),
        boxes,
        'softmax',
    )


def options(**values):
    """A command line."""
    return Namespace(**values)


def run(folder, name, score=50.0, seed=0, losses=None, log=()):
    """A work directory with one validation; ``log`` stands before it."""
    model = dict(type='ImageClassifier')
    if losses is not None:
        model = dict(
            type='mmrkkd.KDClassifier',
            student=model,
            teacher=dict(config='teacher.py', checkpoint='teacher.pth'),
            losses=losses,
        )
    made = by_hand(folder, name, seed, score, model=model)
    (scalars,) = made.glob('*/vis_data/scalars.json')
    lines = [*log, {METRIC: score, 'step': 1}]
    scalars.write_text('\n'.join(map(json.dumps, lines)))
    return made


def sweep(folder, cells, seeds=(0, 1)):
    """Label to losses and score; seed s scores s more."""
    for label, (losses, score) in cells.items():
        for seed in seeds:
            made = run(
                folder / label, f'seed{seed}', score + seed, seed, losses
            )
            # A cell of an ablation.
            config = next(made.glob('*/vis_data/config.py'))
            (made / 'cell_config.py').write_text(config.read_text())
            result = dict(label=label, seed=seed, metric=METRIC)
            (made / 'result.json').write_text(json.dumps(result))
    return folder


def selection(*folders):
    """Of the runs below them."""
    return Selection(find_runs(folders)[0])
