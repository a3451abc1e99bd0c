"""The numbers of a training step stay what they were.

Bit for bit on the machine that recorded them; elsewhere float32 adds up in
another order, which leaves some 1e-4 of a term after a whole network.
"""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / 'recorded'))

import record

CONTENT = json.loads(record.RECORD.read_text())


def test_every_case_is_recorded():
    assert set(CONTENT['steps']) == set(record.CASES)


@pytest.mark.parametrize('name', record.CASES)
def test_step_is_as_recorded(name):
    wanted, step = CONTENT['steps'][name], record.take(name)
    if CONTENT['machine'] == record.machine():
        assert step == wanted
        return
    assert set(step['terms']) == set(wanted['terms'])
    for key, value in wanted['terms'].items():
        assert float.fromhex(step['terms'][key]) == pytest.approx(
            float.fromhex(value), rel=1e-4, abs=1e-5
        ), key
    assert float.fromhex(step['norm']) == pytest.approx(
        float.fromhex(wanted['norm']), rel=1e-3
    )
