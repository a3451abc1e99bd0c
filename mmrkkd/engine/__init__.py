"""What a run needs beside the models: settings, precision, processes."""

from .dot import DOT
from .dot_wrapper import (
    DOTAmpOptimWrapper,
    DOTAutocastOptimWrapper,
    DOTOptimWrapper,
)
from .optim_wrapper import AutocastOptimWrapper
from .prepare_run import prepare_model, prepare_run
from .run_settings import use_robust_hooks

__all__ = [
    'DOT',
    'AutocastOptimWrapper',
    'DOTAmpOptimWrapper',
    'DOTAutocastOptimWrapper',
    'DOTOptimWrapper',
    'prepare_model',
    'prepare_run',
    'use_robust_hooks',
]
