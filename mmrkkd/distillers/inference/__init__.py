"""The teacher at the speed of inference: its step is forward only."""

from .engine import TeacherEngine

__all__ = ['TeacherEngine']
