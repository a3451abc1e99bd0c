"""Hooks for MMEngine's runner: runs that survive."""

from .atomic_checkpoint import AtomicCheckpointHook
from .non_finite import NonFiniteHook, NonFiniteLossError
from .run_state import RunStateHook

__all__ = [
    'AtomicCheckpointHook',
    'NonFiniteHook',
    'NonFiniteLossError',
    'RunStateHook',
]
