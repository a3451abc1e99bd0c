"""Logits in, named losses out. Needs torch and nothing else.

A method is a file: every :class:`LogitLoss` that a module of this package
defines is found by itself, exported here, and known to configs by its name.
"""

from .base import LogitLoss, set_progress
from .build import build_loss, find_losses
from .schedule import Progress, build_schedule

LOSSES: dict[str, type[LogitLoss]] = find_losses(__name__, __path__)
globals().update(LOSSES)

__all__ = [
    'LOSSES',
    'LogitLoss',
    'Progress',
    'build_loss',
    'build_schedule',
    'set_progress',
    *LOSSES,
]
