"""How layers are named: a module, which of its outputs, or its input."""

import re
from collections.abc import Sequence

from torch import nn

from mmrkkd.ops.checks import nearest_name

LAYER = re.compile(r'((?:before )?[\w.]+)(?:\[(\d+|\*)\])?')
# What goes into a module, where its output is not what is meant.
BEFORE = 'before '


def parsed(owner: str, layer: str) -> tuple[str, str | None]:
    """The path of a layer, and which of its outputs.

    Args:
        owner: 'student' or 'teacher', for messages.
        layer: As :class:`mmrkkd.losses.feature.FeatureLoss` writes it.

    Raises:
        ValueError: it is written otherwise.
    """
    found = LAYER.fullmatch(layer)
    if not found:
        raise ValueError(
            f"the {owner}'s layer must be the path of a module, with [number]"
            ' or [*] for its outputs, such as neck[0], and before it for what '
            f'goes in, such as before backbone.relu; got {layer!r}'
        )
    return found.group(1), found.group(2)


def module_at(model: nn.Module, owner: str, path: str) -> nn.Module:
    """The module of a path.

    Args:
        model: The model.
        owner: 'student' or 'teacher', for messages.
        path: As in ``named_modules``; what is before it counts as it.

    Raises:
        ValueError: there is none; the nearest name is in the message.
    """
    path = path.removeprefix(BEFORE)
    try:
        return model.get_submodule(path)
    except AttributeError:
        names = [name for name, _ in model.named_modules() if name]
        near = nearest_name(path, names)
        parts = ', '.join(name for name, _ in model.named_children())
        raise ValueError(
            f'the {owner} {type(model).__name__} has no layer {path!r}{near} '
            f'Its parts: {parts}'
        ) from None


def numbers_of(
    owner: str, path: str, index: str | None, count: int
) -> Sequence[int]:
    """Which of the outputs of a module are meant.

    Args:
        owner: 'student' or 'teacher', for messages.
        path: Of the module.
        index: What stood in brackets.
        count: How many outputs it has.

    Raises:
        ValueError: there are none, no such one, or several to choose from.
    """
    if not count:
        raise ValueError(
            f"the {owner}'s layer {path!r} is not run, or puts out no "
            "tensor, when the model's features are computed"
        )
    if index == '*':
        return range(count)
    if index is None:
        if count > 1:
            raise ValueError(
                f"the {owner}'s layer {path!r} has {count} outputs: say "
                f'which, {path}[0] to {path}[{count - 1}], or {path}[*]'
            )
        return [0]
    if int(index) >= count:
        raise ValueError(
            f"the {owner}'s layer {path!r} has {count} outputs, counted from "
            f'0; got {path}[{index}]'
        )
    return [int(index)]
