"""The data path: from a batch to the losses of a distillation step."""

from . import backbones
from .classifier import KDClassifier
from .detector import KDDetector
from .distiller import LogitDistiller
from .teacher import FrozenTeacher, build_teacher

__all__ = [
    'FrozenTeacher',
    'KDClassifier',
    'KDDetector',
    'LogitDistiller',
    'backbones',
    'build_teacher',
]
