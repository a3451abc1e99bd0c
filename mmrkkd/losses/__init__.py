"""Logits in, named losses out. Usable in plain PyTorch, without a config."""

from .base import LogitLoss
from .kd import KDLoss
from .kendall import KendallLoss
from .rank_kd import RankKDLoss, build_loss

__all__ = ['KDLoss', 'KendallLoss', 'LogitLoss', 'RankKDLoss', 'build_loss']
