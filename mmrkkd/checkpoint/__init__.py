"""Everything that reads or writes the files of checkpoints."""

from .fetch import fetch_checkpoint, read_checkpoint
from .resume import prepare_resume
from .training_state import read_training_state, safe_reader, use_safe_reader

__all__ = [
    'fetch_checkpoint',
    'prepare_resume',
    'read_checkpoint',
    'read_training_state',
    'safe_reader',
    'use_safe_reader',
]
