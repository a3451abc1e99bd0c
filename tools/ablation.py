"""Trains methods with several seeds each and compares them.

    python tools/ablation.py CONFIG [CONFIG ...] --seeds 0 1 2

A method is a config, ``LABEL=CONFIG``, ``LABEL=CONFIG:KEY=VALUE,...`` or what
a sweep file lists; a config is a path, a name such as ``mmdet::...``, or one
of those that come with mmrkkd. Every cell (a method with a seed) is trained
in a process of its own; the same command goes on where it was interrupted,
and what is finished is not done again.
"""

import argparse
import shlex
import sys
from pathlib import Path

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from experiments import ExperimentError
from experiments.cells import make_cells, reference
from experiments.detection import (
    SAMPLES,
    bootstraps,
    check_same_images,
    coco_metric,
)
from experiments.methods import parse_methods
from experiments.pool import run_cells
from experiments.processes import MAX_THREADS, ended_like_interrupted
from experiments.progress import Progress
from experiments.records import check_folder, log_of, result_of
from experiments.report import write_report

from mmrkkd.cli import Settings
from mmrkkd.evaluation.summary import summarize
from mmrkkd.report import Curve, draw_curves, means_of
from mmrkkd.report.measurements import AP, measurements, scores


def parse_args(argv=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        'methods',
        nargs='+',
        metavar='METHOD',
        help='CONFIG.py, LABEL=CONFIG.py, LABEL=CONFIG.py:KEY=VALUE,... or a '
        'sweep file; without a label it is the name up to the first _',
    )
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=int,
        help="default: the sweep file's, or 0 1 2",
    )
    parser.add_argument(
        '--baseline',
        metavar='LABEL',
        help="default: the sweep file's, or kd, or the first method",
    )
    parser.add_argument(
        '--work-dir',
        default='work_dirs/ablation',
        help='where results go (default: %(default)s)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Settings,
        default={},
        metavar='KEY=VALUE',
        help='settings to change in every config; those of a method win',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        help='cells side by side (default: %(default)s)',
    )
    parser.add_argument(
        '--threads',
        type=int,
        help='OpenMP threads of a cell; default: the cores divided by --jobs,'
        f' at most {MAX_THREADS}',
    )
    parser.add_argument(
        '--metric',
        help='log key of the validation; default: accuracy/top1, of '
        'detectors coco/bbox_mAP',
    )
    parser.add_argument(
        '--bootstrap',
        type=int,
        default=SAMPLES,
        metavar='SAMPLES',
        help="samples of a detector's validation images (default: "
        '%(default)s; 0: none)',
    )
    parser.add_argument(
        '--report-only',
        action='store_true',
        help='train nothing, make the table of what is finished',
    )
    args = parser.parse_args(argv)
    for name in ('jobs', 'threads'):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name} must be at least 1, got {value}')
    if args.bootstrap < 0 or args.bootstrap == 1:
        parser.error(
            f'--bootstrap must be 0 or at least 2, got {args.bootstrap}'
        )
    return args


def main(argv=None):
    """Runs the ablation; returns the exit code."""
    args = parse_args(argv)
    command = shlex.join(
        ['python', 'tools/ablation.py', *(argv or sys.argv[1:])]
    )
    try:
        with ended_like_interrupted():
            return run(args, command)
    except KeyboardInterrupt:
        print(
            '\nInterrupted. The same command goes on from the last '
            'checkpoints.',
            file=sys.stderr,
        )
        return 130
    except (ExperimentError, OSError, ValueError) as error:
        print(f'ablation: {error}', file=sys.stderr)
        return 1


def run(args, command):
    """All cells, then the report; returns the exit code."""
    methods, defaults = parse_methods(args.methods)
    labels = [method.label for method in methods]
    seeds = args.seeds or defaults.get('seeds') or [0, 1, 2]
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ExperimentError(
            f'--seeds must be different numbers >= 0, got {seeds}'
        )
    baseline = args.baseline or defaults.get('baseline')
    baseline = baseline or ('kd' if 'kd' in labels else labels[0])
    if baseline not in labels:
        raise ExperimentError(
            f'--baseline must be one of the methods {labels}, got {baseline!r}'
        )
    folder = Path(args.work_dir).resolve()
    if folder.exists() and not folder.is_dir():
        raise ExperimentError(
            f'--work-dir must be a folder, and {args.work_dir} is a file; '
            'name another'
        )
    cells = make_cells(methods, seeds, folder, args.cfg_options)
    for cell in cells:
        check_folder(cell)
    if args.bootstrap:
        check_same_images(cells)
    folder.mkdir(parents=True, exist_ok=True)
    metric = args.metric or metric_of(cells)
    failures = []
    if not args.report_only:
        progress = Progress(cells, args.jobs)
        try:
            failures = run_cells(
                cells,
                progress,
                metric,
                reference(cells, baseline),
                args.jobs,
                args.threads,
            )
        finally:
            progress.close()
    finished = [cell for cell in cells if result_of(cell)]
    if finished:
        draw(finished, folder / 'curves.png', metric)
    facts = dict(
        baseline=baseline,
        metric=metric,
        seeds=sorted(seeds),
        missing=[cell.title for cell in cells if cell not in finished],
        failures=failures,
        command=command,
    )
    samples = bootstraps(finished, args.bootstrap) if args.bootstrap else {}
    results = [
        dict(result_of(cell), **measurements(cell.folder, metric))
        for cell in finished
    ]
    rows = summarize(labels, results, baseline, samples)
    print(write_report(folder, rows, results, facts))
    print(f'Report and pictures: {folder}')
    return 1 if facts['missing'] else 0


def metric_of(cells):
    """The log key by which these models are compared."""
    detectors = all(coco_metric(cell.config) for cell in cells)
    return AP if detectors else 'accuracy/top1'


def draw(cells, path, metric):
    """The curves of finished cells."""
    panels = [
        Curve(f'Validation {metric}', (metric,)),
        Curve('KL to the teacher, training batches', ('kd/kl',)),
        Curve('Kendall tau to the teacher, training batches', ('kd/tau',)),
    ]
    runs = {}
    for cell in cells:
        log = log_of(cell.folder)
        series = {key: means_of(log, key) for key in ('kd/kl', 'kd/tau')}
        runs.setdefault(cell.method.label, []).append(
            dict(series, **{metric: scores(log, metric)})
        )
    by_epoch = all(cell.config.train_cfg.get('max_epochs') for cell in cells)
    draw_curves(
        path, runs, panels, 'epoch' if by_epoch else 'iteration', len(panels)
    )


if __name__ == '__main__':
    sys.exit(main())
