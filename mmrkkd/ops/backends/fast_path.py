"""A path that is fast where it works, and says so where it does not."""

import logging
import subprocess
from collections.abc import Callable, Hashable

import torch

logger = logging.getLogger(__name__)


class FastPath:
    """Calls a function that may not work on this machine.

    Where it fails, the log says once why, and what is used instead; the
    same kind of call is not tried again. A lack of memory is no such
    failure: it is raised.

    Args:
        load: Imports the function and returns it.
        name: What it is, for the log.
        instead: What is used where it fails, for the log.
    """

    def __init__(
        self, load: Callable[[], Callable], name: str, instead: str
    ) -> None:
        self.load, self.name, self.instead = load, name, instead
        self.broken: set[Hashable] = set()
        self.said: set[str] = set()

    def __call__(self, kind: Hashable, *args: object) -> object | None:
        """What the function gives, or None where it does not work.

        Args:
            kind: What a failure is remembered for, such as the shape.
            args: The function's.
        """
        if kind in self.broken:
            return None
        try:
            return self.load()(*args)
        except torch.cuda.OutOfMemoryError:
            raise
        except failures() as error:
            self.broken.add(kind)
            self._say(error)
            return None

    def _say(self, error: Exception) -> None:
        lines = str(error).strip().splitlines() or ['no message']
        reason = f'{type(error).__name__}: {lines[-1]}'
        if reason not in self.said:
            self.said.add(reason)
            logger.warning(
                'mmrkkd uses %s, which is slower: %s does not work here (%s)',
                self.instead,
                self.name,
                reason,
            )


def failures() -> tuple[type[Exception], ...]:
    """What Triton raises where it, its compiler or a kernel does not work.

    It builds its launcher with a C compiler, and needs a device of compute
    capability 7 or more.
    """
    known = (ImportError, OSError, RuntimeError, subprocess.SubprocessError)
    try:
        from triton.errors import TritonError
    except ImportError:
        return known
    return (*known, TritonError)
