"""Rank-based knowledge distillation for OpenMMLab."""

from ._stack import check_stack

# Before anything that needs the stack: a missing or half-built one is told
# in one message with the command that mends it, not by a deep traceback.
check_stack()

from . import losses, models  # noqa: E402
from .registry import MODELS, publish  # noqa: E402
from .version import __version__  # noqa: E402

publish(MODELS)

__all__ = ['__version__', 'losses', 'models']
