"""The losses in plain PyTorch, where only torch and MMEngine are there."""

import os
import subprocess
import sys

CODE = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmcv', 'mmdet', 'mmpretrain',
                                  'torchvision'):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
import torch
from mmrkkd.losses import RankKDLoss

student = torch.randn(4, 10, requires_grad=True)
terms = RankKDLoss()(student, torch.randn(4, 10))
sum(terms.values()).backward()
print(sorted(terms), bool(student.grad.isfinite().all()))
"""


def run(**environment):
    return subprocess.run(
        [sys.executable, '-c', CODE],
        env=dict(os.environ, **environment),
        capture_output=True,
        text=True,
        check=False,
    )


def test_losses_need_torch_and_mmengine_only():
    result = run(MMRKKD_PLAIN_TORCH='1')
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "['loss_kd', 'loss_rank'] True"


def test_without_asking_for_it_the_missing_stack_is_told():
    result = run(MMRKKD_PLAIN_TORCH='')
    assert result.returncode == 1
    assert 'MMRKKD_PLAIN_TORCH=1' in result.stderr
    assert 'mmcv' in result.stderr
