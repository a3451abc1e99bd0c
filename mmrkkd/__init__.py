"""Rank-based knowledge distillation for OpenMMLab.

This import needs torch alone, and ``mmrkkd.losses`` and ``mmrkkd.ops`` need
no more. What stands on OpenMMLab is imported where it is used; the stack is
examined there (:mod:`mmrkkd.registry`), and by the doctor.

``mmrkkd.distill`` is the command of the same name
(:func:`mmrkkd.commands.distill.distill`).
"""

import sys
from importlib import import_module
from importlib.util import find_spec

from .version import __version__

if 'mmengine' in sys.modules and (
    find_spec('mmdet') or find_spec('mmpretrain')
):
    # Imported by ``custom_imports`` of a config: bare names of ours resolve
    # in MMDetection's and MMPretrain's registries from now on.
    from .registry import publish_models

    publish_models()

__all__ = ['__version__', 'distill']

# Imported when they are asked for.
PACKAGES = ('backbones', 'distillers', 'losses', 'models', 'ops')


def __getattr__(name: str) -> object:
    if name in PACKAGES:
        return import_module(f'{__name__}.{name}')
    if name != 'distill':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .commands.distill import distill

    return distill
