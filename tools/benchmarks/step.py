"""What a distilled training step costs beside the student's alone.

    python tools/benchmarks/step.py [--pair faster_rcnn gfl cifar]

Whole training steps (preprocessing, forward, backward, SGD) on random images
with random weights: the student alone, with a teacher, RKKD, and the ways in
which others take a step (ways.py). One step of each in turn; ratios are to
the student's step of the same turn. On a CPU processor time is what counts,
as others may use the machine. Prints a table; --json and --figure keep it.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

import measure
import numpy as np
import step_report
import torch
import ways
from chosen_ways import build_steps
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from pairs import PAIRS, Pair, batch
from torch import nn

from mmrkkd.checkpoint.atomic import write_json

# A distilled step may cost this many times the student's own.
BAR = 1.15
DEFAULT_PAIRS = ('faster_rcnn', 'gfl', 'cifar')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--pair', nargs='+', choices=PAIRS, default=DEFAULT_PAIRS
    )
    parser.add_argument(
        '--device', choices=('auto', 'cpu', 'cuda'), default='auto'
    )
    parser.add_argument(
        '--steps', type=int, default=30, help='of each way, at most'
    )
    parser.add_argument(
        '--seconds', type=float, default=60.0, help='for the steps of a pair'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=3,
        metavar=('IMAGES', 'HEIGHT', 'WIDTH'),
        help="instead of the pair's own",
    )
    parser.add_argument(
        '--ways',
        nargs='*',
        metavar='WAY',
        help='only these rows of the table, beside the student alone',
    )
    parser.add_argument(
        '--methods',
        nargs='+',
        default=[],
        metavar='METHOD',
        help='more rows: as mmrkkd distill --method trains the pair',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision, on a GPU'
    )
    parser.add_argument(
        '--quick', action='store_true', help='tiny, to see that it runs'
    )
    parser.add_argument(
        '--memory',
        action='store_true',
        help='on a CPU measure the memory too, in a process of its own',
    )
    parser.add_argument('--peaks', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--json', type=Path, help='file to write')
    parser.add_argument('--figure', type=Path, help='picture to draw')
    args = parser.parse_args(argv)
    if args.device == 'auto':
        args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if args.amp and args.device == 'cpu':
        parser.error('--amp needs a GPU: MMEngine scales losses there only')
    return args


def clock(device: str) -> np.ndarray:
    """Wall time and processor time, once the device has done its work."""
    if device == 'cuda':
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def data_of(pair: Pair, args: argparse.Namespace) -> tuple[tuple, dict]:
    """Size of the batch, and a random one."""
    size = tuple(args.size or pair.size(args.device, args.quick))
    np.random.seed(0)
    return size, batch(pair, size)


def measure_pair(pair: Pair, args: argparse.Namespace) -> dict:
    """Every way's times, ratios, memory and size of a checkpoint."""
    size, data = data_of(pair, args)
    with DefaultScope.overwrite_default_scope(pair.scope):
        steps, failed = build_steps(pair, args, data)
        rounds = (2, 2) if args.quick else (5, max(5, args.steps))
        calls = {name: partial(step, data) for name, step in steps.items()}
        times = measure.interleaved(
            calls, args.seconds, rounds, partial(clock, args.device)
        )
        rows = [
            row_of(name, np.array(series), np.array(times[ways.ALONE]))
            for name, series in times.items()
        ]
        for row in rows:
            step = steps[row['way']]
            row['teacher'] = step.teacher
            row['checkpoint_mb'] = checkpoint_megabytes(step.model)
            if args.device == 'cuda':
                row['peak_mb'] = measure.cuda_peak_megabytes(calls[row['way']])
    return dict(
        title=pair.title + ', mixed precision' * args.amp,
        images='{} x 3 x {} x {}'.format(*size),
        rows=rows + failed,
    )


def checkpoint_megabytes(model: nn.Module | None) -> float | None:
    """Size of a file with a model's weights; None without a model."""
    if model is None:
        return None
    file = io.BytesIO()
    torch.save(dict(state_dict=model.state_dict()), file)
    return file.tell() / measure.MB


def measure_peaks(pair: Pair, args: argparse.Namespace) -> dict[str, float]:
    """Peak megabytes of each way on a CPU, beyond those between steps."""
    _, data = data_of(pair, args)
    with DefaultScope.overwrite_default_scope(pair.scope):
        steps, _ = build_steps(pair, args, data)
        return {
            way: measure.peak_megabytes(partial(step, data))
            for way, step in steps.items()
        }


def peaks_in_new_process(name: str, argv: list[str]) -> dict[str, float]:
    """measure_peaks in a process whose allocator keeps nothing."""
    done = subprocess.run(
        [sys.executable, __file__, *argv, '--peaks', '--pair', name],
        env=measure.memory_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def row_of(name: str, times: np.ndarray, alone: np.ndarray) -> dict:
    """A row of the table.

    Args:
        name: The way.
        times: (turns, 2), seconds of wall and processor time.
        alone: The same of the student alone.
    """
    row = dict(way=name, **measure.spread(times[:, 0].tolist()))
    row['processor_ms'] = 1e3 * float(np.median(times[:, 1]))
    for key, column in (('ratio', 0), ('processor_ratio', 1)):
        ratios = (times[:, column] / alone[:, column]).tolist()
        low, middle, high = measure.quartiles(ratios)
        row[key] = dict(median=middle, low=low, high=high)
    return row


def bars_of(result: dict) -> list[dict]:
    """What steps of ours cost, and what they may.

    ``measured`` is None for one that failed.
    """
    on_gpu = result['device'] == 'cuda'
    key = 'ratio' if on_gpu else 'processor_ratio'
    bars = []
    for pair in result['pairs']:
        for row in pair['rows']:
            if row['way'] == ways.OURS:
                ratio = row[key]['median'] if key in row else None
                bars.append(
                    dict(
                        name=f'{pair["title"]}: RKKD / student alone, '
                        f'{"wall" if on_gpu else "processor"} time',
                        measured=ratio,
                        at_most=BAR,
                        met=ratio is not None and ratio <= BAR,
                    )
                )
    return bars


def main(argv: list[str] | None = None) -> int:
    """Measures; returns 1 where a way of this project failed."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    for name in ('mmengine', 'step'):
        MMLogger.get_instance(name, log_level='ERROR')
    if args.peaks:
        print(json.dumps(measure_peaks(PAIRS[args.pair[0]], args)))
        return 0
    result = dict(
        device=args.device,
        environment=measure.environment(),
        pairs=[],
    )
    for name in args.pair:
        measured = measure_pair(PAIRS[name], args)
        result['pairs'].append(measured)
        if args.memory and args.device == 'cpu':
            peaks = peaks_in_new_process(name, argv)
            for row in measured['rows']:
                row['peak_mb'] = peaks.get(row['way'])
        if args.device == 'cuda':
            torch.cuda.empty_cache()
        # Nothing is said of mixed precision and of a rehearsal.
        judged = not (args.quick or args.amp)
        result['bars'] = bars_of(result) if judged else []
        result['text'] = step_report.markdown(result)
        if args.json:
            write_json(args.json, result)
        print(step_report.pair_table(result['pairs'][-1]), flush=True)
    if args.figure:
        step_report.draw(result, args.figure)
    rows = [row for pair in result['pairs'] for row in pair['rows']]
    failed = [row['way'] for row in rows if 'failure' in row]
    return int(not all(map(ways.is_others, failed)))


if __name__ == '__main__':
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
