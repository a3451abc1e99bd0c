"""Files that one process holds."""

import contextlib
import fcntl
import os
from typing import IO


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
