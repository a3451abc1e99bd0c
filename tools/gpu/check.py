"""Everything that only a GPU can show, in one command of eight minutes.

    make gpu-check [GPU_ARGS='--out FOLDER']

Runs the tests that need a GPU, the operator table, whole training steps and
a training in mixed precision, each in a process under a limit of its own.
check.log grows as they print, check.json and check.md are written anew with
every number, and at the end a picture of the steps. Exit code 1 where a part
failed or ran over, or a bar was missed; the others are done all the same.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

# The folders of the package and of its tools, so that a checkout works
# uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import check_report
import torch
from experiments.processes import ended_like_interrupted
from parts import Part, run_parts

from mmrkkd.report.surroundings import surroundings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STEP = ROOT / 'tools' / 'benchmarks' / 'step.py'
# Building a way and warming it up takes seconds: the others have no bar.
AMP_WAYS = ('RKKD', 'RKKD trained by DOT', 'RKKD, teacher at full precision')
AMP = ('--pair', 'faster_rcnn', '--amp', '--ways', *AMP_WAYS)
# The longest that each may take, in seconds; all together less than eight
# minutes.
LIMITS = dict(tests=130, operators=95, steps=125, steps_amp=40, amp=85)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/gpu_check')
    )
    parser.add_argument(
        '--minutes', type=float, default=8.0, help='for all parts'
    )
    parser.add_argument(
        '--parts', nargs='+', choices=LIMITS, default=list(LIMITS)
    )
    parser.add_argument(
        '--limit',
        nargs='+',
        default=[],
        metavar='PART=SECONDS',
        help='another limit for a part',
    )
    parser.add_argument(
        '--commit', help='of the files, where there is no git to ask'
    )
    parser.add_argument(
        '--quick', action='store_true', help='a rehearsal; a CPU will do'
    )
    args = parser.parse_args(argv)
    try:
        given = dict(each.split('=') for each in args.limit)
        args.limits = {**LIMITS, **{k: float(v) for k, v in given.items()}}
    except ValueError:
        parser.error(f'--limit takes PART=SECONDS, got {args.limit}')
    if set(args.limits) - set(LIMITS):
        parser.error(f'--limit names a part of {list(LIMITS)}')
    if not all(seconds > 0 for seconds in args.limits.values()):
        parser.error(f'--limit takes SECONDS above 0, got {args.limit}')
    return args


def make_parts(args: argparse.Namespace, scratch: Path) -> list[Part]:
    """The parts asked for.

    Args:
        args: The command line.
        scratch: Folder for what is not kept.
    """
    quick = ['--quick'] if args.quick else []
    commands = dict(
        tests=[HERE / 'run_tests.py'],
        operators=[HERE / 'operators.py', *quick],
        steps=[STEP, '--seconds', 15, *quick],
        steps_amp=[STEP, '--seconds', 10, *AMP],
        amp=[HERE / 'amp.py', '--scratch', scratch / 'amp', *quick],
    )
    if args.quick and not torch.cuda.is_available():
        # Mixed precision needs a GPU.
        commands['steps_amp'] = [STEP, '--pair', 'cifar', *quick]
    parts = []
    for name in args.parts:
        result = scratch / f'{name}.json'
        command = [*commands[name], '--json', result]
        parts.append(Part(name, command, args.limits[name], result))
    return parts


def facts_of(args: argparse.Namespace) -> dict:
    """What is checked, and on what."""
    facts = surroundings(ROOT)
    facts['commit'] = args.commit or facts['commit']
    return dict(
        facts,
        card=facts['hardware']['device'],
        driver=_driver(),
        date=time.strftime('%Y-%m-%d %H:%M'),
        quick=args.quick,
    )


def _driver() -> str:
    query = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv']
    try:
        done = subprocess.run(
            query, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 'unknown'
    return done.stdout.split('\n')[1].strip()


def main(argv: list[str] | None = None) -> int:
    """Checks; returns the exit code."""
    args = parse_args(argv)
    if not torch.cuda.is_available() and not args.quick:
        print(
            f'gpu-check needs a GPU, and torch {torch.__version__} sees none; '
            'run it where one is, or rehearse it on the CPU with --quick',
            file=sys.stderr,
        )
        return 1
    facts = facts_of(args)
    with (
        tempfile.TemporaryDirectory(prefix='gpu_check_') as scratch,
        ended_like_interrupted(),
    ):
        outcomes = run_parts(
            make_parts(args, Path(scratch)),
            args.out / 'check.log',
            Path(scratch),
            seconds=60 * args.minutes,
            changed=partial(check_report.write, args.out, facts),
        )
    check_report.write(args.out, facts, outcomes)
    check_report.draw(args.out, outcomes)
    print(check_report.markdown(facts, outcomes))
    missed = check_report.missed(outcomes)
    for line in missed:
        print(f'NOT AS IT SHOULD BE: {line}')
    print(f'Written to {args.out}: check.log, check.json, check.md, pictures')
    return int(bool(missed))


if __name__ == '__main__':
    sys.exit(main())
