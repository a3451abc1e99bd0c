"""Files that are written whole or not at all."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mmengine.fileio import LocalBackend, register_backend

BACKEND = 'mmrkkd_atomic'
PARTIAL = '.partial'
WRITTEN_AT_ONCE = 2**24


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Replaces a file at one stroke.

    The bytes go into ``<path>.partial`` beside it, are forced onto the disk
    and take the name ``path`` when they are complete. Whatever happens
    before, a kill or a full disk, leaves the old file as it was. Of several
    who write it at once each waits for the one before.

    Args:
        path: The file; its folder is made if need be.
        content: What will be in it.

    Raises:
        OSError: it could not be written; nothing is left of the attempt.
    """
    path = Path(path)
    partial = path.with_name(path.name + PARTIAL)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _told_and_removed(path, partial), _opened_alone(partial) as file:
        view = memoryview(content)
        for start in range(0, len(view), WRITTEN_AT_ONCE):
            file.write(view[start : start + WRITTEN_AT_ONCE])
        file.flush()
        os.fsync(file.fileno())
        os.replace(partial, path)
    _sync_folder(path.parent)


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


@contextlib.contextmanager
def _opened_alone(partial: Path) -> Iterator[IO[bytes]]:
    """An empty file that nobody else writes; waits for who does."""
    while True:
        with open(partial, 'ab') as file:
            # Some file systems cannot lock.
            with contextlib.suppress(OSError):
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            try:
                is_it = os.path.samestat(
                    os.fstat(file.fileno()), partial.stat()
                )
            except FileNotFoundError:
                is_it = False
            if is_it:
                file.truncate(0)
                yield file
                return
        # Who had it has given it its name, or taken it away.


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
