"""What a training takes of its machine, measured from outside."""

import statistics
import time
from dataclasses import asdict, dataclass

import psutil

# The first tenth warms caches up: allocators, cuDNN, the log's window.
WARM_UP = 0.1
# How much more the last quarter may take than the first, in percent. Memory
# breathes with the sizes of the batches; handles and threads are counted.
LIMITS = {
    'memory_mib': 2.0,
    'open_files': 0.0,
    'threads': 0.0,
    'step_cpu_ms': 5.0,
}


@dataclass
class Sample:
    """One look at a process and everything that it started.

    Args:
        seconds: Since the watch began.
        memory_mib: Memory of their own, which nobody else shares (unique
            set size).
        resident_mib: Resident memory, shared pages counted in each.
        open_files: File descriptors.
        threads: Threads.
        cpu_seconds: Processor time that the training itself has used, its
            data workers not counted.
    """

    seconds: float
    memory_mib: float
    resident_mib: float
    open_files: int
    threads: int
    cpu_seconds: float


def look(process: psutil.Process, start: float) -> Sample:
    """Samples a process and its children.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    times = process.cpu_times()
    found = [_of_one(process)]
    for child in process.children(recursive=True):
        try:
            found.append(_of_one(child))
        except psutil.NoSuchProcess:
            continue  # A data worker that has just ended.
    memory, resident, files, threads = map(sum, zip(*found, strict=True))
    return Sample(
        seconds=round(time.time() - start, 2),
        memory_mib=memory / 2**20,
        resident_mib=resident / 2**20,
        open_files=files,
        threads=threads,
        cpu_seconds=times.user + times.system,
    )


def _of_one(process: psutil.Process) -> tuple[int, int, int, int]:
    memory = process.memory_full_info()
    return memory.uss, memory.rss, process.num_fds(), process.num_threads()


def quarters(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Medians of the first and the last quarter after the warm-up.

    Args:
        points: (time, value), in the order of time.

    Raises:
        ValueError: fewer than eight points are left after the warm-up.
    """
    begin, end = points[0][0], points[-1][0]
    start = begin + WARM_UP * (end - begin)
    quarter = (end - start) / 4
    values = [value for when, value in points if when >= start]
    if len(values) < 8:
        raise ValueError(
            f'{len(values)} points after the warm-up are too few to compare, '
            'at least 8 are needed: watch for longer'
        )
    return (
        statistics.median(
            v for t, v in points if start <= t <= start + quarter
        ),
        statistics.median(v for t, v in points if t >= end - quarter),
    )


def judge(series: dict[str, list[tuple[float, float]]]) -> dict[str, dict]:
    """Compares the end of a watch with its beginning.

    Args:
        series: Name to (time, value) pairs; those in ``LIMITS`` are judged,
            the others compared only.

    Returns:
        Name to ``first``, ``last`` (medians of quarters), ``percent`` (how
        much more the last is), ``limit`` (percent, or None) and ``grew``.
    """
    found = {}
    for name, points in series.items():
        first, last = quarters(points)
        percent = 100 * (last - first) / first
        limit = LIMITS.get(name)
        found[name] = dict(
            first=first,
            last=last,
            percent=percent,
            limit=limit,
            grew=limit is not None and percent > limit,
        )
    return found


def series_of(
    samples: list[Sample],
    steps: list[tuple[float, int]],
    step_seconds: list[tuple[int, float]],
) -> dict[str, list[tuple[float, float]]]:
    """The curves of a watch, over seconds.

    Args:
        samples: In the order of time.
        steps: (seconds, training steps done) when the log grew.
        step_seconds: (step, seconds of a step) as the training logged them.

    Returns:
        The fields of a sample, ``step_ms`` (wall time of a step, from the
        log) and ``step_cpu_ms`` (processor time of a step with everything
        between the steps: checkpoints, validations, the log).
    """
    series = {
        name: [(sample.seconds, getattr(sample, name)) for sample in samples]
        for name in asdict(samples[0])
        if name not in ('seconds', 'cpu_seconds')
    }
    done = {step: seconds for seconds, step in steps}
    series['step_ms'] = [
        (done[step], 1000 * value)
        for step, value in step_seconds
        if step in done
    ]
    series['step_cpu_ms'] = _cpu_of_steps(samples, steps)
    return series


def _cpu_of_steps(
    samples: list[Sample], steps: list[tuple[float, int]]
) -> list[tuple[float, float]]:
    # Windows of a twentieth of the watch each hold about as many
    # checkpoints and validations as any other.
    window = (steps[-1][0] - steps[0][0]) / 20
    points, (begin, first) = [], steps[0]
    for seconds, step in steps[1:]:
        if seconds - begin < window:
            continue
        used = _cpu_at(samples, seconds) - _cpu_at(samples, begin)
        points.append((seconds, 1000 * used / (step - first)))
        begin, first = seconds, step
    return points


def _cpu_at(samples: list[Sample], seconds: float) -> float:
    """Processor time at a moment, between two samples by interpolation."""
    before = samples[0]
    for sample in samples[1:]:
        if sample.seconds >= seconds:
            share = (seconds - before.seconds) / (
                sample.seconds - before.seconds
            )
            return before.cpu_seconds + share * (
                sample.cpu_seconds - before.cpu_seconds
            )
        before = sample
    return before.cpu_seconds
