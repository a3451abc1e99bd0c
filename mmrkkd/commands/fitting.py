"""Which methods go with two detectors: by readers, boxes and anchors."""

from functools import cached_property

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from mmrkkd.distillers.model_config import whole_model
from mmrkkd.distillers.readers import Reader, build_reader
from mmrkkd.distillers.readers.anchors import anchor_generator
from mmrkkd.distillers.readers.heads import dense_head
from mmrkkd.distillers.readers.loss_tap import by_class
from mmrkkd.registry import MODELS

from .methods import (
    Method,
    losses_of,
    method_names,
    no_method,
    read_method,
)

# With published weights of their own; subclasses follow, but those whose
# scores are others.
LIKE_FCOS = {'FCOSHead': True, 'AutoAssignHead': False, 'VFNetHead': False}
# Readers of detectors whose scores a sigmoid decides -> what those are.
SIGMOID_KINDS = {
    'grid': 'dense detector',
    'queries': 'detector with queries',
    'sparse': 'detector with queries',
}
# What compares boxes, or needs anchors -> what else to take where there are
# none, the nearest first.
INSTEAD = {
    'crosskd_giou': ('crosskd_rk', 'crosskd'),
    'crosskd_ld': ('crosskd_giou', 'crosskd_rk', 'crosskd'),
    'crosskd_rk_giou': ('crosskd_rk',),
    'crosskd_rk_ld': ('crosskd_rk_giou', 'crosskd_rk'),
    'fgfi': ('fitnet',),
    'kd_giou': ('kd',),
    'ld': ('crosskd_giou', 'crosskd_rk', 'crosskd', 'kd'),
    'rkkd_giou': ('rkkd',),
}


class Detectors:
    """A student and its teacher, built without weights where looked at.

    Args:
        student: The student's whole config.
        teacher: The teacher's, with its ``default_scope``.
    """

    def __init__(self, student: Config, teacher: ConfigDict) -> None:
        self._configs = student, teacher

    @cached_property
    def student(self) -> nn.Module:
        """The student."""
        return _built(self._configs[0])

    @cached_property
    def teacher(self) -> nn.Module:
        """The teacher."""
        return _built(self._configs[1])

    @cached_property
    def kind(self) -> str:
        """What the student is, a key of the methods' ``PREFIXES``."""
        reader = build_reader('auto', self.student)
        if reader.scores(self.student).activation != 'sigmoid':
            return 'detector'
        if by_class(LIKE_FCOS, dense_head(self.student)):
            return 'dense detector with the head of FCOS'
        return SIGMOID_KINDS.get(reader.name, 'detector of sigmoid scores')

    def method(self, name: str) -> Method:
        """The settings of a method that goes with the two.

        Raises:
            ValueError: there is none of that name for such a student, or it
                compares boxes that one of the two does not have, or needs
                anchors that the student has not; the message says what to
                take.
        """
        name = name.replace('-', '_')
        known = method_names(self.kind)
        method = read_method(name, self.kind) if name in known else None
        if method is None or not self._fits(method):
            offered = [each for each in known if self._offers(each)]
            raise no_method(name, self.kind, offered)
        if why := self._refusal(method, self._teaching(method)):
            raise ValueError(f'--method {name}: {why}{self._instead(name)}')
        return method

    def _instead(self, name: str) -> str:
        """What to take on the command line, where there is something."""
        known = method_names(self.kind)
        for other in INSTEAD.get(name, ()):
            if other in known and self._offers(other, with_teacher=True):
                return f'. On the command line: --method {other}'
        return ''

    def _offers(self, name: str, with_teacher: bool = False) -> bool:
        method = read_method(name, self.kind)
        if not self._fits(method):
            return False
        teacher = self._teaching(method) if with_teacher else self.student
        return not self._refusal(method, teacher)

    def _fits(self, method: Method) -> bool:
        """Whether the student has what the method's reader reads."""
        return self._reader(method).fits(self.student)

    def _teaching(self, method: Method) -> nn.Module:
        """Who is asked for boxes beside the student.

        A teacher of another kind is not: the distiller names both.
        """
        if _wanted(method) and self._reader(method).fits(self.teacher):
            return self.teacher
        return self.student

    def _refusal(self, method: Method, teacher: nn.Module) -> str:
        """Why the two have not what the method asks for, or ''."""
        reader = self._reader(method)
        try:
            for what, loss in _wanted(method):
                reader.want(what, loss, self.student, teacher)
            if _needs_anchors(method):
                anchor_generator(self.student, 'student')
        except (TypeError, ValueError) as error:
            return str(error)
        return ''

    def _reader(self, method: Method) -> Reader:
        return build_reader(method.matching or 'auto', self.student)


def _wanted(method: Method) -> list[tuple[str, str]]:
    """What a method compares besides of class scores, and the loss's name."""
    return [
        (what, type(loss).__name__)
        for loss in losses_of(method)
        for what in getattr(loss, 'asks_for', ())
    ]


def _needs_anchors(method: Method) -> bool:
    """Whether a loss compares the cells that anchors stand on."""
    losses = losses_of(method)
    return any(getattr(loss, 'needs_anchors', False) for loss in losses)


def _built(config: dict) -> nn.Module:
    scope = config.get('default_scope') or 'mmengine'
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(whole_model(config))
