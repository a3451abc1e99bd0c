"""What a model's BatchNorm says of the values of a layer."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .layer_names import BEFORE, module_at, parsed


def layer_statistics(
    model: nn.Module,
    owner: str,
    layer: str,
    shape: Sequence[int],
    calls: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, as BatchNorm makes them.

    Args:
        model: The model.
        owner: 'student' or 'teacher', for messages.
        layer: A BatchNorm; or 'before' an activation, whose block's last
            BatchNorm counts, shortcuts left out.
        shape: Of the layer, (1, C, ...).
        calls: How often it is run. Defaults to None, not known.

    Returns:
        beta and |gamma|, (C,) each: copies.

    Raises:
        ValueError: there is no BatchNorm of C channels, or an activation is
            meant in another call than its last.
    """
    path, index = parsed(owner, layer)
    module = module_at(model, owner, path)
    if path.startswith(BEFORE) and not list(module.parameters()):
        number = calls - 1 if index == '*' and calls else index
        if calls is not None and int(number or 0) != calls - 1:
            raise ValueError(
                f"the {owner}'s layer {path!r} is run {calls} times, and the "
                'last BatchNorm of its block says how the last call is '
                f'distributed, [{calls - 1}]; got {layer!r}. Name that call, '
                'or the BatchNorm itself'
            )
        block, _, name = path.removeprefix(BEFORE).rpartition('.')
        module = _last_norm(module_at(model, owner, block), name) or module
    if not isinstance(module, _BatchNorm) or module.num_features != shape[1]:
        raise ValueError(
            f"the {owner}'s layer {layer!r} has {shape[1]} channels, and no "
            'BatchNorm of as many that says how they are distributed: name a '
            "BatchNorm, or 'before' the activation of a block that has some"
        )
    if module.weight is None:
        return torch.zeros(shape[1]), torch.ones(shape[1])
    return (
        module.bias.detach().clone(),
        module.weight.detach().abs().clone(),
    )


def all_statistics(
    teacher: nn.Module,
    layers: Sequence[str],
    shapes: Sequence[Sequence[int]],
    calls: Mapping[str, int],
) -> list[tuple[Tensor, Tensor]]:
    """Those of each of a teacher's layers, see :func:`layer_statistics`.

    Args:
        teacher: The teacher.
        layers: One output each.
        shapes: Of the outputs.
        calls: How many outputs the module of each path has.

    Raises:
        ValueError: a layer has none, or several outputs.
    """
    if len(shapes) != len(layers):
        raise ValueError(
            'the loss looks for the BatchNorm of each layer of the teacher: '
            f'name them one by one, without [*], got {", ".join(layers)}'
        )
    return [
        layer_statistics(
            teacher, 'teacher', layer, shape, calls[parsed('', layer)[0]]
        )
        for layer, shape in zip(layers, shapes, strict=True)
    ]


def _last_norm(block: nn.Module, name: str) -> nn.Module | None:
    """Of a block's own BatchNorms the last, before a member of a row."""
    parts = dict(block.named_children())
    if isinstance(block, nn.Sequential):
        names = list(parts)
        parts = {key: parts[key] for key in names[: names.index(name)]}
    norms = [part for part in parts.values() if isinstance(part, _BatchNorm)]
    return norms[-1] if norms else None
