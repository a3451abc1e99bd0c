"""From nothing to a table: draw data, train a teacher, distil a student.

    python tools/demo.py

Draws a data set, trains a Faster R-CNN teacher (ResNet-50) and the same
small student (MobileNetV2) alone, with KL, and with KL + Kendall's tau, each
with two seeds. Then compares them on held-out images. Everything lands in
the work directory; what is finished there is not done again.
"""

import argparse
import hashlib
import re
import sys
import time
from pathlib import Path

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import demo_report
from experiments import ROOT, ExperimentError
from experiments.cells import Cell, read_method, reference
from experiments.detection import PREDICTIONS, bootstraps, coco_metric
from experiments.methods import Method
from experiments.pool import run_cells
from experiments.processes import ended_like_interrupted, run_to_end
from experiments.progress import Progress
from experiments.records import clear_folder, log_of, result_of

from mmrkkd.commands.report import report
from mmrkkd.datasets import Recipe, make_demo_shapes
from mmrkkd.evaluation.kept_predictions import kept_detections
from mmrkkd.evaluation.summary import summarize
from mmrkkd.report import Curve, draw_curves, points_of, surroundings
from mmrkkd.report.measurements import AP, measurements
from mmrkkd.report.runs import RESULT
from mmrkkd.report.surroundings import versions

CONFIGS = ROOT / 'configs' / 'demo'
# Label, config, title and milliseconds of an iteration on one core.
TEACHER = ('teacher', 'faster-rcnn_r50_demo.py', 'Teacher (ResNet-50)', 1200)
STUDENTS = (
    (
        'student',
        'faster-rcnn_mv2_demo.py',
        'Student alone (MobileNetV2)',
        550,
    ),
    ('kd', 'kd_r50_mv2_demo.py', 'Student, KL', 850),
    ('rkkd', 'rkkd_r50_mv2_demo.py', 'Student, KL + Kendall', 850),
)
# What of the package can change the result of a training.
PLAIN_SOURCES = ('datasets',)
DISTILLING_SOURCES = ('datasets', 'distillers', 'losses', 'ops')

PANELS = (
    Curve('Task loss (classes and boxes)', ('loss_cls', 'loss_bbox')),
    Curve('KL term (loss_kd)', ('loss_kd',)),
    Curve('Ranking term (loss_rank)', ('loss_rank',)),
    Curve('Kendall tau to the teacher, sampled boxes', ('kd/tau',)),
)
PICTURED_IMAGES = 5
SCORE = 0.3
# Of the held-out images: as many as take seconds.
SAMPLES = 300
# Data, teacher and students that nothing was chosen by; choices.yml has
# others.
SEED = 20
# Each student is trained with so many seeds.
SEEDS = 2
# Side by side, one thread each: two small trainings get more done so than
# one after the other on two threads.
JOBS = 2


def parse_args(argv=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--work-dir',
        default='work_dirs/demo',
        help='where results go (default: %(default)s)',
    )
    parser.add_argument(
        '--data',
        default='data/demo_shapes',
        help='where the images go (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=SEED,
        help='of the data, the teacher and the first students (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--fresh', action='store_true', help='repeat stages that are finished'
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='a minute: checks that it runs, not how well',
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Runs the demo; returns the exit code."""
    args = parse_args(argv)
    start = time.time()
    folder = Path(args.work_dir).resolve()
    data = Path(args.data).resolve()
    counts = {}
    if args.quick:
        folder, data = folder / 'quick', folder / 'quick' / 'data'
        counts = dict(train=48, val=24)
    try:
        recipe = Recipe(seed=args.seed, **counts)
        folder.mkdir(parents=True, exist_ok=True)
        make_demo_shapes(data, recipe)
        cells = make_cells(folder, data, recipe, args.quick)
        with ended_like_interrupted():
            train(cells, args.fresh)
            check_plain_student(folder, cells[-1], data)
        rows = summary(cells)
        draw(folder, cells)
    except KeyboardInterrupt:
        print(
            '\nInterrupted. The same command goes on with the stage that '
            'was running.',
            file=sys.stderr,
        )
        return 130
    except (ExperimentError, OSError, ValueError) as error:
        print(f'\ndemo: {error}', file=sys.stderr)
        return 1
    problems = [] if args.quick else demo_report.shortcomings(rows)
    text = demo_report.write_report(
        folder,
        rows,
        dict(
            seed=args.seed,
            quick=args.quick,
            recipe=recipe.record(),
            seconds=round(time.time() - start, 1),
            samples=SAMPLES,
            compared=min(recipe.val, cells[0].config.compared_images),
            commands=[cell.by_hand for cell in cells],
            shortcomings=problems,
            surroundings=surroundings(ROOT),
        ),
    )
    print(text)
    print(f'Report and pictures: {folder}')
    print(f'Page to look at: {report([folder], samples=SAMPLES)}')
    return 1 if problems else 0


def make_cells(folder, data, recipe, quick=False):
    """The trainings: the teacher's, then all students of the first seed."""
    options = {'data_root': f'{data}/'}
    if quick:
        options.update(
            {'train_cfg.max_iters': 6, 'default_hooks.logger.interval': 2}
        )
    teacher = make_cell(TEACHER, folder, data, recipe, options, recipe.seed)
    cells = [teacher]
    checkpoint = teacher.folder / f'iter_{teacher.epochs}.pth'
    for seed in range(recipe.seed, recipe.seed + (1 if quick else SEEDS)):
        for student in STUDENTS:
            own = {}
            if student[0] != 'student':
                own['model.teacher.checkpoint'] = str(checkpoint)
            cells.append(
                make_cell(
                    student, folder, data, recipe, dict(options, **own), seed
                )
            )
    return cells


def make_cell(stage, folder, data, recipe, options, seed):
    """One training, done again whenever something of it has changed."""
    label, config, title, cost = stage
    method = Method(label, CONFIGS / config, options, title, cost)
    config = read_method(method)
    distils = 'teacher' in config.model
    inputs = dict(
        data=recipe.record(),
        versions=versions(),
        sources=content_of(DISTILLING_SOURCES if distils else PLAIN_SOURCES),
    )
    place = folder / label
    if label != TEACHER[0]:
        place /= f'seed{seed}'
    return Cell(method, seed, place, config, inputs, (folder, data))


def content_of(folders):
    """Hash of the sources in some folders of the package.

    Raises:
        ExperimentError: there is none in one of them.
    """
    digest = hashlib.sha256()
    for folder in folders:
        paths = [
            path
            for path in sorted((ROOT / 'mmrkkd' / folder).rglob('*'))
            if path.suffix in ('.py', '.c', '.h')
        ]
        if not paths:
            raise ExperimentError(f'mmrkkd/{folder} holds no sources')
        for path in paths:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def train(cells, fresh=False):
    """Brings the teacher and the students to their ends.

    The students that need no teacher are trained while it is.

    Raises:
        ExperimentError: a training failed; the message ends with its log.
    """
    students = cells[1:]
    alone = [c for c in students if 'teacher' not in c.config.model]
    progress = Progress(cells, JOBS)
    try:
        for some in ([cells[0], *alone], students):
            for cell in some:
                if some is not students or cell not in alone:
                    clear_folder(cell, fresh)
                    if not result_of(cell):
                        progress.write(f'$ {cell.by_hand}')
                elif not result_of(cell)['agreement']:
                    # Trained; there was no teacher to compare it with.
                    (cell.folder / RESULT).unlink()
            teacher = reference(some, 'rkkd')
            failures = run_cells(some, progress, AP, teacher, JOBS, 1)
            if failures:
                raise ExperimentError('\n\n'.join(failures))
    finally:
        progress.close()


def summary(cells):
    """A row for each model, see ``summarize``."""
    results = [
        dict(result_of(cell), **measurements(cell.folder, AP))
        for cell in cells
    ]
    titles = {cell.method.label: cell.method.title for cell in cells}
    rows = summarize(
        list(titles), results, STUDENTS[0][0], bootstraps(cells, SAMPLES)
    )
    for row in rows:
        row['title'] = titles[row['label']]
    # The teacher is no student with another recipe.
    rows[0].update(difference=None, over_images=None)
    return rows


def check_plain_student(folder, cell, data):
    """Scores the distilled checkpoint with the student's own config.

    Raises:
        ExperimentError: The AP is not the one that the training ended with.
    """
    log, result = folder / 'plain_student.log', result_of(cell)
    output = run_to_end(
        [
            ROOT / 'tools' / 'test.py',
            CONFIGS / STUDENTS[0][1],
            result['checkpoint'],
            '--work-dir',
            folder / 'plain_student',
            '--cfg-options',
            f'data_root={data}/',
        ],
        log,
    )
    values = re.findall(rf'{AP}: ([-\d.]+)', output)
    # None at all: no object was found.
    if float(values[-1] if values else 0.0) != result['last']:
        raise ExperimentError(
            f'with the plain student config the distilled checkpoint has AP '
            f'{values[-1:]}, in its training it had {result["last"]}; see '
            f'{log}'
        )


def draw(folder, cells):
    """The two pictures."""
    from mmrkkd.report.detections import draw_detections
    from mmrkkd.report.examples import most_disputed, read_found, read_truths

    keys = {key for panel in PANELS for key in panel.keys}
    runs, columns = {}, {}
    metric = coco_metric(cells[0].config)
    truths = read_truths(
        metric['ann_file'],
        Path(cells[0].config.data_root)
        / cells[0].config.val_dataloader.dataset.data_prefix.img,
    )
    for cell in cells:
        log = log_of(cell.folder)
        runs.setdefault(cell.method.title, []).append(
            {key: points_of(log, key) for key in keys}
        )
        # Of several seeds the first.
        if cell.method.title not in columns:
            found = kept_detections(cell.folder / PREDICTIONS)
            columns[cell.method.title] = read_found(found, truths)
    draw_curves(folder / 'curves.png', runs, PANELS)
    shown = most_disputed(
        truths.objects, list(columns.values()), PICTURED_IMAGES, SCORE
    )
    draw_detections(
        folder / 'detections.png',
        [truths.files[index] for index in shown],
        [truths.objects[index] for index in shown],
        {
            title: [found[index] for index in shown]
            for title, found in columns.items()
        },
        truths.names,
        SCORE,
    )


if __name__ == '__main__':
    sys.exit(main())
