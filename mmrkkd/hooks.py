"""The old name of :mod:`mmrkkd.engine.hooks`; goes with version 0.3."""

import warnings

from .checkpoint import (  # noqa: F401
    prepare_resume,
    read_training_state,
    use_safe_reader,
)
from .engine import use_robust_hooks  # noqa: F401
from .engine.hooks import *  # noqa: F403

warnings.warn(
    'the hooks of mmrkkd.hooks are in mmrkkd.engine.hooks now, and what '
    'reads checkpoints in mmrkkd.checkpoint; the old name goes with version '
    '0.3',
    FutureWarning,
    stacklevel=2,
)
