"""Runs the tests that need a GPU, with whatever pytest has there.

    python tools/gpu/run_tests.py --json tests.json

Six processes where pytest-xdist is installed, and a limit on each test where
pytest-timeout is. Files without such a test are not even imported: what the
others need may be missing.
"""

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

from mmrkkd.checkpoint.atomic import write_json

ROOT = Path(__file__).resolve().parents[2]
MARK = 'mark.gpu'
PROCESSES = 6
SECONDS_A_TEST = 100
SHOWN = 500


def test_files() -> list[str]:
    """Those with a test that needs a GPU."""
    return [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / 'tests').rglob('test_*.py'))
        if MARK in path.read_text()
    ]


def command(report: Path) -> list[str]:
    """What runs them."""
    options = ['-m', 'gpu', '-v', '-rfE', '--color=no', '--tb=short']
    options += ['-p', 'no:cacheprovider', f'--junitxml={report}']
    if find_spec('xdist'):
        options += ['-n', str(PROCESSES), '--dist', 'worksteal']
    if find_spec('pytest_timeout'):
        options += ['--timeout', str(SECONDS_A_TEST)]
    return [sys.executable, '-m', 'pytest', *options, *test_files()]


def read_report(path: Path) -> list[dict]:
    """pytest's JUnit file: a dict for each test."""
    tests = []
    for case in ElementTree.parse(path).getroot().iter('testcase'):
        found = {child.tag: child for child in case}
        test = dict(
            name=f'{case.get("classname")}::{case.get("name")}',
            seconds=float(case.get('time')),
            outcome='passed',
        )
        for tag in ('skipped', 'failure', 'error'):
            if tag in found:
                message = found[tag].get('message') or ''
                test.update(outcome=tag, message=message[:SHOWN])
        for each in case.iter('property'):
            test.setdefault('noted', {})[each.get('name')] = each.get('value')
        tests.append(test)
    return tests


def told(tests: list[dict]) -> str:
    """How many did what; which failed, and what they noted."""
    counts = {}
    for test in tests:
        counts[test['outcome']] = counts.get(test['outcome'], 0) + 1
    lines = [', '.join(f'{n} {outcome}' for outcome, n in counts.items())]
    for test in tests:
        if test['outcome'] in ('failure', 'error'):
            first = test['message'].split('\n')[0]
            lines.append(f'- {test["outcome"]}: `{test["name"]}`: {first}')
        if 'noted' in test:
            noted = ', '.join(f'{k}: {v}' for k, v in test['noted'].items())
            lines.append(f'- `{test["name"]}` noted {noted}')
    return '\n'.join(lines)


def main() -> int:
    """Returns pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--json', type=Path, required=True)
    args = parser.parse_args()
    report = args.json.with_suffix('.xml')
    code = subprocess.run(command(report), cwd=ROOT, check=False).returncode
    if report.is_file():
        tests = read_report(report)
        write_json(args.json, dict(tests=tests, text=told(tests)))
    return code


if __name__ == '__main__':
    sys.exit(main())
