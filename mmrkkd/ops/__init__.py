"""Tensors in, tensors out: the arithmetic that the losses share.

Imports torch and nothing of mmrkkd.
"""

from .divergence import binary_kl_divergence, kl_divergence
from .kendall_tau import kendall_tau
from .pearson import pearson
from .rank_correlation import exact_kendall_tau, top1_agreement
from .soft_rank import soft_rank
from .standardize import standardize

__all__ = [
    'binary_kl_divergence',
    'exact_kendall_tau',
    'kendall_tau',
    'kl_divergence',
    'pearson',
    'soft_rank',
    'standardize',
    'top1_agreement',
]
