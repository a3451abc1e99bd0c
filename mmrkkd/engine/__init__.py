"""What a run needs beside the models: settings, precision, processes."""

from .launch import join_processes
from .optim_wrapper import AutocastOptimWrapper
from .prepare_run import prepare_model, prepare_run, use_robust_hooks

__all__ = [
    'AutocastOptimWrapper',
    'join_processes',
    'prepare_model',
    'prepare_run',
    'use_robust_hooks',
]
