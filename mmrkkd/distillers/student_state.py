"""A distiller's state dict is the plain student's.

The keys are the student's and nothing else. What the losses learn (a
temperature, connectors, banks) stands in the checkpoint beside the student,
under ``distiller``: :class:`mmrkkd.engine.hooks.RunStateHook` puts it there,
and back where a run is resumed. Wherever else weights are loaded the losses
begin anew.

Earlier versions kept what a loss learns among the keys, and later up to 64
numbers in the state dict's ``_metadata``: :func:`learned_inside` reads both.
"""

import logging
from typing import NamedTuple

from mmengine.logging import print_log
from torch import Tensor, nn

STUDENT = 'student.'
DISTILLER = 'distiller.'
# Under this key in a checkpoint.
LEARNED = 'distiller'


def as_plain_student(
    module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict
) -> None:
    """State dict hook of a module with ``student`` and ``distiller``.

    Args:
        module: The module.
        state_dict: Its state, changed in place: the student's keys lose
            their prefix, the distiller's leave.
        prefix: Of the module's own keys.
        local_metadata: The module's metadata; unused.
    """
    for key in list(state_dict):
        if key.startswith(prefix + STUDENT):
            name = key[len(prefix + STUDENT) :]
            state_dict[prefix + name] = state_dict.pop(key)
        elif key.startswith(prefix + DISTILLER):
            del state_dict[key]
    metadata = getattr(state_dict, '_metadata', None)
    # Names of modules have no dot at their end.
    for key in list(metadata or {}):
        dotted = key + '.'
        if dotted.startswith(prefix + STUDENT):
            name = prefix + dotted[len(prefix + STUDENT) :]
            metadata[name[:-1]] = metadata.pop(key)
        elif dotted.startswith(prefix + DISTILLER):
            del metadata[key]


def as_distiller(state_dict: dict, prefix: str, local_metadata: dict) -> None:
    """Undoes :func:`as_plain_student`, before a state dict is loaded.

    Args:
        state_dict: Changed in place. The student's keys that have their
            prefix already are left as they are, the losses' of earlier
            versions leave.
        prefix: Of the module's own keys.
        local_metadata: The module's metadata; unused.
    """
    for key in list(state_dict):
        name = key[len(prefix) :]
        if not key.startswith(prefix) or name.startswith(STUDENT):
            continue
        value = state_dict.pop(key)
        if not name.startswith(DISTILLER):
            state_dict[prefix + STUDENT + name] = value


def forgive_learned(module: nn.Module, incompatible: NamedTuple) -> None:
    """Hook after a state dict was loaded: the student's is a whole one.

    What the losses learn is not missing from a plain student's state dict,
    so that a strict load succeeds and others do not warn: a student's weights
    are where distillation begins, and the losses begin anew.

    Args:
        module: The module.
        incompatible: ``missing_keys``, changed in place, and
            ``unexpected_keys``.
    """
    beside = tuple(DISTILLER + key for key in module.distiller.state_dict())
    incompatible.missing_keys[:] = [
        key for key in incompatible.missing_keys if not key.endswith(beside)
    ]


def learned_state(distiller: nn.Module) -> dict[str, Tensor]:
    """What stands in a checkpoint beside the student.

    Args:
        distiller: The losses.

    Returns:
        Key to tensor, copies on the CPU.
    """
    return {
        key: value.detach().to('cpu', copy=True)
        for key, value in distiller.state_dict().items()
    }


def learned_inside(state_dict: dict, prefix: str = '') -> dict[str, Tensor]:
    """What an earlier version kept of it inside a state dict.

    Args:
        state_dict: A distiller's.
        prefix: Of the distiller's keys, with a dot at its end.

    Returns:
        As :func:`learned_state`; {} where there is nothing.
    """
    start = prefix + DISTILLER
    among_keys = {
        key[len(start) :]: value
        for key, value in state_dict.items()
        if key.startswith(start)
    }
    metadata = getattr(state_dict, '_metadata', None) or {}
    return {**among_keys, **metadata.get(prefix[:-1], {}).get(LEARNED, {})}


def learned_in(checkpoint: dict) -> dict[str, Tensor]:
    """What a checkpoint, of this version or an earlier one, holds of it.

    Args:
        checkpoint: With ``state_dict``.

    Returns:
        As :func:`learned_state`; {} where there is nothing.
    """
    inside = learned_inside(checkpoint.get('state_dict', {}))
    return checkpoint.get(LEARNED) or inside


def load_learned_state(distiller: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts back what :func:`learned_state` gave.

    Args:
        distiller: The losses of the same config.
        state: May be {}, where the checkpoint has none.

    Raises:
        ValueError: the state belongs to other losses.
    """
    if not state and not distiller.state_dict():
        return
    if not state:
        print_log(
            'The checkpoint does not hold what the losses had learned '
            '(a temperature, connectors): they start anew. MMEngine saves it '
            "with custom_hooks=[dict(type='mmrkkd.RunStateHook')], which "
            'tools/train.py adds.',
            logger='current',
            level=logging.WARNING,
        )
        return
    check_learned_state(distiller, state)
    distiller.load_state_dict(state)


def check_learned_state(
    distiller: nn.Module, state: dict[str, Tensor]
) -> None:
    """Refuses what other losses have learned.

    Args:
        distiller: The losses of the config.
        state: As :func:`load_learned_state` takes it.

    Raises:
        ValueError: a key is on one side only, or its shapes differ.
    """
    own = distiller.state_dict()
    unlike = sorted(
        key
        for key in {*own, *state}
        if key not in own
        or key not in state
        or own[key].shape != state[key].shape
    )
    if unlike:
        raise ValueError(
            'the checkpoint was written with other losses than the config '
            f'has: {", ".join(unlike[:8])} differ; take the config that the '
            'run began with'
        )
