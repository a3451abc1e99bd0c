"""Logits in, named losses out. Usable in plain PyTorch, without a config."""

from .base import LogitLoss, set_progress
from .build import build_loss
from .crld import CRLDLoss
from .ctkd import CTKDLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .kd import KDLoss
from .kendall import KendallLoss
from .lra import LRALoss
from .lskd import LSKDLoss
from .mlkd import MLKDLoss
from .nkd import NKDLoss
from .rank_kd import RankKDLoss
from .schedule import Progress, build_schedule
from .ttm import TTMLoss, WTTMLoss

__all__ = [
    'CRLDLoss',
    'CTKDLoss',
    'DISTLoss',
    'DKDLoss',
    'KDLoss',
    'KendallLoss',
    'LRALoss',
    'LSKDLoss',
    'LogitLoss',
    'MLKDLoss',
    'NKDLoss',
    'Progress',
    'RankKDLoss',
    'TTMLoss',
    'WTTMLoss',
    'build_loss',
    'build_schedule',
    'set_progress',
]
