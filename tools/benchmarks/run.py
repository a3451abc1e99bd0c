"""Speed, memory and accuracy of the operators, in one table.

    python tools/benchmarks/run.py [--quick]

Forward and backward in float32, standardisation included, on the CPU with
all of PyTorch's threads; on the GPU too where there is one. Prints Markdown
and writes it with a JSON file and a picture to the work directory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

import backends
import measure
import ranks
import report
import torch

SHAPES = ((64, 100), (1024, 81), (64, 1000), (512, 1000), (8, 21841))
QUICK_SHAPES = ((64, 100), (64, 1000))
CURVE = (100, 316, 1000, 3162, 10000, 31623, 131072)
QUICK_CURVE = (100, 316, 1000, 3162)
CURVE_ROWS = 4
# The plain form is left out where it would need more than this.
PLAIN_MEGABYTES = 3000
# torch.compile and the fallback are left out beyond this many pairs.
SLOW_PAIRS = 5e8
FIRST_CALL = """
import time, torch
from mmrkkd.ops import kendall_tau
logits = torch.randn(2, 64, 1000)
start = time.perf_counter()
kendall_tau(logits[0].requires_grad_(), logits[1].detach()).sum().backward()
print(time.perf_counter() - start)
"""


def usable(rows: int, classes: int, with_compile: bool = True) -> dict:
    """The backends that finish this shape in time and memory."""
    chosen = backends.tau_backends(with_compile)
    if backends.plain_megabytes(rows, classes) > PLAIN_MEGABYTES:
        chosen.pop('plain')
        chosen.pop('plain, torch.compile', None)
    if rows * classes**2 > SLOW_PAIRS:
        chosen.pop('chunked')
    return chosen


def measure_tau(rows: int, classes: int, seconds: float) -> list:
    """One entry of the table for each backend."""
    student, teacher = backends.logits(rows, classes)
    steps = {
        name: backends.step(function, student, teacher)
        for name, function in usable(rows, classes).items()
    }
    times = measure.interleaved(steps, seconds, rounds=(5, 200))
    entries = []
    for name, series in times.items():
        entry = dict(rows=rows, classes=classes, backend=name, device='cpu')
        entry.update(measure.spread(series))
        # torch.compile computes what the plain form does.
        impl = 'eager' if name.startswith('plain') else name
        some = slice(0, 4)
        entry['tau_error'], entry['gradient_error'] = backends.tau_errors(
            impl, student[some], teacher[some]
        )
        entries.append(entry)
    return entries


def measure_curve(sizes: tuple, seconds: float) -> list:
    """Time against the number of classes, few rows."""
    entries = []
    for classes in sizes:
        student, teacher = backends.logits(CURVE_ROWS, classes)
        steps = {
            name: backends.step(function, student, teacher)
            for name, function in usable(CURVE_ROWS, classes, False).items()
        }
        times = measure.interleaved(steps, seconds, rounds=(3, 50))
        entries += [
            dict(
                rows=CURVE_ROWS,
                classes=classes,
                backend=name,
                **measure.spread(series),
            )
            for name, series in times.items()
        ]
    return entries


def measure_memory(shapes: list) -> dict[str, float]:
    """Peak megabytes of each shape and backend; see --memory."""
    peaks = {}
    for rows, classes in shapes:
        student, teacher = backends.logits(rows, classes)
        for name, function in usable(rows, classes, False).items():
            peaks[f'{rows} {classes} {name}'] = measure.peak_megabytes(
                backends.step(function, student, teacher)
            )
    return peaks


def memory_in_new_process(shapes: list) -> dict[str, float]:
    """measure_memory in a process whose allocator keeps nothing."""
    done = subprocess.run(
        [sys.executable, __file__, '--memory', json.dumps(shapes)],
        env=measure.memory_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_gpu(
    shapes: tuple,
    seconds: float,
    device: str = 'cuda',
    compiled: tuple | None = None,
) -> Iterator[dict]:
    """The same on the GPU, with its own peak memory, as it is measured.

    Args:
        shapes: Rows and classes.
        seconds: For each shape.
        device: 'cpu' rehearses it, without memory. Defaults to 'cuda'.
        compiled: Shapes at which the plain form is compiled too, for some
            seconds each. Defaults to all.
    """
    on_gpu = device == 'cuda'
    for rows, classes in shapes:
        student, teacher = backends.logits(rows, classes, device)
        steps, calls = {}, {}
        with_compile = compiled is None or (rows, classes) in compiled
        for name, function in usable(rows, classes, with_compile).items():
            calls[name] = call = backends.step(function, student, teacher)

            def timed(call=call):
                call()
                if on_gpu:
                    torch.cuda.synchronize()

            try:
                timed()
                steps[name] = timed
            except Exception as error:
                # No compiler, no memory, a kernel that Triton refuses: the
                # others are measured.
                print(f'{name} is left out: {error}', file=sys.stderr)
        times = measure.interleaved(steps, seconds, rounds=(10, 500))
        for name, series in times.items():
            entry = dict(
                rows=rows,
                classes=classes,
                backend=name,
                device=device,
                **measure.spread(series),
            )
            if on_gpu:
                entry['peak_mb'] = measure.cuda_peak_megabytes(steps[name])
                own = measure.cuda_graph_times(calls[name])
                if own is not None:
                    entry['gpu_ms'] = measure.spread(own)['median_ms']
            yield entry


def first_calls() -> dict[str, float]:
    """Seconds of the first call: nothing built yet, and a later process."""
    with tempfile.TemporaryDirectory() as cache:
        return {
            name: measure.seconds_in_new_process(
                FIRST_CALL, XDG_CACHE_HOME=cache
            )
            for name in ('nothing built', 'a later process')
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--quick', action='store_true', help='about a minute')
    parser.add_argument('--work-dir', default='work_dirs/benchmarks')
    parser.add_argument('--memory', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(measure_memory(json.loads(args.memory))))
        return
    start = time.perf_counter()
    shapes = QUICK_SHAPES if args.quick else SHAPES
    curve_sizes = QUICK_CURVE if args.quick else CURVE
    seconds = 2.0 if args.quick else 8.0
    result = dict(environment=measure.environment())
    result['first_call_s'] = first_calls()
    result['tau'], rates = [], []
    for shape in shapes:
        rates.append(measure.arithmetic_rate())
        result['tau'] += measure_tau(*shape, seconds)
    # What else runs on the machine can only lower a rate.
    result['multiply_adds_per_second'] = max(rates)
    for entry in result['tau']:
        entry['floor_ms'] = 1e3 * report.floor_seconds(
            entry['rows'], entry['classes'], max(rates)
        )
    result['soft_rank'] = ranks.times(seconds / 4)
    result['soft_rank_agreement'] = ranks.agreement()
    result['curve'] = measure_curve(curve_sizes, seconds / 4)
    if torch.cuda.is_available():
        result['gpu'] = list(measure_gpu(shapes, seconds))
    peaks = memory_in_new_process(
        [*shapes, *((CURVE_ROWS, classes) for classes in curve_sizes)]
    )
    for entry in result['tau'] + result['curve']:
        key = '{rows} {classes} {backend}'.format(**entry)
        entry['peak_mb'] = peaks.get(key)
    result['seconds'] = time.perf_counter() - start
    report.write(result, Path(args.work_dir))


if __name__ == '__main__':
    main()
