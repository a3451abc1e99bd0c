"""Memory of a training step of each method of a sweep, on a CPU.

    python tools/benchmarks/sweep_memory.py SWEEP [--cfg-options data_root=...]

Takes what tools/ablation.py takes. Each method trains a few steps on the
first batches in a process of its own, whose allocator keeps nothing and is
slower for it: times are those of a training.
"""

import argparse
import itertools
import os
import subprocess
import sys
from pathlib import Path

# The folders of the package and of the tools: a checkout works uninstalled.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import measure
from chosen_ways import between_logs
from experiments.cells import Cell, make_cells
from experiments.methods import parse_methods
from mmengine.runner import Runner

from mmrkkd.cli import Settings
from mmrkkd.engine import prepare_model
from mmrkkd.report.tables import markdown_table


def peak_of(cell: Cell, steps: int) -> float:
    """Peak of a step in megabytes, after some others."""
    config = cell.config
    between_logs()
    with prepare_model(config, 'train_dataloader') as model:
        model.init_weights()
        model.train()
        wrapper = Runner.build_optim_wrapper(
            argparse.Namespace(model=model), config.optim_wrapper
        )
        loader = Runner.build_dataloader(config.train_dataloader, seed=0)
        *first, last = itertools.islice(loader, steps + 1)
        for batch in first:
            model.train_step(batch, wrapper)
        return measure.peak_megabytes(lambda: model.train_step(last, wrapper))


def main() -> None:
    """Measures each method, or with --only one, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('methods', nargs='+')
    parser.add_argument('--steps', type=int, default=5)
    parser.add_argument(
        '--cfg-options', nargs='+', action=Settings, default={}
    )
    parser.add_argument('--only', metavar='LABEL', help='this one, here')
    args = parser.parse_args()
    methods, _ = parse_methods(args.methods)
    if args.only is not None:
        (method,) = (each for each in methods if each.label == args.only)
        (cell,) = make_cells([method], [0], Path('.'), args.cfg_options)
        print(peak_of(cell, args.steps))
        return
    rows = []
    for method in methods:
        done = subprocess.run(
            [sys.executable, *sys.argv, '--only', method.label],
            env={**os.environ, **measure.memory_environment()},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        peak = float(done.stdout.splitlines()[-1])
        rows.append([method.label, f'{peak:.0f}'])
        print(*rows[-1], flush=True)
    print(markdown_table(('method', 'peak MB of a step'), rows))
    machine = measure.environment()
    print('{processor}, {threads} threads, {commit}'.format(**machine))


if __name__ == '__main__':
    main()
