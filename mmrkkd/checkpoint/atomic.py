"""Files that are written whole or not at all."""

import contextlib
import glob
import json
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

BACKEND = 'mmrkkd_atomic'
PARTIAL = '.partial'
WRITTEN_AT_ONCE = 2**24


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Replaces a file at one stroke.

    The bytes go into ``<path>.<host>.<process>.partial`` beside it, are
    forced onto the disk and take the name ``path`` when they are complete.
    Whatever happens before, a kill or a full disk, leaves the old file as it
    was; of several who write it at once the last one's is left. What a
    killed process of this machine has left of the file is removed.

    Args:
        path: The file; its folder is made if need be.
        content: What will be in it.

    Raises:
        OSError: it could not be written; nothing is left of the attempt.
    """
    path = Path(path)
    name = f'{path.name}.{platform.node()}.'
    own = f'{os.getpid()}-{threading.get_ident()}'
    partial = path.with_name(f'{name}{own}{PARTIAL}')
    path.parent.mkdir(parents=True, exist_ok=True)
    with _told_and_removed(path, partial):
        for left in path.parent.glob(f'{glob.escape(name)}*{PARTIAL}'):
            if not _is_alive(left.name.removeprefix(name)):
                left.unlink(missing_ok=True)
        with open(partial, 'wb') as file:
            view = memoryview(content)
            for start in range(0, len(view), WRITTEN_AT_ONCE):
                file.write(view[start : start + WRITTEN_AT_ONCE])
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    _sync_folder(path.parent)


def _is_alive(own: str) -> bool:
    """Whether the process that a name ends with is still there."""
    number = own.partition('-')[0]
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        # Another user's, or no number.
        return True
    return True


def write_json(path: str | os.PathLike, content: dict) -> None:
    """Writes a JSON file by :func:`write_atomically`.

    Args:
        path: The file.
        content: What :mod:`json` can hold.

    Raises:
        OSError: it could not be written.
        TypeError: JSON cannot hold the content.
    """
    text = json.dumps(content, indent=2) + '\n'
    write_atomically(path, text.encode())


@contextlib.contextmanager
def _told_and_removed(path: Path, partial: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if not isinstance(error, OSError):
            raise
        raise OSError(
            error.errno,
            f'{path} could not be written ({error.strerror or error}); the '
            'files written before are untouched',
        ) from error


def _sync_folder(folder: Path) -> None:
    """Makes a new name in a folder last through a power cut."""
    # Some file systems (network, FUSE) cannot; the file itself is safe.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class AtomicBackend(LocalBackend):
    """MMEngine's local files, written by :func:`write_atomically`."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Writes bytes.

        Args:
            obj: What to write.
            filepath: Where to.
        """
        try:
            write_atomically(filepath, obj)
        except OSError as error:
            raise OSError(
                error.errno,
                f'{error.strerror}. Make room or mend the disk, then go on '
                'with --resume',
            ) from error


register_backend(BACKEND, AtomicBackend, force=True)
