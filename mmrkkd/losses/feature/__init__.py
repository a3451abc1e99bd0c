"""Features in, named losses out: the same rules, with learned connectors."""

from .base import FeatureLoss, FeaturePair

__all__ = ['FeatureLoss', 'FeaturePair']
