"""A distiller's state dict is the plain student's.

The keys are the student's and nothing else. A few numbers that a loss learns
(a temperature) travel where PyTorch keeps the versions of modules: in the
state dict's ``_metadata``, which loading a student ignores, strictly too, so
that any script saves them. Connectors and banks, which are large, stand in
the checkpoint beside the student, under ``distiller``:
:class:`mmrkkd.engine.hooks.RunStateHook` puts them there and back.
"""

import logging
from typing import NamedTuple

from mmengine.logging import print_log
from torch import Tensor, nn

STUDENT = 'student.'
DISTILLER = 'distiller.'
# Under this key, in the metadata of the module itself, and in a checkpoint.
LEARNED = 'distiller'
# What a loss learns travels in the metadata up to so many numbers.
NUMBERS_IN_METADATA = 64


def as_plain_student(
    module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict
) -> None:
    """State dict hook of a module with ``student`` and ``distiller``.

    Args:
        module: The module.
        state_dict: Its state, changed in place: the student's keys lose
            their prefix, the distiller's leave. They stay in one that has
            no metadata, which PyTorch and MMEngine never make.
        prefix: Of the module's own keys.
        local_metadata: The module's metadata; unused.
    """
    metadata = getattr(state_dict, '_metadata', None)
    is_small = not in_checkpoint(module.distiller)
    learned = {}
    for key in list(state_dict):
        if key.startswith(prefix + STUDENT):
            name = key[len(prefix + STUDENT) :]
            state_dict[prefix + name] = state_dict.pop(key)
        elif key.startswith(prefix + DISTILLER) and metadata is not None:
            value = state_dict.pop(key).detach()
            if is_small:
                learned[key[len(prefix + DISTILLER) :]] = value.to(
                    'cpu', copy=True
                )
    # Names of modules have no dot at their end.
    for key in list(metadata or {}):
        dotted = key + '.'
        if dotted.startswith(prefix + STUDENT):
            name = prefix + dotted[len(prefix + STUDENT) :]
            metadata[name[:-1]] = metadata.pop(key)
        elif dotted.startswith(prefix + DISTILLER):
            del metadata[key]
    if learned:
        metadata[prefix[:-1]][LEARNED] = learned


def as_distiller(state_dict: dict, prefix: str, local_metadata: dict) -> None:
    """Undoes :func:`as_plain_student`, before a state dict is loaded.

    Args:
        state_dict: Changed in place. Keys that have their prefixes already
            are left as they are.
        prefix: Of the module's own keys.
        local_metadata: The module's metadata.
    """
    for key in list(state_dict):
        name = key[len(prefix) :]
        if key.startswith(prefix) and not name.startswith(
            (STUDENT, DISTILLER)
        ):
            state_dict[prefix + STUDENT + name] = state_dict.pop(key)
    for name, value in local_metadata.get(LEARNED, {}).items():
        state_dict.setdefault(prefix + DISTILLER + name, value)


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


def in_checkpoint(distiller: nn.Module) -> bool:
    """Whether what the losses learn is too much for the metadata."""
    numbers = sum(value.numel() for value in distiller.state_dict().values())
    return numbers > NUMBERS_IN_METADATA


def learned_state(distiller: nn.Module) -> dict[str, Tensor]:
    """What stands in a checkpoint beside the student.

    Args:
        distiller: The losses.

    Returns:
        Key to tensor, copies on the CPU; {} where the metadata do.
    """
    if not in_checkpoint(distiller):
        return {}
    return {
        key: value.detach().to('cpu', copy=True)
        for key, value in distiller.state_dict().items()
    }


def load_learned_state(distiller: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts back what :func:`learned_state` gave.

    Args:
        distiller: The losses of the same config.
        state: May be {}, where the checkpoint has none.

    Raises:
        ValueError: the state belongs to other losses.
    """
    if not in_checkpoint(distiller) and not state:
        return
    if not state:
        print_log(
            'The checkpoint does not hold what the losses had learned '
            '(connectors): they start anew. MMEngine saves it with '
            "custom_hooks=[dict(type='mmrkkd.RunStateHook')], which "
            'tools/train.py adds.',
            logger='current',
            level=logging.WARNING,
        )
        return
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
    distiller.load_state_dict(state)
