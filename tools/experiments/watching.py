"""What a training takes of its machine, measured from outside."""

import time
from dataclasses import asdict, dataclass

import psutil


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
