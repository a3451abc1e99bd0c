"""Everything that reads or writes the files of checkpoints."""

from .fetch import fetch_checkpoint, file_sha256, read_checkpoint
from .resume import prepare_resume
from .training_state import read_training_state, safe_reader, use_safe_reader

__all__ = [
    'fetch_checkpoint',
    'file_sha256',
    'prepare_resume',
    'read_checkpoint',
    'read_training_state',
    'safe_reader',
    'use_safe_reader',
]
