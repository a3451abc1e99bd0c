"""What a cell leaves in its folder, and what can be read from it."""

import json
from pathlib import Path

from .cells import Cell, differences
from .methods import AblationError

# A cell under way or interrupted; a finished one has both.
STATE = 'cell.json'
RESULT = 'result.json'
GRADIENT_SHARE = 'kd/grad_share_'


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
        AblationError: it holds foreign files, or a run of this label with
            another config.
    """
    state = read_json(cell.folder / STATE)
    if not state and cell.folder.exists() and any(cell.folder.iterdir()):
        raise AblationError(
            f'{cell.folder} is not empty and was not written by this tool; '
            'name another --work-dir'
        )
    if state and state['key'] != cell.key:
        changed = differences(state['settings'], cell.settings)
        raise AblationError(
            f'the config of {cell.method.label!r} is not the one that '
            f'{cell.folder} was trained with:\n{changed}\nResults of two '
            'configs under one label cannot be compared. Give the new one '
            f'another label, or delete {cell.folder.parent}'
        )


def read_log(folder: Path) -> list[dict]:
    """MMEngine's scalars of a run, over all its interruptions.

    What was done twice counts once, as the later attempt logged it.

    Args:
        folder: The work directory.

    Returns:
        Entries in the order of their steps, those of training before those
        of validation.
    """
    training, validation = {}, {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                # The last line of an interrupted run.
                continue
            kind = training if 'iter' in entry else validation
            kind[entry.get('step', 0)] = entry
    return [
        kind[step] for kind in (training, validation) for step in sorted(kind)
    ]


def series_of(log: list[dict], key: str) -> list[tuple[int, float]]:
    """One value by epoch, the mean of what was logged during it.

    Args:
        log: See :func:`read_log`.
        key: A log key.

    Returns:
        (epoch, value), by iteration where the run has no epochs.
    """
    values = {}
    for entry in log:
        if isinstance(entry.get(key), (int, float)):
            time = entry.get('epoch', entry.get('step'))
            values.setdefault(time, []).append(entry[key])
    return [(time, sum(v) / len(v)) for time, v in sorted(values.items())]


def measurements(folder: Path, metric: str) -> dict:
    """What a training's log says about it.

    Args:
        folder: The work directory.
        metric: Log key of the validation, larger being better.

    Returns:
        ``last``, ``best``, ``best_epoch``, ``epochs`` and, where logged,
        ``gradient_shares``: term to mean share.

    Raises:
        AblationError: the metric was never logged.
    """
    log = read_log(folder)
    series = series_of(log, metric)
    if not series:
        logged = sorted({key for entry in log for key in entry})
        raise AblationError(
            f'{folder}: no {metric!r} in the log. Name the validation '
            f'metric with --metric; logged were {", ".join(logged)}'
        )
    best = max(series, key=lambda point: point[1])
    shares = {}
    for entry in log:
        for key, value in entry.items():
            if GRADIENT_SHARE in key:
                term = key.replace(GRADIENT_SHARE, '')
                shares.setdefault(term, []).append(value)
    return dict(
        metric=metric,
        last=series[-1][1],
        best=best[1],
        best_epoch=best[0],
        epochs=series[-1][0],
        gradient_shares={
            term: sum(values) / len(values) for term, values in shares.items()
        },
    )
