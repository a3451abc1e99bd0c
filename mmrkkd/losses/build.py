"""Losses found by their files, and built from configs."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Collection, Iterable

from torch import nn

from mmrkkd.ops.checks import check_options, nearest_name

from .base import DistillationLoss
from .placement import OPTIONS as PLACEMENT
from .placement import Placed

SCOPE = 'mmrkkd.'
# What losses cannot do without, for the message.
EXAMPLES = dict(
    student_layers="e.g. 'backbone[3]', the last stage of a backbone that "
    "puts out four, or ['neck[0]', 'neck[1]'] (docs/en/features.md)",
    num_data='the number of images of the training set, e.g. 50000 '
    '(docs/en/features.md)',
)


def find_losses(
    package: str, path: Iterable[str]
) -> dict[str, type[DistillationLoss]]:
    """The losses that the modules of a package define.

    Args:
        package: Its dotted name.
        path: Its ``__path__``.

    Returns:
        Class name to class, in the order of the names; bases (classes that
        set ``is_base``, and those with a leading underscore) are none.
    """
    found = {}
    for info in pkgutil.walk_packages(path, f'{package}.'):
        module = importlib.import_module(info.name)
        for name, kind in vars(module).items():
            if (
                inspect.isclass(kind)
                and issubclass(kind, DistillationLoss)
                and kind.__module__ == info.name
                and not kind.is_base
                and not name.startswith('_')
            ):
                found[name] = kind
    return dict(sorted(found.items()))


def build_loss(
    loss: dict | nn.Module, kind: type = DistillationLoss
) -> DistillationLoss:
    """Builds a distillation loss from its config.

    Args:
        loss: A dict with ``type`` (with or without the scope ``mmrkkd.``,
            or a class), or a loss already made.
        kind: What it must be. Defaults to any distillation loss.

    Returns:
        The loss.

    Raises:
        KeyError: there is no ``type``, or no loss of that name; the message
            suggests the nearest one.
        TypeError: it is not of that kind, has no such option (the message
            lists those that it has), or needs one that is not given.
    """
    if isinstance(loss, dict):
        options = {
            key: value
            for key, value in loss.items()
            if key not in ('type', '_scope_')
        }
        called = _called(loss)
        placement = _placement(called, options)
        check_options(called.__name__, called, options)
        _check_required(called, options)
        loss = called(**options)
        if placement:
            loss.place(**placement)
    if not isinstance(loss, kind):
        raise TypeError(
            f'a distillation loss must be a {kind.__name__} or the config of '
            f'one, got {type(loss).__name__}'
        )
    return loss


def _check_required(called: type, options: Collection[str]) -> None:
    """Refuses to call a class without what it must have."""
    missing = [
        f'{name}, {EXAMPLES[name]}' if name in EXAMPLES else name
        for name, parameter in inspect.signature(called).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind
        not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in options
    ]
    if missing:
        raise TypeError(
            f'{called.__name__} needs {"; and ".join(missing)}; got '
            f'{", ".join(options) or "nothing"}'
        )


def _placement(called: type, options: dict) -> dict:
    """Takes out what any logit loss may say of where it applies."""
    if not inspect.isclass(called) or not issubclass(called, Placed):
        return {}
    own = inspect.signature(called).parameters
    return {
        name: options.pop(name)
        for name in PLACEMENT
        if name in options and name not in own
    }


def _called(config: dict) -> type:
    """The class that a config names."""
    from . import LOSSES

    registered = _registered()
    known = {**LOSSES, **registered}
    names = ', '.join(sorted(known))
    kind = config.get('type')
    if kind is None:
        raise KeyError(
            'the config of a distillation loss needs type, got the keys '
            f'{sorted(config)}. The losses: {names}'
        )
    if not isinstance(kind, str):
        return kind
    called = known.get(kind.removeprefix(SCOPE)) or _elsewhere(kind)
    if called is None:
        near = nearest_name(kind.rpartition('.')[2], sorted(known))
        raise KeyError(
            f'{kind} is not in the registry of losses{near} '
            f'The losses: {names}'
        )
    return called


def _registered() -> dict[str, type]:
    """The losses that users entered in the registry.

    It stands on MMEngine, which the losses do without: where it was never
    imported nobody entered anything.
    """
    registry = sys.modules.get('mmrkkd.registry')
    if registry is None:
        return {}
    return {
        name: module
        for name, module in registry.MODELS.module_dict.items()
        if inspect.isclass(module) and issubclass(module, DistillationLoss)
    }


def _elsewhere(kind: str) -> object | None:
    """What a name means to the registries of other packages."""
    registry = sys.modules.get('mmrkkd.registry')
    return None if registry is None else registry.MODELS.get(kind)
