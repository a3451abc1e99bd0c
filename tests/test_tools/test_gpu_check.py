"""The GPU check's runner and report, on parts that only pretend."""

import importlib.machinery
import json
import sys
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
PATH = sys.path[:]
for folder in ('benchmarks', '', 'gpu'):
    sys.path.insert(0, str(ROOT / 'tools' / folder))

import check  # noqa: E402
import check_report  # noqa: E402
import chosen_ways  # noqa: E402
import operators  # noqa: E402
import pairs  # noqa: E402
import run  # noqa: E402
import run_tests  # noqa: E402
import step  # noqa: E402
import step_report  # noqa: E402
import ways  # noqa: E402
from parts import (  # noqa: E402
    FAILED,
    NOT_STARTED,
    OVER,
    PASSED,
    Outcome,
    Part,
    run_parts,
)

# tools/test.py must not stand in the way of the standard library's test.
sys.path[:] = PATH

STARTS_ANOTHER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])
print('child', child.pid)
time.sleep(99)
"""
WRITES = """
import json, os, time
path = {path!r}
with open(path + '.partial', 'w') as file:
    json.dump(dict(bars=[{bar}], text='five rows'), file)
os.replace(path + '.partial', path)
time.sleep({seconds})
"""
MET = dict(name='speed', measured=25.0, at_least=20.0, met=True)
MISSED = dict(name='ratio', measured=1.3, at_most=1.15, met=False)


def writes(path, bar, seconds=0):
    return ['-c', WRITES.format(path=str(path), bar=bar, seconds=seconds)]


def fakes(folder):
    """One part of each fate."""
    results = [folder / f'{name}.json' for name in ('good', 'slow')]
    return [
        Part('good', writes(results[0], MISSED), 60, results[0]),
        Part('bad', ['-c', 'raise SystemExit(3)'], 60),
        Part('slow', writes(results[1], MET, 99), 1.5, results[1]),
        Part('last', ['-c', 'print("still here")'], 60),
    ]


@pytest.mark.parametrize('jobs', [1, 4])
def test_one_part_over_its_limit_leaves_the_others(tmp_path, jobs):
    seen = []
    outcomes = run_parts(
        fakes(tmp_path),
        tmp_path / 'check.log',
        tmp_path / 'scratch',
        jobs=jobs,
        changed=lambda some: seen.append(
            [each.result.get('text') for each in some]
        ),
    )
    states = [PASSED, FAILED, OVER, PASSED]
    assert [each.state for each in outcomes] == states
    assert outcomes[1].code == 3
    # What a part wrote before it was ended is there.
    assert outcomes[2].result['bars'] == [MET]
    assert any(texts[2] == 'five rows' for texts in seen)
    log = (tmp_path / 'check.log').read_text()
    assert 'last       still here' in log
    assert 'slow       over its limit after 1.' in log


def test_an_ended_part_leaves_no_process(tmp_path):
    part = Part('tree', ['-c', STARTS_ANOTHER], 1.5)
    (outcome,) = run_parts([part], tmp_path / 'log', tmp_path)
    assert outcome.state == OVER
    child = int(outcome.output.split('child ')[1])
    for _ in range(50):
        if not psutil.pid_exists(child):
            break
        # init has yet to take note of it.
        if psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    else:
        pytest.fail(f'process {child} is still there')


def test_no_part_is_started_without_time_for_it(tmp_path):
    part = Part('late', ['-c', 'raise SystemExit(1)'], 60)
    (outcome,) = run_parts([part], tmp_path / 'log', tmp_path, seconds=2)
    assert (outcome.state, outcome.code) == (NOT_STARTED, None)
    assert 'not started: no time' in (tmp_path / 'log').read_text()


def test_a_check_tells_what_failed_and_writes_everything(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(check, 'make_parts', lambda args, to: fakes(to))
    out = tmp_path / 'out'
    code = check.main(['--quick', '--out', str(out), '--commit', 'abc'])
    assert code == 1
    content = json.loads((out / 'check.json').read_text())
    assert content['commit'] == 'abc'
    assert [part['state'] for part in content['parts']] == [
        PASSED,
        FAILED,
        OVER,
        PASSED,
    ]
    printed = capsys.readouterr().out
    for line in content['missed']:
        assert f'NOT AS IT SHOULD BE: {line}' in printed
    assert 'good: ratio 1.3, at most 1.15: missed' in content['missed']
    text = (out / 'check.md').read_text()
    assert '- met: speed 25, at least 20' in text
    assert '## slow\n\nfive rows' in text
    assert sorted(path.name for path in out.iterdir()) == [
        'check.json',
        'check.log',
        'check.md',
    ]


def test_all_well_is_code_0(tmp_path, monkeypatch):
    part = Part('good', writes(tmp_path / 'a', MET), 60, tmp_path / 'a')
    monkeypatch.setattr(check, 'make_parts', lambda args, to: [part])
    assert check.main(['--quick', '--out', str(tmp_path / 'out')]) == 0


def test_without_a_gpu_it_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check.torch.cuda, 'is_available', lambda: False)
    assert check.main(['--out', str(tmp_path / 'out')]) == 1
    assert 'rehearse it on the CPU with --quick' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_limits_are_of_known_parts(capsys):
    args = check.parse_args(['--limit', 'tests=1'])
    assert args.limits == {**check.LIMITS, 'tests': 1.0}
    assert sum(check.LIMITS.values()) <= 60 * args.minutes
    for wrong in ('tests', 'test=1', 'tests=long'):
        with pytest.raises(SystemExit):
            check.parse_args(['--limit', wrong])
    assert '--limit names a part' in capsys.readouterr().err
    for wrong in ('tests=0', 'tests=-3', 'tests=nan'):
        with pytest.raises(SystemExit):
            check.parse_args(['--limit', wrong])
        assert 'SECONDS above 0' in capsys.readouterr().err


def test_every_part_is_a_script_that_exists(tmp_path):
    args = check.parse_args(['--quick'])
    parts = check.make_parts(args, tmp_path)
    assert [part.name for part in parts] == list(check.LIMITS)
    for part in parts:
        assert Path(part.command[0]).is_file()
        assert part.command[-2:] == ['--json', part.result]


JUNIT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_one" time="0.5"><properties>
<property name="waits" value="3"/></properties></testcase>
<testcase classname="tests.test_a" name="test_two" time="1.0">
<failure message="assert 1 == 2&#10;more">trace</failure></testcase>
<testcase classname="tests.test_b" name="test_three" time="0.0">
<skipped message="needs a GPU"/></testcase>
</testsuite></testsuites>"""


def test_what_the_tests_did_is_read_from_their_report(tmp_path):
    (tmp_path / 'junit.xml').write_text(JUNIT)
    tests = run_tests.read_report(tmp_path / 'junit.xml')
    outcomes = [test['outcome'] for test in tests]
    assert outcomes == ['passed', 'failure', 'skipped']
    assert run_tests.told(tests).splitlines() == [
        '1 passed, 1 failure, 1 skipped',
        '- `tests.test_a::test_one` noted waits: 3',
        '- failure: `tests.test_a::test_two`: assert 1 == 2',
    ]


def test_files_with_a_gpu_test_are_found():
    files = run_tests.test_files()
    assert 'tests/test_gpu/test_gpu_steps.py' in files
    assert 'tests/test_ops/test_under_transforms.py' in files
    assert 'tests/test_ops/test_pearson.py' not in files


def test_ratios_are_of_the_same_turn():
    alone = np.array([[0.1, 0.2], [0.2, 0.4], [0.4, 0.4]])
    # 2, 1.5 and 1 times as long; processor time twice.
    times = alone * [[2, 2], [1.5, 2], [1, 2]]
    row = step.row_of('RKKD', times, alone)
    assert row['ratio'] == pytest.approx(dict(median=1.5, low=1.25, high=1.75))
    assert row['processor_ratio']['median'] == pytest.approx(2)
    assert row['median_ms'] == pytest.approx(300)


def steps_result(device, ratio):
    alone = step.row_of('student alone', np.ones((3, 2)), np.ones((3, 2)))
    ours = step.row_of('RKKD', np.ones((3, 2)) * ratio, np.ones((3, 2)))
    failed = dict(way='another', failure='RuntimeError: no kernel')
    return dict(
        device=device,
        environment=step.measure.environment(),
        pairs=[
            dict(
                title='A -> B',
                images='1 x 3 x 8 x 8',
                rows=[alone, ours, failed],
            )
        ],
    )


@pytest.mark.parametrize(
    'device, ratio, met',
    [('cuda', [1.1, 3], True), ('cpu', [1.1, 3], False), ('cpu', 1.1, True)],
)
def test_a_gpu_is_judged_by_wall_time_and_a_cpu_by_its_own(device, ratio, met):
    (bar,) = step.bars_of(steps_result(device, ratio))
    assert (bar['met'], bar['at_most']) == (met, 1.15)


def test_a_step_of_ours_that_failed_misses_its_bar():
    result = steps_result('cuda', 1.1)
    result['pairs'][0]['rows'][1] = dict(way='RKKD', failure='no kernel')
    (bar,) = step.bars_of(result)
    assert (bar['measured'], bar['met']) == (None, False)


@pytest.mark.parametrize(
    'way, code',
    [
        ('RKKD', 1),
        ('RKKD trained by DOT', 1),
        ('student alone', 1),
        ("student's RoI head twice (mdistiller's way)", 0),
        ('MMRazor: KL of the class scores', 0),
    ],
)
def test_a_failure_of_others_fails_no_measurement(monkeypatch, way, code):
    rows = [dict(way=way, failure='RuntimeError: no kernel')]
    measured = dict(title='A -> B', images='1', rows=rows)
    monkeypatch.setattr(step, 'measure_pair', lambda *_: measured)
    assert step.main(['--pair', 'cifar', '--device', 'cpu']) == code


def test_steps_in_mixed_precision_are_few_and_there():
    known = ways.ways_of(pairs.PAIRS['faster_rcnn'], 'cuda')
    found = chosen_ways.chosen(known, check.AMP_WAYS, {})
    assert list(found) == ['student alone', *check.AMP_WAYS]


def test_steps_are_told_and_drawn(tmp_path):
    result = steps_result('cpu', 1.1)
    text = step_report.markdown(result)
    assert '1.100 (1.100 to 1.100)' in text
    assert 'another: RuntimeError: no kernel' in text
    check_report.draw(tmp_path, [Outcome('steps', result=result)])
    height, width, _ = matplotlib.image.imread(tmp_path / 'steps.png').shape
    assert height > 200
    assert width > 800


def entry(backend, milliseconds, shape=(64, 1000), **more):
    rows, classes = shape
    return dict(
        rows=rows,
        classes=classes,
        backend=backend,
        median_ms=milliseconds,
        **more,
    )


def test_operators_are_judged_where_a_bar_stands():
    entries = [
        entry('plain', 10.0),
        entry('plain, torch.compile', 1.0),
        entry('fused', 0.4),
        entry('plain', 9.0, (64, 100)),
        entry('fused', 9.0, (64, 100)),
        entry('fused', 9.0, (512, 1000), peak_mb=31.0),
    ]
    bars = operators.bars_of(entries, ((64, 1000), (64, 100), (512, 1000)))
    assert [(bar['measured'], bar['met']) for bar in bars] == [
        (25.0, True),
        # The GPU's own time is not known.
        (None, False),
        (2.5, False),
        (None, False),
        (31.0, True),
    ]


def test_a_bar_without_a_measurement_is_missed():
    bars = operators.bars_of([])
    # Two shapes, two others and two clocks; the memory of one.
    assert len({bar['name'] for bar in bars}) == len(bars) == 9
    assert not any(bar['met'] for bar in bars)
    outcome = Outcome('operators', PASSED, result=dict(bars=bars))
    lines = check_report.missed([outcome])
    assert len(lines) == 9
    assert lines[0] == (
        'operators: 64 x 1000: plain / fused, time not measured, at least '
        '20: missed'
    )


@pytest.mark.parametrize('fails, code', [('plain', 0), ('fused', 1)])
def test_operators_fail_where_ours_does(tmp_path, monkeypatch, fails, code):
    def broken(student, teacher):
        raise TypeError('a kernel that Triton refuses')

    functions = dict(plain=run.backends.plain, fused=run.backends.plain)
    functions[fails] = broken
    monkeypatch.setattr(
        run.backends, 'tau_backends', lambda with_compile: dict(functions)
    )
    monkeypatch.setattr(run, 'usable', lambda *_: dict(functions))
    monkeypatch.setattr(operators, 'FAST_AT', operators.QUICK_SHAPES)
    path = tmp_path / 'operators.json'
    monkeypatch.setattr(
        sys,
        'argv',
        ['operators.py', '--json', str(path), '--quick', '--seconds', '0'],
    )
    assert operators.main() == code
    content = json.loads(path.read_text())
    assert [e['backend'] for e in content['entries']] == [
        name for name in functions if name != fails
    ]
    # Both ways and both clocks.
    assert [bar['met'] for bar in content['bars']] == [False] * 4


@pytest.mark.parametrize('name', ['benchmarks', 'dataset_tools', 'gpu'])
def test_an_installed_package_does_not_hide_ours(tmp_path, name):
    other = tmp_path / name / '__init__.py'
    other.parent.mkdir()
    other.touch()
    tools = ROOT / 'tools'
    found = importlib.machinery.PathFinder.find_spec(
        name, [str(tools), str(tmp_path)]
    )
    assert found.origin == str(tools / name / '__init__.py')
