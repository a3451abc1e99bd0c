"""Distils for an hour and watches what the training takes of its machine.

    python tools/soak.py

Trains the demo's teacher, then distils its student with KL + Kendall's tau,
with checkpoints and validations between the steps, and samples from outside
the memory, the open files, the threads and the processor time of the training
and its data workers. The picture and the numbers land in the work directory.
The exit code is 1 if the end takes more than the beginning.
"""

import argparse
import sys
import time
from pathlib import Path

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import psutil
from demo import CONFIGS, STUDENTS, TEACHER, make_cell
from experiments import ROOT, ExperimentError
from experiments.growth import draw_soak, judge, table
from experiments.pool import run_cells
from experiments.processes import (
    Process,
    ended_like_interrupted,
    shown,
    threads_of,
)
from experiments.progress import SECONDS_BETWEEN_LINES, Progress
from experiments.records import clear_folder, result_of
from experiments.watching import look, series_of
from tqdm import tqdm

from mmrkkd.checkpoint.atomic import write_json
from mmrkkd.datasets import Recipe, make_demo_shapes
from mmrkkd.report import log_files, points_of, read_log, surroundings
from mmrkkd.report.measurements import AP

SECONDS_BETWEEN_SAMPLES = 5
# More steps than any machine does in the time; it is stopped by the clock.
ENDLESS = 10**8


def parse_args(argv=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--minutes',
        type=float,
        default=60,
        help='how long to watch the distillation (default: %(default)s)',
    )
    parser.add_argument(
        '--work-dir',
        default='work_dirs/soak',
        help='where results go (default: %(default)s)',
    )
    parser.add_argument(
        '--data',
        default='data/demo_shapes',
        help='where the images go (default: %(default)s)',
    )
    parser.add_argument(
        '--interval',
        type=int,
        default=100,
        help='steps between two checkpoints, and half of those between two '
        'validations (default: %(default)s)',
    )
    args = parser.parse_args(argv)
    if not args.minutes > 0 or args.interval < 1:
        parser.error('--minutes and --interval must be above 0')
    return args


def main(argv=None):
    """Runs the soak; returns the exit code."""
    args = parse_args(argv)
    folder, data = Path(args.work_dir).resolve(), Path(args.data).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # Of the sources as they are now, not as they are in an hour.
    where = surroundings(ROOT)
    try:
        recipe = Recipe()
        make_demo_shapes(data, recipe)
        with ended_like_interrupted():
            teacher = train_teacher(folder, data, recipe)
            command = soak_command(folder / 'student', data, teacher, args)
            series, steps = watch(
                command, folder / 'student', 60 * args.minutes
            )
        verdict = judge(series)
    except (ExperimentError, OSError, ValueError) as error:
        print(f'\nsoak: {error}', file=sys.stderr)
        return 1
    write_json(
        folder / 'soak.json',
        dict(
            command=shown(command),
            minutes=args.minutes,
            steps=steps,
            surroundings=where,
            verdict=verdict,
            series=series,
        ),
    )
    draw_soak(folder / 'soak.png', series, verdict)
    print(f'{steps} steps in {args.minutes:g} minutes\n\n{table(verdict)}')
    grown = [name for name, found in verdict.items() if found['grew']]
    if grown:
        print(f'\nsoak: {", ".join(grown)} grew', file=sys.stderr)
    print(f'\nNumbers and picture: {folder}')
    return 1 if grown else 0


def train_teacher(folder, data, recipe):
    """The demo's teacher, trained unless it stands finished; its file."""
    options = {'data_root': f'{data}/'}
    cell = make_cell(TEACHER, folder, data, recipe, options, recipe.seed)
    clear_folder(cell)
    progress = Progress([cell])
    try:
        failures = run_cells([cell], progress, AP)
    finally:
        progress.close()
    if failures:
        raise ExperimentError(failures[0])
    return result_of(cell)['checkpoint']


def soak_command(folder, data, teacher, args):
    """The demo's distillation, without an end."""
    options = {
        'data_root': f'{data}/',
        'randomness.seed': 0,
        'model.teacher.checkpoint': teacher,
        'train_cfg.max_iters': ENDLESS,
        'train_cfg.val_interval': 2 * args.interval,
        'param_scheduler': '[]',
        'default_hooks.checkpoint.interval': args.interval,
        'default_hooks.checkpoint.max_keep_ckpts': 2,
        'default_hooks.checkpoint.save_optimizer': True,
        'default_hooks.logger.interval': 20,
    }
    return [
        ROOT / 'tools' / 'train.py',
        CONFIGS / STUDENTS[-1][1],
        '--work-dir',
        folder,
        '--cfg-options',
        *(f'{key}={value}' for key, value in options.items()),
    ]


def watch(command, folder, seconds):
    """Runs a training for some seconds; returns its curves and its steps.

    Raises:
        ExperimentError: the training ended by itself.
    """
    known = set(log_files(folder))
    folder.mkdir(parents=True, exist_ok=True)
    print('$ ' + shown(command), flush=True)
    samples, steps = [], []
    start, logged = None, []
    process = Process(command, folder / 'train.log', threads_of())
    bar = tqdm(
        total=round(seconds),
        desc='distillation',
        bar_format='{desc} |{bar:20}| {n}/{total} s {postfix}',
        # Where the output is no terminal, a line now and then.
        mininterval=1 if sys.stderr.isatty() else SECONDS_BETWEEN_LINES,
    )
    try:
        while start is None or time.time() - start < seconds:
            time.sleep(SECONDS_BETWEEN_SAMPLES)
            process.poll()
            if process.code is not None:
                raise ExperimentError(f'the training {process.failure()}')
            logged = _logged(folder, known)
            if not logged:
                continue
            start = start or time.time()
            now = time.time() - start
            steps += [(now, step) for step, _ in logged[len(steps) :]]
            samples.append(look(psutil.Process(process.pid), start))
            bar.set_postfix_str(
                f'{steps[-1][1]} steps, '
                f'{samples[-1].memory_mib:.0f} MiB, '
                f'{samples[-1].open_files} files',
                refresh=False,
            )
            bar.update(min(round(now), bar.total) - bar.n)
    finally:
        bar.close()
        process.stop()
    return series_of(samples, steps, logged), steps[-1][1]


def _logged(folder, known):
    """(step, seconds of a step) as the training has logged them."""
    new = [path for path in log_files(folder) if path not in known]
    # A validation logs its time too, and no loss.
    return points_of([e for e in read_log(new) if 'loss' in e], 'time')


if __name__ == '__main__':
    sys.exit(main())
