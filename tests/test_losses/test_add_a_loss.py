"""The worked example of docs/en/add_a_loss.md is a loss like any other."""

import importlib.util
import inspect
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import test_contracts
import torch

from mmrkkd.losses import Progress, RankKDLoss, set_progress

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'en' / 'add_a_loss.md').read_text()
CODE = re.search(r'```python\n# (\S+)\n(.*?)```', PAGE, re.S)
PLACE, SOURCE = CODE[1], CODE[2]


def example():
    """The class of the page, as its file in the package would define it."""
    name = PLACE.removesuffix('.py').replace('/', '.')
    spec = importlib.util.spec_from_loader(name, loader=None)
    module = importlib.util.module_from_spec(spec)
    exec(compile(SOURCE, PLACE, 'exec'), vars(module))
    return module.CosineLoss


@pytest.fixture
def loss():
    """In the place of the contracts' own, which are those of the package."""
    return example()()


# Every contract that is one of a loss, however it is called.
globals().update(
    {
        name: test
        for name, test in vars(test_contracts).items()
        if name.startswith('test_')
        and 'loss' in inspect.signature(test).parameters
    }
)


def test_contracts_are_run_on_it():
    assert len([name for name in globals() if name.startswith('test_')]) > 20


def test_its_weight_may_be_a_schedule_and_is_checked(loss):
    data = test_contracts.batch(loss, 6)
    scheduled = example()(loss_weight=dict(type='linear', end=4))
    set_progress(scheduled, Progress(epoch=3))
    torch.testing.assert_close(
        scheduled(*data)['loss_cosine'], 0.75 * loss(*data)['loss_cosine']
    )
    with pytest.raises(ValueError, match='loss_weight must be .* got -1'):
        example()(loss_weight=-1)


def test_values(loss):
    # Probabilities (1, 1) / 2, (1, 3) / 4 and (1, 0).
    student = torch.tensor([[2.0, 2.0], [0.0, math.log(3)], [0.0, 0.0]])
    teacher = torch.tensor([[7.0, 7.0], [1.0, 1.0], [0.0, -torch.inf]])
    mean = loss(student, teacher)['loss_cosine'].item()
    cosines = 1, (1 + 3) / (20**0.5), 1 / 2**0.5
    assert mean == pytest.approx(1 - sum(cosines) / 3)


@pytest.mark.parametrize('student_too', [False, True])
def test_a_class_that_the_teacher_rules_out(monkeypatch, student_too):
    """The contract of names that are not in OF_FINITE_LOGITS."""
    monkeypatch.setitem(test_contracts.LOSSES, 'CosineLoss', example())
    assert 'CosineLoss' not in test_contracts.OF_FINITE_LOGITS
    test_contracts.test_a_class_that_the_teacher_rules_out(
        'CosineLoss', student_too
    )


def test_ranking_goes_on_top(loss):
    terms = RankKDLoss(kd=loss)(*test_contracts.batch(loss, 6))
    assert list(terms) == ['loss_cosine', 'loss_rank']


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    """A folder with the package and the file of the page in its place."""
    folder = tmp_path_factory.mktemp('copy')
    shutil.copytree(
        ROOT / 'mmrkkd',
        folder / 'mmrkkd',
        ignore=shutil.ignore_patterns('__pycache__'),
    )
    (folder / PLACE).write_text(SOURCE)
    return folder


def run_python(folder, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_file_is_all(copy):
    """Found, exported, known by its name: no other file is touched."""
    code = (
        'import sys\n'
        'from mmrkkd.losses import CosineLoss, build_loss\n'
        "loss = build_loss(dict(type='mmrkkd.CosineLoss'))\n"
        'assert type(loss) is CosineLoss\n'
        "build_loss(dict(type='RankKDLoss', kd=dict(type='CosineLoss')))\n"
        "assert 'mmengine' not in sys.modules\n"
        'print(CosineLoss.__module__)\n'
    )
    done = run_python(copy, '-c', code)
    assert done.stdout.strip() == 'mmrkkd.losses.cosine', done.stderr


@pytest.mark.slow
def test_the_contracts_are_kept_as_its_author_runs_them(copy):
    """As a loss among the others, those that go by its name included."""
    for file in (test_contracts.__file__, ROOT / 'tests' / 'conftest.py'):
        shutil.copy(file, copy)
    options = ('-q', '-k', 'CosineLoss', 'test_contracts.py')
    done = run_python(copy, '-m', 'pytest', *options)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r'(\d+) passed', done.stdout)[1]) > 30
