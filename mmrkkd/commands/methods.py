"""Methods by name: the settings that the shipped configs have.

A method is a file of ``configs/_base_/methods``. A name is looked up under
the prefixes of what the student is, the nearest first: ``rkkd`` of a
detector is ``detection_rkkd.py``, of a classifier ``rkkd.py``.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config, ConfigDict
from torch import nn

from mmrkkd.losses import build_loss
from mmrkkd.losses.base import LogitLoss
from mmrkkd.ops.checks import nearest_name
from mmrkkd.shipped import shipped

FOLDER = ('configs', '_base_', 'methods')
# What the student is -> what the names of its files begin with.
PREFIXES = {
    'classifier': ('',),
    'classifier of ImageNet': ('imagenet_', ''),
    'detector': ('detection_',),
    # Scores that a sigmoid decides have losses of their own.
    'detector of sigmoid scores': ('dense_', 'detection_'),
    'dense detector': ('dense_', 'detection_'),
    'dense detector with the head of FCOS': ('fcos_', 'dense_', 'detection_'),
    'detector with queries': ('query_', 'dense_', 'detection_'),
}
ALL_PREFIXES = sorted(
    {prefix for found in PREFIXES.values() for prefix in found}, reverse=True
)


class Method(NamedTuple):
    """The settings of a method.

    Args:
        name: Its name.
        source: The file that they stand in.
        losses: Config of the distillation loss, or a list of them.
        task_weight: beta, the weight of the task's own losses.
        matching: Config of the reader, or None for the student's usual one.
    """

    name: str
    source: Path
    losses: dict | list[dict]
    task_weight: float | dict
    matching: dict | None = None


def read_method(name: str, kind: str) -> Method:
    """The settings of a method for a kind of student.

    Args:
        name: See :func:`method_names`.
        kind: A key of ``PREFIXES``.

    Raises:
        ValueError: there is no such method; the message suggests the
            nearest name and lists all.
    """
    # Names of configs join methods by '-', where files have '_'.
    name = name.replace('-', '_')
    path = _files(kind).get(name)
    if path is None:
        raise no_method(name, kind, method_names(kind))
    settings = Config.fromfile(path).distillation
    return Method(
        name,
        path,
        settings.losses,
        settings.task_weight,
        settings.get('matching'),
    )


def no_method(name: str, kind: str, names: Sequence[str]) -> ValueError:
    """What to raise for a name that is none of these."""
    return ValueError(
        f'--method: there is no method {name!r} for a {kind}'
        f'{nearest_name(name, names)} The methods: {", ".join(names)}'
    )


def method_names(kind: str) -> list[str]:
    """The methods that there are settings of, for a kind of student."""
    return sorted(_files(kind))


def _files(kind: str) -> dict[str, Path]:
    """The methods of a kind, each in the file that is nearest to it."""
    prefixes, found = PREFIXES[kind], {}
    for path in shipped(*FOLDER).glob('*.py'):
        prefix = next(p for p in ALL_PREFIXES if path.stem.startswith(p))
        if prefix in prefixes and (
            'dense_' not in prefixes or _suits_a_sigmoid(path)
        ):
            name = path.stem.removeprefix(prefix)
            found.setdefault(name, {})[prefixes.index(prefix)] = path
    return {name: files[min(files)] for name, files in found.items()}


def losses_of(method: Method | ConfigDict) -> list[nn.Module]:
    """The losses of a method, built."""
    losses = method.losses
    return [
        build_loss(loss)
        for loss in ([losses] if isinstance(losses, dict) else losses)
    ]


@functools.lru_cache
def _suits_a_sigmoid(path: Path) -> bool:
    for loss in losses_of(Config.fromfile(path).distillation):
        if isinstance(loss, LogitLoss):
            try:
                loss.suit('sigmoid')
            except TypeError:
                return False
    return True
