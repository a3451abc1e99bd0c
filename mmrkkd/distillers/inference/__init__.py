"""The teacher at the speed of inference: its step is forward only."""

from .engine import PRECISIONS, TeacherEngine

__all__ = ['PRECISIONS', 'TeacherEngine']
