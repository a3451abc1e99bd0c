"""Losses from configs, with errors that say what was meant."""

import inspect

from mmengine.registry import DefaultScope
from torch import nn

from mmrkkd.ops.checks import check_options, nearest_name
from mmrkkd.registry import MODELS

from .base import LogitLoss


def build_loss(loss: dict | nn.Module) -> LogitLoss:
    """Builds a logit loss from its config.

    Args:
        loss: A dict with ``type`` (with or without the scope ``mmrkkd.``),
            or a :class:`LogitLoss` already made.

    Returns:
        The loss.

    Raises:
        KeyError: there is no ``type``, or no loss of that name; the message
            suggests the nearest one.
        TypeError: it is not a :class:`LogitLoss`, or has no such option;
            the message lists those that it has.
    """
    if isinstance(loss, dict):
        with DefaultScope.overwrite_default_scope('mmrkkd'):
            _check_config(loss)
            loss = MODELS.build(loss)
    if not isinstance(loss, LogitLoss):
        raise TypeError(
            'a distillation loss must be a LogitLoss or the config of one, '
            f'got {type(loss).__name__}'
        )
    return loss


def _check_config(config: dict) -> None:
    """Refuses names that lead nowhere, with the nearest right one."""
    known = sorted(
        name
        for name, module in MODELS.module_dict.items()
        if inspect.isclass(module) and issubclass(module, LogitLoss)
    )
    kind = config.get('type')
    if kind is None:
        raise KeyError(
            'the config of a distillation loss needs type, got the keys '
            f'{sorted(config)}. The losses: {", ".join(known)}'
        )
    called = MODELS.get(kind) if isinstance(kind, str) else kind
    if called is None:
        near = nearest_name(kind.rpartition('.')[2], known)
        raise KeyError(
            f'{kind} is not in the registry of losses{near} '
            f'The losses: {", ".join(known)}'
        )
    if callable(called):
        options = [key for key in config if key not in ('type', '_scope_')]
        check_options(called.__name__, called, options)
