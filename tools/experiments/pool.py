"""All cells of an ablation, some side by side."""

import time
from collections import deque

from .cells import Cell
from .jobs import Job
from .methods import AblationError
from .progress import Overall, clock
from .records import result_of

SECONDS_BETWEEN_LOOKS = 0.5


def run_cells(
    cells: list[Cell],
    finished: list[Cell],
    jobs: int,
    progress: Overall,
    **settings: object,
) -> list[str]:
    """Brings every cell to its end.

    Args:
        cells: Those to train or to go on with.
        finished: Those that need nothing more.
        jobs: How many run side by side, >= 1.
        progress: The bar.
        settings: What :class:`Job` needs besides the cell.

    Returns:
        What failed, a message for each such cell.
    """
    for cell in finished:
        result = result_of(cell)
        pace = result['seconds'] / max(result['epochs'], 1)
        progress.advance(cell, cell.epochs, pace)
        progress.close_cell(cell, f'{cell.title}: finished earlier')
    waiting, running, failures = deque(cells), [], []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.popleft()
                try:
                    running.append(Job(cell, **settings))
                except (AblationError, OSError) as error:
                    failures.append(f'{cell.title}: {error}')
                    progress.close_cell(cell, f'FAILED: {failures[-1]}')
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for job in list(running):
                failure = job.poll()
                progress.advance(job.cell, job.epochs, job.pace)
                if failure is not None:
                    running.remove(job)
                    job.close()
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
    job: Job, failure: str, failures: list[str], progress: Overall
) -> None:
    if failure:
        failures.append(failure)
        progress.close_cell(job.cell, f'FAILED: {failure}')
        return
    result = result_of(job.cell)
    progress.close_cell(
        job.cell,
        f'{job.cell.title}: {result["metric"]} {result["last"]:.2f}, '
        f'{clock(result["seconds"])}',
    )
