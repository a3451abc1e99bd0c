"""Trainings side by side, some of which wait for another, by a deadline."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from experiments import ROOT, ExperimentError
from experiments.cells import Cell
from experiments.jobs import Job
from experiments.records import log_of, result_of

from mmrkkd.report.measurements import AP50, measurements

SECONDS_BETWEEN_LOOKS = 0.3
SECONDS_BETWEEN_LINES = 15
TRAIN_AFTER = ROOT / 'tools' / 'gpu' / 'train_after.py'
IMPORTED = (
    'mmdet.models',
    'mmdet.datasets',
    'mmdet.evaluation',
    'mmrkkd.backbones',
    'mmrkkd.engine',
)
# The first steps of a training are slower.
WARM_STEPS = 10
WAITING, RUNNING, DONE, FAILED, CUT = (
    'waiting',
    'running',
    'finished',
    'failed',
    'cut off',
)


@dataclass
class Task:
    """A training of the schedule.

    Args:
        cell: What is trained.
        metric: Log key of its validation.
        after: The training of its teacher. Defaults to None.
        awaited: The checkpoint that comes of it. Defaults to None.
        state: One of this module's WAITING, RUNNING, DONE, FAILED, CUT.
        failure: What failed.
        step_seconds: Wall time of a step; None before it is known.
        epochs: How far it is.
    """

    cell: Cell
    metric: str
    after: 'Task | None' = None
    awaited: Path | None = None
    state: str = WAITING
    failure: str = ''
    step_seconds: float | None = None
    epochs: float = 0.0

    def last_scores(self) -> dict:
        """What its log measures, unfinished too; {} without a validation."""
        try:
            return measurements(self.cell.folder, self.metric)
        except (ExperimentError, OSError, ValueError):
            return {}


class TrainingJob(Job):
    """A training, begun before the teacher that it needs is there.

    Its process imports what it needs and waits. There is no comparison with
    the teacher afterwards: that is a process more, which takes as long to
    start as a training.

    Args:
        awaited: The teacher's checkpoint; None to begin at once.
        settings: Those of :class:`Job`.
    """

    def __init__(self, awaited: Path | None, **settings: object) -> None:
        self.awaited = awaited
        super().__init__(**settings)

    def _start(self, stage: str, command: list) -> None:
        if stage == 'training' and self.awaited is not None:
            modules = ','.join(IMPORTED)
            command = [TRAIN_AFTER, self.awaited, modules, *command]
        super()._start(stage, command)

    def _note_time(self, always: bool = False) -> None:
        if self.awaited is not None:
            if not self.awaited.is_file():
                # Waiting is no training.
                self.noted = time.time()
                return
            self.awaited = None
        super()._note_time(always)

    def _start_comparison(self) -> None:
        self._finish({})


def run_tasks(
    tasks: Sequence[Task],
    jobs: int,
    deadline: float,
    surroundings: dict,
    say: Callable[[str], None],
    changed: Callable[[], None],
) -> None:
    """Runs every task to its end, or to the deadline.

    Args:
        tasks: In the order of their start, each after what it waits for.
            Their states are changed in place.
        jobs: How many run side by side, >= 1.
        deadline: When everything is ended, by ``time.monotonic``.
        surroundings: Commit, versions and hardware, for the record.
        say: Takes a line for the log.
        changed: Called whenever a task has ended.
    """
    running: dict[int, tuple[Task, Job]] = {}
    settings = dict(
        teacher=None, threads=1, surroundings=dict(surroundings, threads=1)
    )
    told = looked = time.monotonic()
    try:
        while time.monotonic() < deadline:
            _start(tasks, running, jobs, settings, say)
            if not running:
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
            pairs = list(running.values())
            ended = [_look(*pair, running, say) for pair in pairs]
            ended += [_give_up(*pair, running, say) for pair in pairs]
            if any(ended):
                changed()
            now = time.monotonic()
            if now - looked > SECONDS_BETWEEN_LOOKS * 5:
                looked = now
                for task, _ in running.values():
                    _measure(task, say)
            if now - told > SECONDS_BETWEEN_LINES:
                told = now
                say(_line(running, deadline - now))
    finally:
        # Each has some seconds to end: all at once.
        with ThreadPoolExecutor(max(len(running), 1)) as pool:
            list(pool.map(lambda pair: pair[1].stop(), running.values()))
        for task in tasks:
            if task.state in (RUNNING, WAITING):
                task.state = CUT
                say(f'{task.cell.title}: cut off after {task.epochs:.1f} ep.')


def _start(
    tasks: Sequence[Task],
    running: dict,
    jobs: int,
    settings: dict,
    say: Callable[[str], None],
) -> None:
    for task in tasks:
        if task.state != WAITING:
            continue
        if result_of(task.cell):
            task.state = DONE
            say(f'{task.cell.title}: finished earlier')
        elif task.after is not None and task.after.state == FAILED:
            task.state, task.failure = FAILED, 'its teacher failed'
        elif len(running) < jobs:
            try:
                job = TrainingJob(
                    task.awaited,
                    cell=task.cell,
                    metric=task.metric,
                    **settings,
                )
            except (ExperimentError, OSError, ValueError) as error:
                task.state, task.failure = FAILED, str(error)
                say(f'FAILED {task.cell.title}: {error}')
                continue
            task.state, running[id(task)] = RUNNING, (task, job)
            say(f'{task.cell.title}: started')


def _look(
    task: Task, job: Job, running: dict, say: Callable[[str], None]
) -> bool:
    """Whether the task has ended."""
    failure = job.poll()
    task.epochs = job.epochs
    if failure is None:
        return False
    del running[id(task)]
    job.stop()
    task.state, task.failure = (FAILED if failure else DONE), failure
    if failure:
        say(f'FAILED {failure}')
    else:
        result = result_of(task.cell)
        half = result['scores'].get(AP50)
        say(
            f'{task.cell.title}: {task.metric} {result["last"]:.4f} '
            f'{"" if half is None else f"AP50 {half:.4f} "}after '
            f'{result["seconds"]:.0f} s'
        )
    return True


def _give_up(
    task: Task, job: Job, running: dict, say: Callable[[str], None]
) -> bool:
    """Ends a task that waits for a teacher which failed."""
    if id(task) not in running or task.after is None:
        return False
    if task.after.state != FAILED:
        return False
    del running[id(task)]
    job.stop()
    task.state, task.failure = FAILED, 'its teacher failed'
    say(f'FAILED {task.cell.title}: {task.failure}')
    return True


def _measure(task: Task, say: Callable[[str], None]) -> None:
    """Notes the time of a step, and tells the first one."""
    times = [
        entry['time']
        for entry in log_of(task.cell.folder)
        if 'time' in entry and entry.get('iter', 0) > WARM_STEPS
    ]
    if not times:
        return
    if task.step_seconds is None:
        say(f'{task.cell.title}: {times[-1]:.3f} s a step')
    task.step_seconds = times[-1]


def _line(running: dict, left: float) -> str:
    parts = []
    for task, _ in running.values():
        step = task.step_seconds
        step = '' if step is None else f' {1000 * step:.0f} ms'
        name = f'{task.cell.method.label}-{task.cell.seed}'
        parts.append(f'{name} {task.epochs:.1f}/{task.cell.epochs}{step}')
    return f'{left:.0f} s left; ' + ', '.join(parts)
