"""What a model's BatchNorm says of the values of a layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .features import BEFORE, LAYER, module_at


def layer_statistics(
    model: nn.Module, owner: str, layer: str, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, as BatchNorm makes them.

    Args:
        model: The model.
        owner: 'student' or 'teacher', for messages.
        layer: A BatchNorm; or 'before' an activation, whose block's last
            BatchNorm counts, shortcuts left out.
        shape: Of the layer, (1, C, ...).

    Returns:
        beta and |gamma|, (C,) each: copies.

    Raises:
        ValueError: there is no BatchNorm of C channels.
    """
    path = LAYER.fullmatch(layer).group(1)
    module = module_at(model, owner, path)
    if path.startswith(BEFORE) and not list(module.parameters()):
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


def _last_norm(block: nn.Module, name: str) -> nn.Module | None:
    """Of a block's own BatchNorms the last, before a member of a row."""
    parts = dict(block.named_children())
    if isinstance(block, nn.Sequential):
        names = list(parts)
        parts = {key: parts[key] for key in names[: names.index(name)]}
    norms = [part for part in parts.values() if isinstance(part, _BatchNorm)]
    return norms[-1] if norms else None
