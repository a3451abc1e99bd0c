"""The old name of :mod:`mmrkkd.distillers`; goes with version 0.3."""

import sys
import warnings

from . import backbones
from .distillers import *  # noqa: F403
from .distillers import __all__  # noqa: F401

# ``mmrkkd.models.backbones`` was a package, which configs could import.
sys.modules[f'{__name__}.backbones'] = backbones
warnings.warn(
    'mmrkkd.models is called mmrkkd.distillers now, and its backbones '
    'mmrkkd.backbones; the old name goes with version 0.3',
    FutureWarning,
    stacklevel=2,
)
