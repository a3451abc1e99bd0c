"""Which tiles the ranking kernels are fastest with, on a GPU.

    python tools/benchmarks/tiles.py --json tiles.json

Times of both kernels, launches left out (events on the GPU's own clock),
for the shapes below and each tile: classes of a program, classes a step,
warps. What it prints goes into TILES of rank_term_triton.py.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

import torch

from mmrkkd.checkpoint.atomic import write_json
from mmrkkd.ops.backends import rank_term_triton as triton_path

SHAPES = [(64, 1000), (1024, 81), (512, 1000), (64, 100)]
TILES = [
    (64, 32, 4),
    (32, 32, 2),
    (64, 32, 2),
    (128, 32, 4),
    (128, 32, 8),
    (32, 32, 1),
    (64, 64, 4),
    (16, 32, 1),
]
CALLS, ROUNDS = 10, 5


def microseconds(student, teacher, tile) -> float:
    """Median time of one call of both kernels."""
    triton_path.TILES = ((1 << 31, *tile),)
    rest = [None] * 4, 1.0, 1.0, 1, True, 1e-7, 1.0, True

    def call():
        triton_path.rank_term_triton(student, teacher, *rest[0], *rest[1:])

    call()
    times = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # Work ahead of the clock, so that launches do not count.
        torch.cuda._sleep(2_000_000)
        start.record()
        for _ in range(CALLS):
            call()
        end.record()
        torch.cuda.synchronize()
        times.append(1e3 * start.elapsed_time(end) / CALLS)
    return statistics.median(times)


def main() -> None:
    """Measures, and writes after every shape."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--json', type=Path, required=True)
    parser.add_argument(
        '--seconds', type=float, default=120.0, help='at most, in all'
    )
    args = parser.parse_args()
    end, found = time.monotonic() + args.seconds, {}
    for shape in SHAPES:
        student, teacher = torch.randn(2, *shape, device='cuda')
        times = {}
        for tile in TILES:
            # Each is compiled first, which takes seconds.
            if time.monotonic() < end and tile[0] <= 2 * shape[1]:
                times[tile] = microseconds(student, teacher, tile)
        best = sorted(times, key=times.get)
        name = f'{shape[0]} x {shape[1]}'
        found[name] = [[*tile, times[tile]] for tile in best]
        print(name, *(f'{t}: {times[t]:.1f} us' for t in best[:5]), sep='\n  ')
        write_json(args.json, found)


if __name__ == '__main__':
    main()
