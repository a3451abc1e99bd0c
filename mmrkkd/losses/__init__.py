"""Logits in, named losses out. Usable in plain PyTorch, without a config."""

from .base import LogitLoss, set_progress
from .kd import KDLoss
from .kendall import KendallLoss
from .rank_kd import RankKDLoss, build_loss
from .schedule import Progress, build_schedule

__all__ = [
    'KDLoss',
    'KendallLoss',
    'LogitLoss',
    'Progress',
    'RankKDLoss',
    'build_loss',
    'build_schedule',
    'set_progress',
]
