"""Distils the demo pair in mixed precision to the end.

    python tools/gpu/amp.py --scratch FOLDER --json amp.json

Draws the demo's images, trains its teacher, then its student with RKKD, both
by tools/train.py --amp and for some iterations only: that it runs, that the
losses stay finite and that the student is scored is what counts, not how
well it does.
"""

import argparse
import math
import subprocess
import sys
import time
from pathlib import Path

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

from mmrkkd.checkpoint.atomic import write_json
from mmrkkd.datasets import Recipe, make_demo_shapes
from mmrkkd.report import log_files, points_of, read_log

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs' / 'demo'
AP = 'coco/bbox_mAP'
TERMS = ('loss', 'loss_kd', 'loss_rank')


def train(
    config: str, folder: Path, data: Path, args: argparse.Namespace, **options
) -> list[dict]:
    """One training; its log.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    options = {
        'data_root': f'{data}/',
        'train_cfg.max_iters': args.steps,
        'param_scheduler.total_steps': args.steps,
        'default_hooks.logger.interval': max(1, args.steps // 10),
        **options,
    }
    subprocess.run(
        [
            sys.executable,
            str(ROOT / 'tools' / 'train.py'),
            str(CONFIGS / config),
            '--work-dir',
            str(folder),
            *([] if args.quick else ['--amp']),
            '--cfg-options',
            *(f'{key}={value}' for key, value in options.items()),
        ],
        check=True,
    )
    return read_log(log_files(folder))


def found_in(log: list[dict]) -> dict:
    """Terms, pace and AP of a training.

    Raises:
        ValueError: a term is missing or not finite, or there is no AP.
    """
    result = {}
    for key in TERMS:
        values = [value for _, value in points_of(log, key)]
        if not values or not all(map(math.isfinite, values)):
            raise ValueError(f'{key} must be finite at every step: {values}')
        result[key] = dict(first=values[0], last=values[-1])
    scores = [value for _, value in points_of(log, AP)]
    if not scores:
        raise ValueError(f'the log has no {AP}: the student was not scored')
    result['ap'] = scores[-1]
    result['step_seconds'] = [e['time'] for e in log if 'loss' in e][-1]
    return result


def main() -> None:
    """Trains both and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--scratch', type=Path, required=True)
    parser.add_argument('--json', type=Path, required=True)
    parser.add_argument('--steps', type=int, default=120, help='of each')
    parser.add_argument(
        '--quick', action='store_true', help='few, and in float32: on a CPU'
    )
    args = parser.parse_args()
    args.steps = 2 if args.quick else args.steps
    start = time.monotonic()
    data, counts = args.scratch / 'data', dict(train=240, val=72)
    if args.quick:
        counts = dict(train=24, val=24)
    make_demo_shapes(data, Recipe(**counts))
    teacher = args.scratch / 'teacher'
    train('faster-rcnn_r50_demo.py', teacher, data, args)
    checkpoint = teacher / f'iter_{args.steps}.pth'
    log = train(
        'rkkd_r50_mv2_demo.py',
        args.scratch / 'student',
        data,
        args,
        **{
            'model.teacher.checkpoint': checkpoint,
            # Without any detection there is no AP either.
            'model.student.test_cfg.rcnn.score_thr': 0.0,
        },
    )
    result = found_in(log)
    terms = ', '.join(
        '{} {first:.4g} -> {last:.4g}'.format(key, **result[key])
        for key in TERMS
    )
    text = (
        f'{args.steps} iterations, {"float32" if args.quick else "AMP"}: '
        f'{terms}; AP {result["ap"]:.3f}; '
        f'{1e3 * result["step_seconds"]:.0f} ms an iteration; '
        f'{time.monotonic() - start:.0f} s in all'
    )
    print(text)
    write_json(args.json, dict(result, text=text))


if __name__ == '__main__':
    main()
