"""How many cases the fuzz tests run, and the count at the end.

Every run of the tests takes a few fixed cases. MMRKKD_FUZZ_EXAMPLES=200
takes so many new ones of each test (``make fuzz``).
"""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fuzz.strategies import cases

# The error budgets and contracts are defined there, once.
for folder in ('test_ops', 'test_losses'):
    sys.path.append(str(Path(__file__).parents[1] / folder))

EXAMPLES = os.environ.get('MMRKKD_FUZZ_EXAMPLES')
common = dict(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    'fixed', max_examples=15, derandomize=True, database=None, **common
)
if EXAMPLES:
    settings.register_profile(
        'random', max_examples=int(EXAMPLES), print_blob=True, **common
    )
settings.load_profile('random' if EXAMPLES else 'fixed')


def pytest_sessionfinish(session):
    """A process of pytest-xdist hands its counts over."""
    if hasattr(session.config, 'workeroutput'):
        session.config.workeroutput['fuzz cases'] = dict(cases)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """The counts of all processes become one."""
    cases.update(getattr(node, 'workeroutput', {}).get('fuzz cases', {}))


def pytest_terminal_summary(terminalreporter):
    """Says how many cases have run."""
    if cases:
        terminalreporter.section('fuzz cases')
        for name, count in sorted(cases.items()):
            terminalreporter.write_line(f'{count:6d}  {name}')
        terminalreporter.write_line(f'{cases.total():6d}  in total')
