"""The data path: from a batch to the losses of a distillation step."""

from .detector import KDDetector
from .distiller import LogitDistiller
from .teacher import FrozenTeacher, build_teacher

__all__ = ['FrozenTeacher', 'KDDetector', 'LogitDistiller', 'build_teacher']
