"""The losses and operators where torch is there and nothing else of ours."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Finds neither OpenMMLab nor anything else that torch does without.
HIDE = """
import importlib.abc, sys

HIDDEN = ('mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'torchvision',
          'matplotlib', 'tqdm', 'cv2', 'scipy')

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in HIDDEN:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Hidden())
"""
USE = """
import torch
from mmrkkd.losses import RankKDLoss, build_loss
from mmrkkd.ops import kendall_tau

student = torch.randn(4, 10, requires_grad=True)
teacher = torch.randn(4, 10)
terms = RankKDLoss(kd=dict(type='mmrkkd.DKDLoss'))(
    student, teacher, torch.arange(4)
)
sum(terms.values()).backward()
build_loss(dict(type='KendallLoss'))(student, teacher)
print(sorted(terms), bool(student.grad.isfinite().all()))
print(tuple(kendall_tau(student, teacher).shape))
"""


def run(code):
    return subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=False,
    )


def test_losses_need_torch_alone():
    result = run(HIDE + USE)
    assert result.returncode == 0, result.stderr
    terms, shape = result.stdout.splitlines()
    assert terms == (
        "['loss_dkd_non_target', 'loss_dkd_target', 'loss_rank'] True"
    )
    assert shape == '(4,)'


@pytest.mark.parametrize('name', ['mmrkkd', 'mmrkkd.losses', 'mmrkkd.ops'])
def test_import_leaves_openmmlab_alone(name):
    result = run(
        f'import {name}, sys\n'
        "print([n for n in sys.modules if n.split('.')[0] in "
        "('mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'torchvision')])"
    )
    assert result.stdout.strip() == '[]', result.stderr


def test_what_needs_the_stack_tells_that_it_is_missing():
    result = run(HIDE + 'import mmrkkd.distillers')
    assert result.returncode == 1
    assert 'StackError: mmrkkd cannot work in ' in result.stderr
    assert 'mmengine: not installed' in result.stderr
    assert 'need torch and nothing else' in result.stderr
