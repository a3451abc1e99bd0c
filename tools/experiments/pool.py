"""All cells of an experiment, some side by side."""

import time
from collections import deque
from collections.abc import Sequence

from mmengine.config import ConfigDict

from mmrkkd.evaluation.metric_units import scale_of
from mmrkkd.report.surroundings import surroundings

from . import ROOT, ExperimentError
from .cells import Cell
from .jobs import Job
from .processes import threads_of
from .progress import Progress, clock
from .records import result_of

SECONDS_BETWEEN_LOOKS = 0.5


def run_cells(
    cells: Sequence[Cell],
    progress: Progress,
    metric: str,
    teacher: ConfigDict | None = None,
    jobs: int = 1,
    threads: int | None = None,
) -> list[str]:
    """Brings every cell to its end; the finished ones are left alone.

    Args:
        cells: The cells.
        progress: The bar.
        metric: Log key of the validation, larger being better.
        teacher: Model config whose teacher a student without one is compared
            with. Defaults to none.
        jobs: How many run side by side, >= 1. Defaults to 1.
        threads: OpenMP threads of each. Defaults to the cores divided by the
            number of jobs.

    Returns:
        What failed, a message for each such cell.
    """
    threads = threads or threads_of(jobs)
    settings = dict(
        teacher=teacher,
        metric=metric,
        threads=threads,
        surroundings=dict(
            surroundings(ROOT), side_by_side=jobs, threads=threads
        ),
    )
    waiting, running, failures = deque(), [], []
    for cell in cells:
        result = result_of(cell)
        if result:
            pace = result['seconds'] / max(result['epochs'], 1)
            progress.advance(cell, cell.epochs, pace)
            progress.close_cell(cell, f'{cell.title}: finished earlier')
        else:
            waiting.append(cell)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.popleft()
                try:
                    running.append(Job(cell, **settings))
                except (ExperimentError, OSError) as error:
                    failures.append(f'{cell.title}: {error}')
                    progress.close_cell(cell, f'FAILED: {failures[-1]}')
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for job in list(running):
                failure = job.poll()
                progress.advance(job.cell, job.epochs, job.pace)
                if failure is not None:
                    running.remove(job)
                    job.stop()
                    _tell(job, failure, failures, progress)
            progress.show(
                f'{job.cell.title}: {job.epochs:.1f}/{job.cell.epochs}'
                f'{job.text}'
                for job in running
            )
    finally:
        for job in running:
            job.stop()
    return failures


def _tell(
    job: Job, failure: str, failures: list[str], progress: Progress
) -> None:
    if failure:
        failures.append(failure)
        progress.close_cell(job.cell, f'FAILED: {failure}')
        return
    result = result_of(job.cell)
    metric = result['metric']
    progress.close_cell(
        job.cell,
        f'{job.cell.title}: {metric} '
        f'{scale_of(metric) * result["last"]:.2f}, '
        f'{clock(result["seconds"])}',
    )
