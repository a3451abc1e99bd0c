"""Files and folders that one process holds."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

# In a folder that is held. Folder to its open file, and how often it is held.
LOCK = '.lock'
_HELD: dict[Path, tuple[IO, int]] = {}


def held(path: str | os.PathLike) -> IO:
    """Holds an empty file until it is closed, or the process ends.

    A file system that cannot lock keeps nobody out.

    Args:
        path: The file; it is made, and stays.

    Returns:
        The open file.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, 'w'))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass
        stack.pop_all()
    return file


def hold_folder(folder: str | os.PathLike) -> None:
    """Keeps other processes from training in a folder.

    It is held until :func:`let_go` was called as often, or the process
    ends. What it forks, workers that load data, does not hold it on.

    Args:
        folder: The folder; it is made.

    Raises:
        FileExistsError: another process holds it.
        OSError: it cannot be made.
    """
    folder = Path(folder).resolve()
    if folder in _HELD:
        file, times = _HELD[folder]
        _HELD[folder] = file, times + 1
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _HELD[folder] = held(folder / LOCK), 1
    except BlockingIOError as error:
        raise FileExistsError(
            f'the work directory {folder} is being trained in by another '
            'process: wait for it, or give another one with --work-dir'
        ) from error


def let_go(folder: str | os.PathLike) -> None:
    """Gives back what :func:`hold_folder` holds; else nothing happens.

    Args:
        folder: The folder.
    """
    folder = Path(folder).resolve()
    file, times = _HELD.pop(folder, (None, 0))
    if times > 1:
        _HELD[folder] = file, times - 1
    elif times:
        file.close()


def _forget() -> None:
    for file, _ in _HELD.values():
        file.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_forget)
