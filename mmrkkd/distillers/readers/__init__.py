"""How to read matched logits out of a pair of models, by kind of head.

A reader is a file: every :class:`Reader` that a module of this package
defines is found by itself.
"""

import importlib
import inspect
import pkgutil

from torch import nn

from mmrkkd.ops.checks import check_options, nearest_name

from .base import Match, Reader, Scores, stack_views
from .heads import BASE, unknown_head


def _find_readers() -> dict[str, type[Reader]]:
    found = []
    for info in pkgutil.iter_modules(__path__, f'{__name__}.'):
        module = importlib.import_module(info.name)
        found += [
            kind
            for kind in vars(module).values()
            if inspect.isclass(kind)
            and issubclass(kind, Reader)
            and kind.__module__ == info.name
            and kind.name
        ]
    return {kind.name: kind for kind in sorted(found, key=lambda k: k.rank)}


READERS = _find_readers()
WRAPPED = 'a model around a detector ({}): give that detector as the student'


def build_reader(matching: str | dict | Reader, student: nn.Module) -> Reader:
    """The reader that a config names, or that fits the student.

    Args:
        matching: 'auto', the name of a reader, a dict with ``type`` and the
            reader's arguments, or a reader already made. A dict without
            ``type`` gives arguments to the reader that fits.
        student: The student.

    Returns:
        The reader.

    Raises:
        TypeError: no reader fits the student, or the reader has no such
            option.
        ValueError: there is no reader of that name.
    """
    if isinstance(matching, Reader):
        return matching
    if not isinstance(matching, (str, dict)):
        raise TypeError(
            "matching must be 'auto', the name of a reader or a dict "
            f'with type, got {matching!r}; readers: {", ".join(READERS)}'
        )
    options = {} if isinstance(matching, str) else dict(matching)
    name = options.pop('type', 'auto') if options else 'auto'
    if isinstance(matching, str):
        name = matching
    kind = _fitting(student) if name == 'auto' else READERS.get(name)
    if kind is None:
        raise ValueError(
            f'there is no reader {name!r}{nearest_name(name, READERS)} '
            f'matching must be one of auto, {", ".join(READERS)}'
        )
    check_options(f'matching of type {kind.name!r}', kind, options)
    return kind(**options)


def _fitting(student: nn.Module) -> type[Reader]:
    for kind in READERS.values():
        if kind.fits(student):
            return kind
    head, inside = unknown_head(student), _detector_inside(student)
    advice = 'docs/en/add_a_head.md says how to write one'
    if head is not None:
        advice = (
            f'Its head {type(head).__name__} stands on {BASE} alone, which '
            'does not say where class scores are: say it once by '
            f'mmrkkd.distillers.register_head({type(head).__name__!r}), see '
            'docs/en/dense_detectors.md'
        )
    if inside is not None:
        advice = f'It is {WRAPPED.format(type(inside).__name__)}'
    raise TypeError(
        f'no reader fits the student {type(student).__name__}: known are '
        f'{", ".join(READERS)}. {advice}'
    )


def _detector_inside(model: nn.Module) -> nn.Module | None:
    """What a tracker or a semi-supervised model has its boxes from."""
    for name in ('detector', 'student', 'teacher'):
        part = getattr(model, name, None)
        if any(kind.fits(part) for kind in READERS.values()):
            return part
    return None


__all__ = [
    'READERS',
    'WRAPPED',
    'Match',
    'Reader',
    'Scores',
    'build_reader',
    'stack_views',
]
