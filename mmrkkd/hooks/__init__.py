"""Hooks for MMEngine's runner: runs that survive."""

from .checkpoint import AtomicCheckpointHook
from .non_finite import NonFiniteHook, NonFiniteLossError
from .reading import read_training_state, use_safe_reader
from .resume import prepare_resume
from .run_state import RunStateHook
from .setup import use_robust_hooks

__all__ = [
    'AtomicCheckpointHook',
    'NonFiniteHook',
    'NonFiniteLossError',
    'RunStateHook',
    'prepare_resume',
    'read_training_state',
    'use_robust_hooks',
    'use_safe_reader',
]
