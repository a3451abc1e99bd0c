"""What a run needs beside the models: settings, precision, processes."""

from .launch import join_processes
from .optim_wrapper import AutocastOptimWrapper
from .robust import use_robust_hooks

__all__ = ['AutocastOptimWrapper', 'join_processes', 'use_robust_hooks']
