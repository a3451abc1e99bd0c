"""How to read matched logits out of a pair of models, by kind of head."""

from .base import LogitPair
from .two_stage import TwoStageReader

__all__ = ['LogitPair', 'TwoStageReader']
