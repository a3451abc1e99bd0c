"""Old names of modules and options work for one version, with a warning."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ('old', 'new', 'name'),
    [
        ('mmrkkd.models', 'mmrkkd.distillers', 'KDDetector'),
        ('mmrkkd.models', 'mmrkkd', 'backbones'),
        ('mmrkkd.hooks', 'mmrkkd.engine.hooks', 'RunStateHook'),
        ('mmrkkd.hooks', 'mmrkkd.checkpoint', 'read_training_state'),
    ],
)
def test_modules(old, new, name):
    sys.modules.pop(old, None)
    with pytest.warns(FutureWarning, match=rf'{old}.* {new}\b.* version\s0.3'):
        module = importlib.import_module(old)
    wanted = getattr(importlib.import_module(new), name)
    assert getattr(module, name) is wanted


def test_a_config_may_import_the_old_backbones():
    sys.modules.pop('mmrkkd.models', None)
    sys.modules.pop('mmrkkd.models.backbones', None)
    with pytest.warns(FutureWarning, match='backbones mmrkkd.backbones'):
        module = importlib.import_module('mmrkkd.models.backbones')
    assert module is importlib.import_module('mmrkkd.backbones')
