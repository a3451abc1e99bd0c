"""Time, memory and the machine: the measuring, not what is measured."""

import gc
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from mmrkkd.report.surroundings import commit, output_of, processor

MB = 2**20
# Of a captured call.
REPLAYS = 50


def turns(
    names: Iterable[str], seconds: float, rounds: tuple[int, int]
) -> Iterator[str]:
    """Each name in turn, round after round.

    Turns spread whatever else the machine does over all of them, so that
    ratios hold where the times themselves do not. A round ends the series
    once ``seconds`` are used up.

    Args:
        names: What takes turns.
        seconds: Time to spend, beyond the fewest rounds.
        rounds: Fewest and most turns of each.
    """
    names = list(names)
    end = time.perf_counter() + seconds
    for done in range(rounds[1]):
        if done >= rounds[0] and time.perf_counter() > end:
            break
        yield from names


def interleaved(
    functions: dict[str, Callable[[], object]],
    seconds: float,
    rounds: tuple[int, int],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list]:
    """Times of each function, in :func:`turns`.

    Args:
        functions: Name to what is timed. Each is called once before.
        seconds: See :func:`turns`.
        rounds: See :func:`turns`.
        clock: What tells the time. Its times may be arrays, for several
            clocks at once. Defaults to wall time in seconds.

    Returns:
        Name to the times of its calls.
    """
    for function in functions.values():
        function()
    times = {name: [] for name in functions}
    for name in turns(functions, seconds, rounds):
        start = clock()
        functions[name]()
        times[name].append(clock() - start)
    return times


def spread(times: list[float]) -> dict[str, float]:
    """Median and quartiles, in milliseconds."""
    low, middle, high = quartiles(times)
    return dict(
        median_ms=1e3 * middle,
        low_ms=1e3 * low,
        high_ms=1e3 * high,
        calls=len(times),
    )


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values * 3
    return statistics.quantiles(values, n=4, method='inclusive')


def cuda_peak_megabytes(function: Callable[[], object]) -> float:
    """Most GPU memory in use during a call, beyond that at its start."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MB


def cuda_graph_times(function: Callable[[], object]) -> list[float] | None:
    """Seconds of the GPU's own work in a call, launches left out.

    The call is captured once in a CUDA graph, and its replays are timed by
    the GPU's clock.

    Args:
        function: What is timed.

    Returns:
        A time for each of ``REPLAYS``; None where the call cannot be captured.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph, times = torch.cuda.CUDAGraph(), []
    try:
        with torch.cuda.graph(graph):
            function()
    except RuntimeError as error:
        print(f'not captured: {error}', file=sys.stderr)
        return None
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return times


def peak_megabytes(function: Callable[[], object]) -> float | None:
    """Peak resident memory beyond that at the start, or None if unknown.

    The kernel's own high-water mark (Linux), reset before the call. Run the
    process with :func:`memory_environment`, or freed blocks that the
    allocator keeps make the next call look smaller than it is.
    """
    try:
        function()
        gc.collect()
        Path('/proc/self/clear_refs').write_text('5')
        before = _resident('VmRSS')
        function()
        return (_resident('VmHWM') - before) / 1024
    except OSError:
        return None


def _resident(field: str) -> int:
    status = Path('/proc/self/status').read_text()
    return int(re.search(rf'{field}:\s+(\d+)', status).group(1))


def memory_environment() -> dict[str, str]:
    """Has glibc give every block above 64 kB back as soon as it is freed."""
    return {
        **os.environ,
        'MALLOC_MMAP_THRESHOLD_': '65536',
        'MALLOC_TRIM_THRESHOLD_': '65536',
        'MALLOC_TOP_PAD_': '0',
    }


def arithmetic_rate() -> float:
    """Multiply-adds a second of these cores, in float32.

    Half the FLOP/s of a large matrix product, which keeps every vector unit
    busy: what the floor of docs/en/algebra.md is counted in. The best of
    several, as others may be using the machine.
    """
    size = 1024
    left, right = torch.randn(2, size, size)
    best = float('inf')
    for _ in range(12):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return size**3 / best


def seconds_in_new_process(code: str, **environment: str) -> float:
    """Runs code in a new Python; it prints the seconds that it measured."""
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def environment() -> dict[str, object]:
    """What the numbers were measured on and with."""
    cuda = torch.cuda.is_available()
    return dict(
        date=time.strftime('%Y-%m-%d'),
        commit=commit(Path(__file__).parents[2]),
        python=platform.python_version(),
        torch=torch.__version__,
        compiler=output_of('cc', '--version').split('\n')[0],
        processor=f'{processor()}, {os.cpu_count()} cores',
        vectors=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if cuda else 'none',
        load_average=round(os.getloadavg()[0], 1),
    )
