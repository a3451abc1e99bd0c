"""What a cell leaves in its folder, and what can be read from it."""

import json
import shutil
from pathlib import Path
from typing import IO

from mmrkkd.checkpoint.locks import held
from mmrkkd.report.logs import log_files, read_log, validations
from mmrkkd.report.runs import RESULT, STATE

from . import ExperimentError
from .cells import Cell, differences

# Held by whoever trains or clears it. The first file of a cell, and empty.
LOCK = 'lock'


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


def locked(cell: Cell) -> IO:
    """Takes the lock of a cell, which whoever trains or clears it holds.

    Args:
        cell: The cell; its folder is there.

    Returns:
        The open file; closing it gives the lock back.

    Raises:
        ExperimentError: another process holds it.
    """
    try:
        return held(cell.folder / LOCK)
    except BlockingIOError as error:
        raise ExperimentError(
            f'{cell.folder} is being trained by another process; wait for '
            'it, or end it'
        ) from error


def clear_folder(cell: Cell, fresh: bool = False) -> None:
    """Makes room for a cell, unless its training stands finished there.

    For trainings that are repeated where something has changed, rather than
    refused.

    Args:
        cell: The cell.
        fresh: Empty the folder in any case. Defaults to False.

    Raises:
        ExperimentError: it holds foreign files, or another process trains
            there.
    """
    if not _to_be_cleared(cell, fresh):
        return
    with locked(cell):
        if _to_be_cleared(cell, fresh):
            _empty(cell.folder)


def _to_be_cleared(cell: Cell, fresh: bool) -> bool:
    state = _own_state(cell)
    stands = state.get('key') == cell.key and state['trained']
    return bool(state) and (
        fresh or not stands or not _checkpoint_is_there(cell)
    )


def _empty(folder: Path) -> None:
    """Removes everything but the lock, which is held.

    Interrupted, it is done again the next time: without a checkpoint nothing
    stands finished, and until the end the state says whose the files are.
    """
    (folder / 'last_checkpoint').unlink(missing_ok=True)
    for name in _files_of(folder) - {LOCK, STATE}:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (folder / STATE).unlink(missing_ok=True)


def _own_state(cell: Cell) -> dict:
    state = read_json(cell.folder / STATE)
    if not state and _files_of(cell.folder) - {LOCK}:
        raise ExperimentError(
            f'{cell.folder} is not empty and was not written by this tool; '
            'name another --work-dir'
        )
    return state


def _files_of(folder: Path) -> set[str]:
    return (
        {path.name for path in folder.iterdir()} if folder.exists() else set()
    )


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
