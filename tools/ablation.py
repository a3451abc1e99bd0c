"""Trains methods with several seeds each and compares them.

    python tools/ablation.py CONFIG [CONFIG ...] --seeds 0 1 2

A method is a config, ``LABEL=CONFIG``, ``LABEL=CONFIG:KEY=VALUE,...`` or what
a sweep file lists. Every cell (a method with a seed) is trained in a process
of its own; the same command goes on where it was interrupted, and what is
finished is not done again.
"""

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path

from mmengine.config import DictAction

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from ablation_parts.cells import ROOT, make_cells
from ablation_parts.methods import AblationError, parse_methods
from ablation_parts.pool import run_cells
from ablation_parts.progress import Overall
from ablation_parts.records import (
    check_folder,
    measurements,
    read_log,
    result_of,
    series_of,
)
from ablation_parts.report import write_report
from ablation_parts.statistics import summarize
from demo_parts.report import surroundings

from mmrkkd.report.bands import Panel, draw_bands

MAX_THREADS = 8


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
        action=DictAction,
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
        default='accuracy/top1',
        help='log key of the validation (default: %(default)s)',
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
    return args


def main(argv=None):
    """Runs the ablation; returns the exit code."""
    args = parse_args(argv)
    command = shlex.join(
        ['python', 'tools/ablation.py', *(argv or sys.argv[1:])]
    )
    # A batch system ends its jobs with SIGTERM.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(args, command)
    except KeyboardInterrupt:
        print(
            '\nInterrupted. The same command goes on from the last '
            'checkpoints.',
            file=sys.stderr,
        )
        return 130
    except (AblationError, OSError, ValueError) as error:
        print(f'ablation: {error}', file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)


def run(args, command):
    """All cells, then the report; returns the exit code."""
    methods, defaults = parse_methods(args.methods)
    labels = [method.label for method in methods]
    seeds = args.seeds or defaults.get('seeds') or [0, 1, 2]
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise AblationError(
            f'--seeds must be different numbers >= 0, got {seeds}'
        )
    baseline = args.baseline or defaults.get('baseline')
    baseline = baseline or ('kd' if 'kd' in labels else labels[0])
    if baseline not in labels:
        raise AblationError(
            f'--baseline must be one of the methods {labels}, got {baseline!r}'
        )
    folder = Path(args.work_dir).resolve()
    cells = make_cells(methods, seeds, folder, args.cfg_options)
    for cell in cells:
        check_folder(cell)
    folder.mkdir(parents=True, exist_ok=True)
    failures = [] if args.report_only else train(args, cells, baseline)
    return report(cells, folder, failures, baseline, args.metric, command)


def train(args, cells, baseline):
    """Trains what is not finished; returns what failed."""
    cores = len(os.sched_getaffinity(0))
    threads = args.threads or max(1, min(cores // args.jobs, MAX_THREADS))
    by_epoch = all(cell.config.train_cfg.get('max_epochs') for cell in cells)
    progress = Overall(
        cells, args.jobs, 'epochs' if by_epoch else 'iterations'
    )
    facts = dict(surroundings(ROOT), side_by_side=args.jobs, threads=threads)
    try:
        return run_cells(
            [cell for cell in cells if not result_of(cell)],
            [cell for cell in cells if result_of(cell)],
            args.jobs,
            progress,
            teacher=reference(cells, baseline),
            metric=args.metric,
            threads=threads,
            surroundings=facts,
        )
    finally:
        progress.close()


def reference(cells, baseline):
    """The model that says which teacher a student alone is compared with.

    The baseline's, or the first distillation's; None if nothing distils.
    """
    ordered = sorted(cells, key=lambda cell: cell.method.label != baseline)
    for cell in ordered:
        if 'teacher' in cell.config.model:
            return cell.config.model
    return None


def report(cells, folder, failures, baseline, metric, command):
    """Prints and writes the table and the curves; returns the exit code."""
    labels = list(dict.fromkeys(cell.method.label for cell in cells))
    results = [
        dict(result, **measurements(cell.folder, metric))
        for cell in cells
        if (result := result_of(cell))
    ]
    missing = [cell.title for cell in cells if not result_of(cell)]
    if results:
        draw(cells, folder / 'curves.png', metric)
    text = write_report(
        folder,
        summarize(labels, results, baseline),
        results,
        dict(
            baseline=baseline,
            metric=metric,
            seeds=sorted({cell.seed for cell in cells}),
            missing=missing,
            failures=failures,
            command=command,
        ),
    )
    print(text)
    print(f'Report and curves: {folder}')
    return 1 if missing else 0


def draw(cells, path, metric):
    """The curves of the finished cells."""
    panels = [
        Panel(metric, f'Validation {metric}'),
        Panel('kd/kl', 'KL to the teacher, training batches'),
        Panel('kd/tau', 'Kendall tau to the teacher, training batches'),
    ]
    runs = {}
    for cell in cells:
        if result_of(cell):
            log = read_log(cell.folder)
            runs.setdefault(cell.method.label, []).append(
                {panel.key: series_of(log, panel.key) for panel in panels}
            )
    by_epoch = all(cell.config.train_cfg.get('max_epochs') for cell in cells)
    draw_bands(path, runs, panels, 'epoch' if by_epoch else 'iteration')


if __name__ == '__main__':
    sys.exit(main())
