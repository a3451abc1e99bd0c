"""How to read matched logits out of a pair of models, by kind of head."""

from .base import LogitPair, stack_views
from .classifier import ClassifierReader
from .two_stage import TwoStageReader

__all__ = ['ClassifierReader', 'LogitPair', 'TwoStageReader', 'stack_views']
