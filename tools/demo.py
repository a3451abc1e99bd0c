"""From nothing to a table: draw data, train a teacher, distil a student.

    python tools/demo.py

Draws a data set, trains a Faster R-CNN teacher (ResNet-50) and the same
small student (MobileNetV2) three times: alone, with KL, and with KL +
Kendall's tau. Then compares them on held-out images. Everything lands in
the work directory; what is finished there is not done again.
"""

import argparse
import re
import sys
import time
from pathlib import Path

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from demo_parts import models, report, stages
from demo_parts.progress import Progress
from demo_parts.stages import Stage

from mmrkkd.datasets import Recipe, make_demo_shapes
from mmrkkd.report import Curve, draw_curves, draw_detections, read_scalars

TEACHER = Stage(
    'teacher', 'Teacher (ResNet-50)', 'faster-rcnn_r50_demo.py', 240
)
ALONE = Stage(
    'student', 'Student alone (MobileNetV2)', 'faster-rcnn_mv2_demo.py', 100
)
KD = Stage('kd', 'Student, KL', 'kd_r50_mv2_demo.py', 150, distils=True)
RKKD = Stage(
    'rkkd', 'Student, KL + Kendall', 'rkkd_r50_mv2_demo.py', 150, distils=True
)
STAGES = (TEACHER, ALONE, KD, RKKD)
COMPARISON_COST = 60

PANELS = (
    Curve('Task loss (classes and boxes)', ('loss_cls', 'loss_bbox')),
    Curve('KL term (loss_kd)', ('loss_kd',)),
    Curve('Ranking term (loss_rank)', ('loss_rank',)),
    Curve('Kendall tau to the teacher, sampled boxes', ('kd/tau',)),
)
PICTURED_IMAGES = 5


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
        default=0,
        help='of data and training (default: %(default)s)',
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
        rows, commands = run(args, folder, data, recipe)
    except KeyboardInterrupt:
        print(
            '\nInterrupted. The same command goes on with the stage that '
            'was running.',
            file=sys.stderr,
        )
        return 130
    except (stages.StageError, OSError, ValueError) as error:
        print(f'\ndemo: {error}', file=sys.stderr)
        return 1
    problems = [] if args.quick else report.shortcomings(rows)
    text = report.write_report(
        folder,
        rows,
        dict(
            seed=args.seed,
            quick=args.quick,
            recipe=recipe.record(),
            seconds=round(time.time() - start, 1),
            commands=commands,
            shortcomings=problems,
            surroundings=report.surroundings(stages.ROOT),
        ),
    )
    print(text)
    print(f'Report and pictures: {folder}')
    return 1 if problems else 0


def run(args, folder, data, recipe):
    """All stages; returns the rows of the table and the commands."""
    progress = Progress([*(stage.cost for stage in STAGES), COMPARISON_COST])
    try:
        records, teacher = {}, {}
        for stage in STAGES:
            options = {'data_root': f'{data}/', 'randomness.seed': args.seed}
            if args.quick:
                options.update(
                    {
                        'train_cfg.max_iters': 6,
                        'default_hooks.logger.interval': 2,
                    }
                )
            if stage.distils:
                options['model.teacher.checkpoint'] = teacher['checkpoint']
            record = train(
                stage,
                folder / stage.name,
                options,
                progress,
                args.fresh,
                dict(
                    data=recipe.record(),
                    teacher=stage.distils and teacher['fingerprint'],
                ),
            )
            records[stage.name] = record
            teacher = records['teacher']
        progress.begin('comparison on held-out images, pictures')
        rows = compare(folder, records, progress)
        check_plain_student(folder, records[RKKD.name], rows[-1], data)
        draw(folder, records)
        progress.update(1)
    finally:
        progress.close()
    return rows, [records[stage.name]['command'] for stage in STAGES]


def train(stage, folder, options, progress, fresh, inputs):
    """Runs a stage unless it stands finished; returns its record."""
    inputs = dict(
        inputs, versions=report.surroundings(stages.ROOT)['versions']
    )
    key = stages.fingerprint(stage, options, inputs)
    if not fresh and stages.finished(folder, key):
        progress.skip(stage.title, 'finished earlier')
        return stages.read_record(folder)
    progress.begin(stage.title)
    progress.write(
        '$ ' + stages.shown(stages.train_command(stage, folder, options))
    )
    return stages.run_stage(stage, folder, options, key, progress.update)


def compare(folder, records, progress):
    """One row a model: AP from its log, agreement measured here."""
    rows = []
    for number, stage in enumerate(STAGES):
        record = records[stage.name]
        series = read_scalars(scalars_of(folder / stage.name))
        row = dict(
            name=stage.name,
            title=stage.title,
            ap=last_score(series, 'coco/bbox_mAP'),
            ap50=last_score(series, 'coco/bbox_mAP_50'),
            seconds=record['seconds'],
        )
        if stage is not TEACHER:
            row.update(
                models.agreement_of(folder / RKKD.name, record['checkpoint'])
            )
        rows.append(row)
        progress.update((number + 1) / (len(STAGES) + 2))
    return rows


def last_score(series, key):
    """The last value in a log; 0 if the model found no object at all.

    MMDetection then logs no score.
    """
    return series[key][-1][1] if key in series else 0.0


def check_plain_student(folder, record, row, data):
    """Scores the distilled checkpoint with the student's own config.

    Raises:
        StageError: The AP is not the one that the training ended with.
    """
    log = folder / 'plain_student.log'
    output = stages.run_logged(
        [
            sys.executable,
            'tools/test.py',
            f'configs/demo/{ALONE.config}',
            record['checkpoint'],
            '--work-dir',
            str(folder / 'plain_student'),
            '--cfg-options',
            f'data_root={data}/',
        ],
        log,
    )
    values = re.findall(r'coco/bbox_mAP: ([-\d.]+)', output)
    # None at all: no object was found, as in last_score.
    if float(values[-1] if values else 0.0) != row['ap']:
        raise stages.StageError(
            f'with the plain student config the distilled checkpoint has AP '
            f'{values[-1:]}, in its training it had {row["ap"]}; see {log}'
        )


def scalars_of(folder):
    """The log of the latest training in this folder."""
    return max(folder.glob('*/vis_data/scalars.json'))


def draw(folder, records):
    """The two pictures."""
    draw_curves(
        folder / 'curves.png',
        {
            stage.title: read_scalars(scalars_of(folder / stage.name))
            for stage in STAGES
        },
        PANELS,
    )
    config = models.read_config(folder / TEACHER.name)
    samples, images, truths, classes = models.pick_images(
        config, PICTURED_IMAGES
    )
    columns = {}
    for stage in STAGES:
        config = models.read_config(folder / stage.name)
        model = models.build(
            config.model.get('student', config.model),
            records[stage.name]['checkpoint'],
        )
        columns[stage.title] = models.detect(model, samples)
    draw_detections(
        folder / 'detections.png', images, truths, columns, classes
    )


if __name__ == '__main__':
    sys.exit(main())
