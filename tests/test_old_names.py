"""Old names of modules and options work for one version, with a warning."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ('old', 'new', 'name'),
    [
        ('mmrkkd.models', 'mmrkkd.distillers', 'KDDetector'),
        ('mmrkkd.hooks', 'mmrkkd.engine.hooks', 'RunStateHook'),
        ('mmrkkd.hooks', 'mmrkkd.checkpoint', 'read_training_state'),
    ],
)
def test_modules(old, new, name):
    sys.modules.pop(old, None)
    with pytest.warns(FutureWarning, match=f'{old}.* {new}.* version 0.3'):
        module = importlib.import_module(old)
    wanted = getattr(importlib.import_module(new), name)
    assert getattr(module, name) is wanted
