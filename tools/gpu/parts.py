"""Parts of a long check: each in processes of its own, under a limit.

::

    parts = [
        Part('tests', ['-m', 'pytest', 'tests'], seconds=120),
        Part(
            'steps',
            ['tools/benchmarks/step.py', '--json', path],
            seconds=90,
            result=path,
        ),
    ]
    with ended_like_interrupted():
        outcomes = run_parts(
            parts,
            folder / 'check.log',
            scratch,
            seconds=480,
            changed=lambda outcomes: write_report(outcomes),
        )

A part is a Python script and its arguments. What it prints goes into one log
for all parts as it comes, each line with the seconds since the start and the
part's name. A part that measures writes a JSON object to its ``result``, by
:func:`mmrkkd.checkpoint.atomic.write_json` and again after each number:
``changed`` is called whenever the file has grown or a part has ended, so
that nothing measured is lost, whatever happens afterwards. Over its limit a
part is ended with everything that it started; the others go on. Side by side
they run with ``jobs`` above 1. Scripts that use this module put the checkout
and its ``tools`` on ``sys.path`` first, as check.py does.
"""

import contextlib
import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from experiments.processes import Process, threads_of

SECONDS_BETWEEN_LOOKS = 0.2
# No part is started that has less than this left.
LEAST_SECONDS = 5.0
PASSED, FAILED, OVER, NOT_STARTED, RUNNING = (
    'passed',
    'failed',
    'over its limit',
    'not started',
    'running',
)


@dataclass(frozen=True)
class Part:
    """Something to run.

    Args:
        name: Short, of letters; its column in the log.
        command: Arguments for this Python: a script and its arguments, or
            '-m', a module and its arguments.
        seconds: The longest that it may take, > 0.
        result: JSON file that it writes. Defaults to None, it writes none.
        threads: OpenMP threads. Defaults to None, the cores divided by the
            number of jobs.
    """

    name: str
    command: Sequence[object]
    seconds: float
    result: Path | None = None
    threads: int | None = None


@dataclass
class Outcome:
    """What became of a part.

    Args:
        name: The part's.
        state: One of this module's PASSED, FAILED, OVER, NOT_STARTED,
            RUNNING.
        seconds: Wall time.
        limit: What it was allowed, in seconds.
        code: Exit code; negative for a signal, None without an end.
        result: What its JSON file says; {} without one.
        output: The end of what it printed.
    """

    name: str
    state: str = NOT_STARTED
    seconds: float = 0.0
    limit: float = 0.0
    code: int | None = None
    result: dict = field(default_factory=dict)
    output: str = ''


class _Running:
    """A part at work."""

    def __init__(
        self, part: Part, outcome: Outcome, scratch: Path, threads: int
    ) -> None:
        self.part, self.outcome = part, outcome
        self.start = time.monotonic()
        self.written = None
        outcome.state = RUNNING
        self.process = Process(
            part.command, scratch / f'{part.name}.log', part.threads or threads
        )

    def look(self) -> tuple[list[str], bool]:
        """New lines of output; whether the outcome has changed."""
        lines = self.process.poll()
        self.outcome.seconds = time.monotonic() - self.start
        changed = self._read_result()
        ended = self.process.code is not None
        if ended or self.outcome.seconds > self.outcome.limit:
            lines += self._end(PASSED if ended else OVER)
            changed = True
        return lines, changed

    def _end(self, state: str) -> list[str]:
        """Ends all of its processes; the last lines of output."""
        outcome, process = self.outcome, self.process
        lines = process.poll()
        self.stop()
        self._read_result()
        outcome.code, outcome.output = process.code, process.output
        outcome.state = FAILED if state == PASSED and process.code else state
        return lines

    def stop(self) -> None:
        """Leaves nothing of it behind, whatever its processes started."""
        self.process.stop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _read_result(self) -> bool:
        path = self.part.result
        if path is None or not path.is_file():
            return False
        written = path.stat().st_mtime_ns
        if written == self.written:
            return False
        try:
            self.outcome.result = json.loads(path.read_text())
        except ValueError:
            return False  # It is being written: look again.
        self.written = written
        return True


def run_parts(
    parts: Sequence[Part],
    log: Path,
    scratch: Path,
    seconds: float = float('inf'),
    jobs: int = 1,
    changed: Callable[[list[Outcome]], None] | None = None,
) -> list[Outcome]:
    """Runs every part to its end or its limit.

    Args:
        parts: In the order of their start.
        log: File that all output is added to.
        scratch: Folder for what need not be kept.
        seconds: Time for all: the limit of a part is cut to what is left,
            and none is started with less than 5 s. Defaults to no limit.
        jobs: How many run side by side, >= 1. Defaults to 1.
        changed: Called with all outcomes whenever there is something new.

    Returns:
        One outcome for each part, in their order.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    outcomes = [Outcome(part.name) for part in parts]
    waiting, running = deque(zip(parts, outcomes, strict=True)), []
    with open(log, 'a', buffering=1) as file:
        try:
            while waiting or running:
                news = False
                while waiting and len(running) < jobs:
                    part, outcome = waiting.popleft()
                    left = seconds - (time.monotonic() - start)
                    if left < LEAST_SECONDS:
                        _note(file, start, part.name, 'not started: no time')
                        continue
                    outcome.limit = min(part.seconds, left)
                    text = f'started, up to {outcome.limit:.0f} s'
                    _note(file, start, part.name, text)
                    running.append(
                        _Running(part, outcome, scratch, threads_of(jobs))
                    )
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for work in list(running):
                    news |= _watched(work, running, file, start)
                if news and changed is not None:
                    changed(outcomes)
        finally:
            for work in running:
                work.stop()
    return outcomes


def _watched(
    work: _Running, running: list, file: TextIO, start: float
) -> bool:
    """Logs what a part has printed; whether there is something new."""
    lines, news = work.look()
    name, outcome = work.part.name, work.outcome
    for line in lines:
        _note(file, start, name, line)
    if outcome.state != RUNNING:
        running.remove(work)
        text = f'{outcome.state} after {outcome.seconds:.1f} s'
        _note(file, start, name, f'{text}, exit code {outcome.code}')
    return news


def _note(file: TextIO, start: float, name: str, line: str) -> None:
    """A line of the log, on the screen too."""
    text = f'{time.monotonic() - start:7.1f} {name:10} {line}'
    file.write(text + '\n')
    print(text, flush=True)
