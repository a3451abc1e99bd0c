"""Our types resolve from wherever a config is read."""

import subprocess
import sys

import pytest
from mmdet.registry import MODELS as MMDET
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import MODELS as MMENGINE
from mmengine.registry import Registry
from mmpretrain.registry import MODELS as MMPRETRAIN

import mmrkkd
from mmrkkd.distillers import KDDetector
from mmrkkd.registry import MODELS, builds, publish, type_name


@pytest.mark.parametrize('registry', [MODELS, MMENGINE, MMDET, MMPRETRAIN])
@pytest.mark.parametrize('name', ['KDDetector', 'mmrkkd.KDDetector'])
def test_names_resolve(registry, name):
    assert registry.get(name) is KDDetector


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    'imports',
    [
        'import mmengine, mmrkkd',
        'import mmrkkd.distillers',
        'from mmdet.registry import MODELS; import mmrkkd',
        'import mmrkkd; mmrkkd.distillers',
    ],
)
def test_bare_names_resolve_after(imports):
    code = (
        f'{imports}\n'
        'from mmdet.registry import MODELS\n'
        "names = ('KDDetector', 'RankKDLoss', 'CIFARResNet')\n"
        'print([MODELS.get(name) is not None for name in names])\n'
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=True,
    )
    found = result.stdout.splitlines()[-1]
    # Backbones are published by their own package, or with everything.
    alone = 'import mmengine' not in imports and 'mmdet' not in imports
    assert found == str([True, True, not alone])


def test_packages_are_attributes():
    code = 'import mmrkkd; print(mmrkkd.losses.KDLoss, mmrkkd.ops.kendall_tau)'
    subprocess.run([sys.executable, '-c', code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mmrkkd.nothing  # noqa: B018


@pytest.mark.slow
def test_a_broken_stack_is_told_through_a_config_too():
    """MMEngine hides an ImportError behind 'is not in the registry'."""
    code = (
        'import importlib.util as util\n'
        'from mmengine.registry import MODELS\n'
        'find = util.find_spec\n'
        "hidden = lambda name, *a: name != 'mmcv' and find(name, *a) or None\n"
        'util.find_spec = hidden\n'
        "MODELS.build(dict(type='mmrkkd.KDLoss'))\n"
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert 'StackError: mmrkkd cannot work in ' in result.stderr
    assert '1. mmcv: ' in result.stderr


def test_a_name_that_is_taken_is_not_overwritten():
    root = Registry('root', scope='root')
    root.register_module(name='Taken', module=int)
    child = Registry('child', parent=root, scope='child')
    child.register_module(name='Taken', module=float)
    child.register_module(name='Free', module=str)
    publish(child)
    assert root.get('Taken') is int
    assert root.get('Free') is str


def test_the_type_of_a_config_in_every_spelling():
    for kind in (
        'OptimWrapper',
        'mmengine.OptimWrapper',
        'mmengine.optim.optimizer.optimizer_wrapper.OptimWrapper',
        'mmdet.OptimWrapper',
        OptimWrapper,
    ):
        assert type_name(dict(type=kind)) == 'OptimWrapper'
        assert builds(dict(type=kind), OptimWrapper)
        assert not builds(dict(type=kind), AmpOptimWrapper)
    other = type('OptimWrapper', (OptimWrapper,), {})
    for kind in ('mine.OptimWrapper', other):
        assert type_name(dict(type=kind)) == 'OptimWrapper'
        assert not builds(dict(type=kind), OptimWrapper)
    for nothing in (None, {}, dict(type=None), OptimWrapper, 'OptimWrapper'):
        assert type_name(nothing) == ''
        assert not builds(nothing, OptimWrapper)


def test_version():
    assert mmrkkd.__version__.count('.') == 2
