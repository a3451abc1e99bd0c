"""The operator table on a GPU, and whether it is as fast as it should be.

    python tools/gpu/operators.py --json operators.json

The ranking term (standardisation and Kendall's tau), forward and backward,
in the ways of tools/benchmarks/backends.py, one call of each in turn. A call
is timed from outside until the GPU has done its work, launches included, and
once more on the GPU's own clock, replayed as a CUDA graph: what is left when
the launches of a step run ahead of the GPU. The bars are tried on both; one
that could not be measured is missed. Exit code 1 where the project's own
operator failed.
"""

import argparse
import sys
from itertools import product
from pathlib import Path

# The folders of the package and of its tools, so that a checkout works
# uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / 'benchmarks'))

import report
import run

from mmrkkd.checkpoint.atomic import write_json

OURS, PLAIN, COMPILED = 'fused', 'plain', 'plain, torch.compile'
# Rows and classes; the bars' shapes first.
SHAPES = ((64, 1000), (1024, 81), (512, 1000), (64, 100), (8, 21841))
QUICK_SHAPES = ((8, 50),)
FAST_AT = SHAPES[:2]
SMALL_AT = (512, 1000)
# Times faster than each, and megabytes beyond the inputs.
TIMES = {PLAIN: 20.0, COMPILED: 3.0}
CLOCKS = dict(median_ms='time', gpu_ms="GPU's own time")
MEGABYTES = 32.0


def bars_of(entries: list[dict], shapes: tuple = SHAPES) -> list[dict]:
    """Speed and memory against what they should be.

    Args:
        entries: What was measured.
        shapes: Rows and classes that were to be. Defaults to all.

    Returns:
        Each bar of these shapes; ``measured`` is None for what is missing.
    """
    found = {(e['rows'], e['classes'], e['backend']): e for e in entries}
    bars = []
    for shape in shapes:
        name, ours = '{} x {}'.format(*shape), found.get((*shape, OURS), {})
        if shape in FAST_AT:
            for (other, least), (key, what) in product(
                TIMES.items(), CLOCKS.items()
            ):
                slower = found.get((*shape, other), {})
                known = key in slower and key in ours
                ratio = slower[key] / ours[key] if known else None
                bars.append(
                    dict(
                        name=f'{name}: {other} / {OURS}, {what}',
                        measured=ratio,
                        at_least=least,
                        met=known and ratio >= least,
                    )
                )
        if shape == SMALL_AT:
            peak = ours.get('peak_mb')
            bars.append(
                dict(
                    name=f'{name}: peak MB beyond the inputs',
                    measured=peak,
                    at_most=MEGABYTES,
                    met=peak is not None and peak <= MEGABYTES,
                )
            )
    return bars


def write(path: Path, entries: list[dict], bars: list[dict]) -> None:
    """Writes what check.py reads."""
    text = report.gpu_table(entries)
    write_json(path, dict(entries=entries, bars=bars, text=text))


def main() -> int:
    """Measures, and writes after every number; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--json', type=Path, required=True)
    parser.add_argument('--quick', action='store_true', help='on the CPU')
    parser.add_argument(
        '--seconds', type=float, default=3.0, help='for each shape'
    )
    args = parser.parse_args()
    shapes = QUICK_SHAPES if args.quick else SHAPES
    device = 'cpu' if args.quick else 'cuda'
    entries = []
    for entry in run.measure_gpu(shapes, args.seconds, device, FAST_AT):
        entries.append(entry)
        print('{rows} x {classes}, {backend}: {median_ms:.4g} ms'.format(
            **entry), flush=True)  # fmt: skip
        # The others are not missing yet.
        known = [b for b in bars_of(entries) if b['measured'] is not None]
        write(args.json, entries, known)
    write(args.json, entries, bars_of(entries, shapes))
    ours = [entry for entry in entries if entry['backend'] == OURS]
    return int(len(ours) < len(shapes))


if __name__ == '__main__':
    sys.exit(main())
