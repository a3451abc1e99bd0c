"""A command in a process of its own, its output in a file."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import ROOT, ExperimentError

# Small images: more threads than this only wait for each other.
MAX_THREADS = 8
SECONDS_TO_STOP = 10
SECONDS_BETWEEN_LOOKS = 0.1
LOG_LINES_SHOWN = 20
OUTPUT_KEPT = 20_000


@contextlib.contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """Has SIGTERM, with which a batch system ends its jobs, act as Ctrl-C.

    Processes in sessions of their own would outlive this one otherwise.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def threads_of(jobs: int = 1) -> int:
    """OpenMP threads for each of some processes side by side."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores // jobs, MAX_THREADS))


def shown(command: Sequence[object]) -> str:
    """A Python script's command as a line to paste into a shell."""
    words = [str(word).removeprefix(f'{ROOT}/') for word in command]
    return shlex.join(['python', *words])


class Process:
    """A Python script at work in a session of its own.

    Args:
        command: The script and its arguments.
        log: File that its output is added to.
        threads: Its OpenMP threads.
        pass_fds: File descriptors that it keeps open.
    """

    def __init__(
        self,
        command: Sequence[object],
        log: Path,
        threads: int,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.command, self.log = command, log
        self.output, self._partial = '', ''
        # Of the whole life, once it has ended.
        self.processor_seconds = 0.0
        with open(log, 'a') as file:
            # Before the start: the process moves the place that both share.
            offset = file.tell()
            self._process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                env=_environment(threads),
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        self._reader = open(log, errors='replace')  # noqa: SIM115
        self._reader.seek(offset)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it ended; None while it is at work."""
        return self._process.returncode

    def poll(self) -> list[str]:
        """Looks whether it has ended; the lines printed since the last look.

        ``code`` says afterwards how it ended.
        """
        if self.code is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                self.processor_seconds = usage.ru_utime + usage.ru_stime
        text = self._reader.read()
        self.output = (self.output + text)[-OUTPUT_KEPT:]
        *lines, self._partial = (self._partial + text).split('\n')
        return lines

    def stop(self) -> None:
        """Ends it and everything that it started."""
        if self.code is None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(self.pid, number)
                    self._process.wait(SECONDS_TO_STOP)
                    break
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue
        self._reader.close()

    def failure(self) -> str:
        """How it ended and the end of its output."""
        end = ''.join(
            f'\n    {line}'
            for line in self.output.splitlines()[-LOG_LINES_SHOWN:]
        )
        return f'ended with code {self.code}, see {self.log}{end}'


def run_to_end(command: Sequence[object], log: Path) -> str:
    """Runs a script; returns the end of its output.

    Raises:
        ExperimentError: it failed; the message ends with its output.
    """
    process = Process(command, log, threads_of())
    try:
        while process.code is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            process.poll()
    finally:
        process.stop()
    if process.code:
        raise ExperimentError(f'{shown(command)}\n{process.failure()}')
    return process.output


def _environment(threads: int) -> dict[str, str]:
    variables = dict(
        os.environ, PYTHONUNBUFFERED='1', OMP_NUM_THREADS=str(threads)
    )
    # Waiting threads that spin take the cores from those that work: with
    # anything else on the machine a step takes ten times as long.
    variables.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    variables['PYTHONPATH'] = os.pathsep.join(
        filter(None, [str(ROOT), variables.get('PYTHONPATH')])
    )
    return variables
