"""How long a step takes with everything at work, before epochs are chosen."""

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments import ExperimentError
from experiments.jobs import TRAIN
from experiments.processes import Process
from experiments.records import log_of
from mmengine.config import Config

from .comparisons import Comparison, distils
from .schedule import Task

STEPS = 20
SECONDS = 150
SECONDS_BETWEEN_LOOKS = 0.2
# A validation at half time and one at the end, and writing a checkpoint.
SECONDS_OF_EVALUATION = 20
# Steps become slower where data or boxes do; and no epoch is a whole number.
RESERVE = 0.9


@dataclass
class Pace:
    """What was measured.

    Args:
        students: Seconds of a student's step, the slowest's median.
        teacher: Seconds of the teacher's step.
        start: Seconds from a process's start to its first step.
    """

    students: float
    teacher: float
    start: float


def measure_pace(
    comparison: Comparison,
    jobs: int,
    folder: Path,
    say: Callable[[str], None],
    steps: int = STEPS,
) -> Pace:
    """Runs some steps of every training side by side, all that may be.

    Args:
        comparison: Planned for one epoch.
        jobs: How many run side by side.
        folder: For their logs.
        say: Takes a line for the log.
        steps: Of each. Defaults to 20.

    Raises:
        ExperimentError: one failed, or took longer than 150 s.
    """
    # The phase with most processes, and the teacher beside it.
    tasks = [t for t in comparison.tasks if distils(t.cell)]
    # One at a time, a student is still among them.
    tasks = [comparison.tasks[0], *tasks][: max(jobs, 2)]
    begin = time.monotonic()
    processes = []
    try:
        # Started inside: an interruption may come before the last one.
        for number, task in enumerate(tasks):
            processes.append(_start(task, folder / str(number), steps))
        _wait(processes, begin)
    finally:
        for process in processes:
            process.stop()
    whole = time.monotonic() - begin
    found = [_step_seconds(folder / str(i)) for i in range(len(tasks))]
    pace = Pace(
        max(found[1:] or found), found[0], max(whole - steps * max(found), 0)
    )
    say(
        f'probe of {len(tasks)} at once: a step takes {pace.students:.3f} s '
        f'(median of all {statistics.median(found):.3f}), the first trains '
        f'at {pace.teacher:.3f}, start and end take {pace.start:.0f} s'
    )
    return pace


def epochs_that_fit(
    pace: Pace,
    comparison: Comparison,
    jobs: int,
    seconds: float,
    teacher_epochs: int,
) -> int:
    """How many epochs every student gets, at least 1.

    Args:
        pace: What was measured.
        comparison: What is trained, planned.
        jobs: How many run side by side.
        seconds: Time for all of it.
        teacher_epochs: The teacher's; 0 for as many as the students'.
    """
    teachers = 0 if comparison.checkpoint else 1
    rounds = math.ceil((len(comparison.tasks) - teachers) / jobs)
    idle = (teachers + rounds) * (pace.start + SECONDS_OF_EVALUATION)
    left = RESERVE * (seconds - idle)
    step = rounds * pace.students
    if comparison.checkpoint is None:
        if teacher_epochs:
            left -= teacher_epochs * comparison.steps * pace.teacher
        else:
            step += pace.teacher
    return max(1, math.floor(left / (comparison.steps * step)))


def _start(task: Task, folder: Path, steps: int) -> Process:
    folder.mkdir(parents=True)
    config = _config(task.cell.config, steps)
    config.work_dir = str(folder)
    config.dump(folder / 'probe_config.py')
    command = [TRAIN, folder / 'probe_config.py', '--work-dir', folder]
    return Process(command, folder / 'train.log', 1)


def _config(config: Config, steps: int) -> Config:
    config = copy.deepcopy(config)
    loader = config.train_dataloader
    loader.dataset.indices = steps * loader.batch_size
    config.train_cfg.max_epochs = 1
    for name in ('val_dataloader', 'val_evaluator', 'val_cfg'):
        config[name] = None
    config.default_hooks.logger.interval = 5
    config.default_hooks.checkpoint.interval = 1000
    config.default_hooks.checkpoint.save_last = False
    if 'teacher' in config.model:
        config.model.teacher.pop('checkpoint', None)
        config.model.teacher.allow_random_weights = True
    return config


def _wait(processes: Sequence[Process], begin: float) -> None:
    while any(process.code is None for process in processes):
        time.sleep(SECONDS_BETWEEN_LOOKS)
        for process in processes:
            process.poll()
            if process.code:
                raise ExperimentError(f'the probe {process.failure()}')
        if time.monotonic() - begin > SECONDS:
            raise ExperimentError(f'the probe took longer than {SECONDS} s')


def _step_seconds(folder: Path) -> float:
    """Of the last steps that were logged; the first are slower."""
    return [entry['time'] for entry in log_of(folder) if 'time' in entry][-1]
