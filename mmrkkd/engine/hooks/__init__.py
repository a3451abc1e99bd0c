"""Hooks for MMEngine's runner: runs that survive, and are worth it."""

from .atomic_checkpoint import AtomicCheckpointHook
from .channels_last import ChannelsLastHook
from .check_teacher import CheckTeacherHook, UselessTeacherError
from .draw_detections import DrawDetectionsHook
from .non_finite import NonFiniteHook, NonFiniteLossError
from .run_state import RunStateHook

__all__ = [
    'AtomicCheckpointHook',
    'ChannelsLastHook',
    'CheckTeacherHook',
    'DrawDetectionsHook',
    'NonFiniteHook',
    'NonFiniteLossError',
    'RunStateHook',
    'UselessTeacherError',
]
