"""Shows on real photos, within minutes of one GPU, what distilling gives.

    make gpu-evidence EVIDENCE_ARGS='--data data --out evidence'
    python tools/gpu/evidence.py --data data --out evidence --minutes 9

Students alone, students that are distilled and their teacher are trained
side by side on one GPU: the teacher first, beside the students that need
none, then all others. Whatever happens at the end of the minutes, what was
measured is in the tables: they are written again as each training ends, and
those that were cut off stand in them with their last validation.
docs/en/real_photos.md has the protocol.
"""

import argparse
import contextlib
import math
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

# The folders of the package and of the tools, so that a checkout works.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from experiments import ROOT, ExperimentError
from experiments.processes import ended_like_interrupted

from gpu.arms import CLASSES_ARMS, DEFAULT_ARMS
from gpu.comparisons import (
    WEIGHTS_VARIABLE,
    Comparison,
    classes,
    photos,
)
from gpu.evidence_options import parse_args
from gpu.evidence_report import (
    bootstrap_in_parallel,
    keep_files,
    write_tables,
)
from gpu.mps import multi_process_service
from gpu.probe import STEPS, epochs_that_fit, measure_pace
from gpu.schedule import DONE, run_tasks
from mmrkkd.report.surroundings import surroundings

# For the last tables, the samples of the images and the ends of processes.
SECONDS_TO_REPORT = 25
BATCHES = dict(photos=8, classes=64)


class Log:
    """Lines on the screen and in a file, with seconds since the start.

    Args:
        path: The file, which is added to.
    """

    def __init__(self, path: Path) -> None:
        self.start = time.monotonic()
        self._file = open(path, 'a', buffering=1)  # noqa: SIM115

    def __call__(self, text: str) -> None:
        """Writes a line."""
        line = f'{time.monotonic() - self.start:7.1f} {text}'
        self._file.write(line + '\n')
        print(line, flush=True)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def comparisons_of(args: argparse.Namespace, work: Path) -> list[Comparison]:
    """What is trained, the photos first."""
    seeds = args.seeds or ([0] if args.stage == 'choose' else [0, 1, 2])
    found = []
    for part in args.parts:
        options = dict(args.cfg_options)
        batch = options.get('train_dataloader.batch_size', BATCHES[part])
        if args.steps:
            options['train_dataloader.dataset.indices'] = args.steps * batch
            options['val_dataloader.dataset.indices'] = 8
        if part == 'photos':
            arms = args.arms or DEFAULT_ARMS[args.detector][args.stage]
            made = photos(
                args.data,
                work / part,
                args.stage,
                args.detector,
                args.student,
                arms,
                seeds,
                options,
            )
            made.checkpoint = args.teacher
        else:
            arms = args.arms if args.parts == ['classes'] else None
            arms = arms or CLASSES_ARMS
            made = classes(args.data, work / part, arms, seeds[:2], options)
        made.steps = args.steps or math.ceil(made.images / batch)
        made.is_rehearsal = bool(args.steps)
        found.append(made)
    return found


def plan(
    comparisons: list[Comparison],
    args: argparse.Namespace,
    deadline: float,
    work: Path,
    say: Log,
) -> None:
    """Chooses the epochs of each comparison, one number for all of it."""
    for comparison in comparisons:
        if args.epochs == 'auto':
            comparison.plan(1, 1)
            folder = Path(tempfile.mkdtemp(prefix='probe', dir=work))
            pace = measure_pace(
                comparison, args.jobs, folder, say, args.steps or STEPS
            )
            seconds = (deadline - time.monotonic()) / len(comparisons)
            epochs = epochs_that_fit(
                pace, comparison, args.jobs, seconds, args.teacher_epochs
            )
        else:
            epochs = int(args.epochs)
        comparison.plan(epochs, args.teacher_epochs or epochs)
        say(
            f'{comparison.name}: {len(comparison.tasks)} trainings, '
            f'{epochs} epochs of {comparison.steps} steps'
        )


def run(args: argparse.Namespace, work: Path, say: Log, command: str) -> int:
    """Trains and reports; returns the exit code."""
    deadline = say.start + 60 * args.minutes - SECONDS_TO_REPORT
    comparisons = comparisons_of(args, work)
    plan(comparisons, args, deadline, work, say)
    tasks = [task for part in comparisons for task in part.tasks]
    facts = dict(surroundings(ROOT), side_by_side=args.jobs)
    if args.commit:
        facts['commit'] = args.commit

    def each(action: Callable, *values: object) -> None:
        for comparison in comparisons:
            try:
                action(comparison, *values)
            except Exception:
                # A table can be made later, a training cannot.
                say(traceback.format_exc())

    try:
        run_tasks(
            tasks,
            args.jobs,
            deadline,
            facts,
            say,
            lambda: each(write_tables, args.out, command),
        )
    finally:
        each(write_tables, args.out, command)
        each(keep_files, args.out)
        say('tables written')
    if args.bootstrap:
        each(bootstrap_in_parallel, args.bootstrap)
        each(write_tables, args.out, command, args.bootstrap)
    for comparison in comparisons:
        say((args.out / f'{comparison.name}.md').read_text())
    return 0 if all(task.state == DONE for task in tasks) else 1


def main(argv: list[str] | None = None) -> int:
    """Runs everything; returns the exit code, 1 for what is unfinished."""
    args = parse_args(__doc__.split('\n')[0], argv)
    args.out.mkdir(parents=True, exist_ok=True)
    args.data, args.out = args.data.resolve(), args.out.resolve()
    args.teacher = args.teacher and args.teacher.resolve()
    words = shlex.join(
        ['python', 'tools/gpu/evidence.py', *(argv or sys.argv[1:])]
    )
    command = words.replace(str(args.out), 'OUT')
    work = args.work_dir or Path(tempfile.mkdtemp(prefix='evidence'))
    work.mkdir(parents=True, exist_ok=True)
    os.environ[WEIGHTS_VARIABLE] = str(args.data / 'weights')
    os.environ['NUM_CLASSES'] = '100'
    if args.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    say = Log(args.out / 'evidence.log')
    say(f'{command}, in {work}')
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(ended_like_interrupted())
            if args.mps and args.device != 'cpu':
                state = stack.enter_context(
                    multi_process_service(work / 'mps')
                )
                say(f'multi-process service {state}')
            return run(args, work.resolve(), say, command)
    except KeyboardInterrupt:
        say('interrupted')
        return 130
    except (ExperimentError, OSError, ValueError) as error:
        say(f'evidence: {error}')
        return 1
    finally:
        say.close()


if __name__ == '__main__':
    sys.exit(main())
