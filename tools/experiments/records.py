"""What a cell leaves in its folder, and what can be read from it."""

import json
import shutil
from math import isnan
from pathlib import Path

from mmrkkd.report.logs import log_files, read_log, validations

from . import ExperimentError
from .cells import Cell, differences

# A cell under way or interrupted; a finished one has both.
STATE = 'cell.json'
RESULT = 'result.json'
GRADIENT_SHARE = 'kd/grad_share_'
# MMDetection logs none of these of a model that finds nothing.
DETECTION = 'coco/'
AP, AP50 = 'coco/bbox_mAP', 'coco/bbox_mAP_50'
TIMES = ('step', 'epoch', 'time', 'data_time')


def read_json(path: Path) -> dict:
    """The content of a JSON file, {} where it is missing or cut off."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def result_of(cell: Cell) -> dict:
    """The result of a finished cell, {} for others."""
    return read_json(cell.folder / RESULT)


def check_folder(cell: Cell) -> None:
    """Refuses a folder in which something else was trained.

    Raises:
        ExperimentError: it holds foreign files, or a run of this label with
            another config.
    """
    state = _own_state(cell)
    if state and state['key'] != cell.key:
        changed = differences(state['settings'], cell.settings)
        raise ExperimentError(
            f'the config of {cell.method.label!r} is not the one that '
            f'{cell.folder} was trained with:\n{changed}\nResults of two '
            'configs under one label cannot be compared. Give the new one '
            f'another label, or delete {cell.folder.parent}'
        )


def clear_folder(cell: Cell, fresh: bool = False) -> None:
    """Makes room for a cell, unless its training stands finished there.

    For trainings that are repeated where something has changed, rather than
    refused.

    Args:
        cell: The cell.
        fresh: Empty the folder in any case. Defaults to False.

    Raises:
        ExperimentError: it holds foreign files.
    """
    state = _own_state(cell)
    stands = state.get('key') == cell.key and state['trained']
    if state and (fresh or not stands or not _checkpoint_is_there(cell)):
        shutil.rmtree(cell.folder)


def _own_state(cell: Cell) -> dict:
    state = read_json(cell.folder / STATE)
    if not state and cell.folder.exists() and any(cell.folder.iterdir()):
        raise ExperimentError(
            f'{cell.folder} is not empty and was not written by this tool; '
            'name another --work-dir'
        )
    return state


def _checkpoint_is_there(cell: Cell) -> bool:
    try:
        return Path(last_checkpoint(cell.folder)).is_file()
    except OSError:
        return False


def last_checkpoint(folder: Path) -> str:
    """Path of the newest checkpoint in a work directory.

    Raises:
        FileNotFoundError: there is none.
    """
    return (folder / 'last_checkpoint').read_text().strip()


def log_of(folder: Path) -> list[dict]:
    """The log of a work directory, over all interruptions."""
    return read_log(log_files(folder))


def scores(log: list[dict], metric: str) -> list[tuple[int, float]]:
    """A metric by validation.

    Args:
        log: See :func:`log_of`.
        metric: A log key. One of MMDetection's is 0 in a validation that
            has found nothing.

    Returns:
        (epoch or iteration, value); empty if it was never logged.
    """
    entries = validations(log)
    known = any(metric in entry for entry in entries) or all(
        set(entry) <= set(TIMES) for entry in entries
    )
    found = []
    for entry in entries:
        value = entry.get(metric)
        nothing = not any(key.startswith(DETECTION) for key in entry)
        if nothing and known and metric.startswith(DETECTION):
            value = 0.0
        if value is not None:
            found.append((entry.get('step', 0), value))
    return found


def validated(folder: Path) -> bool:
    """Whether the training's end was validated.

    It was not where the run was killed after its last checkpoint: what goes
    on from there has nothing left to do.
    """
    log = log_of(folder)
    ends = [
        entry.get('epoch', entry.get('step', 0))
        for entry in log
        if 'iter' in entry
    ]
    steps = [entry.get('step', 0) for entry in validations(log)]
    return bool(steps) and max(steps) >= max(ends, default=0)


def measurements(folder: Path, metric: str) -> dict:
    """What a training's log says about it.

    Args:
        folder: The work directory.
        metric: Log key of the validation, larger being better.

    Returns:
        ``metric``, ``last``, ``best``, ``best_epoch``, ``epochs``,
        ``scores`` (all of the last validation, by log key) and
        ``gradient_shares`` (term to mean share, where logged).

    Raises:
        ExperimentError: the metric was never logged.
    """
    log = log_of(folder)
    series = scores(log, metric)
    if not series:
        logged = sorted({key for entry in log for key in entry})
        raise ExperimentError(
            f'{folder}: no {metric!r} in the log. Name the validation '
            f'metric with --metric; logged were {", ".join(logged)}'
        )
    last = validations(log)[-1]
    if metric.startswith(DETECTION) and metric not in last:
        # Nothing found: a mean over seeds must not leave it out.
        last = {metric: 0.0, AP: 0.0, AP50: 0.0}
    best = max(series, key=lambda point: point[1])
    shares = sorted({k for e in log for k in e if GRADIENT_SHARE in k})
    return dict(
        metric=metric,
        last=series[-1][1],
        best=best[1],
        best_epoch=best[0],
        epochs=series[-1][0],
        scores={
            # JSON knows no NaN, which a class without an object has.
            key: None if isinstance(value, float) and isnan(value) else value
            for key, value in last.items()
            if key not in TIMES
        },
        gradient_shares={
            key.replace(GRADIENT_SHARE, ''): _mean(log, key) for key in shares
        },
    )


def _mean(log: list[dict], key: str) -> float:
    values = [entry[key] for entry in log if key in entry]
    return sum(values) / len(values)
