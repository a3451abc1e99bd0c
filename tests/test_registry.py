"""Our types resolve from wherever a config is read."""

import subprocess
import sys

import pytest
from mmdet.registry import MODELS as MMDET
from mmengine.registry import MODELS as MMENGINE
from mmengine.registry import Registry
from mmpretrain.registry import MODELS as MMPRETRAIN

import mmrkkd
from mmrkkd.models import KDDetector
from mmrkkd.registry import MODELS, publish


@pytest.mark.parametrize('registry', [MODELS, MMENGINE, MMDET, MMPRETRAIN])
@pytest.mark.parametrize('name', ['KDDetector', 'mmrkkd.KDDetector'])
def test_names_resolve(registry, name):
    assert registry.get(name) is KDDetector


def test_scope_resolves_without_any_import():
    code = (
        'import sys\n'
        'from mmdet.registry import MODELS\n'
        "assert 'mmrkkd' not in sys.modules\n"
        "print(MODELS.get('mmrkkd.RankKDLoss').__name__)\n"
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split()[-1] == 'RankKDLoss'


def test_a_name_that_is_taken_is_not_overwritten():
    root = Registry('root', scope='root')
    root.register_module(name='Taken', module=int)
    child = Registry('child', parent=root, scope='child')
    child.register_module(name='Taken', module=float)
    child.register_module(name='Free', module=str)
    publish(child)
    assert root.get('Taken') is int
    assert root.get('Free') is str


def test_version():
    assert mmrkkd.__version__.count('.') == 2
