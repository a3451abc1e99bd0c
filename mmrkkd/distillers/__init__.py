"""The data path: from a batch to the losses of a distillation step."""

from mmrkkd.losses import LOSSES
from mmrkkd.registry import MODELS, publish

from .classifier import KDClassifier
from .detector import KDDetector
from .distiller import LogitDistiller
from .readers.heads import cells, register_head
from .readers.query_heads import register_query_head
from .teacher import FrozenTeacher, build_teacher

# The losses know nothing of MMEngine: here configs get to know them.
for _loss in LOSSES.values():
    MODELS.register_module(module=_loss)
publish(MODELS)

__all__ = [
    'FrozenTeacher',
    'KDClassifier',
    'KDDetector',
    'LogitDistiller',
    'build_teacher',
    'cells',
    'register_head',
    'register_query_head',
]
