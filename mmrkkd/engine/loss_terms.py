"""The loss terms of a training step, and whether they are finite."""

import math
from collections.abc import Iterator

from torch import Tensor

from mmrkkd.distillers.terms import level_means


def terms_of(losses: dict) -> Iterator[tuple[str, Tensor]]:
    """Every loss term, those of several levels or stages added up.

    Args:
        losses: What a model's forward pass gives in mode 'loss': log key to
            tensor or list of tensors. Keys without 'loss' are diagnostics
            and are not looked at.
    """
    for name, value in losses.items():
        if 'loss' not in name:
            continue
        levels = [level.detach() for level in level_means(value)]
        if levels:
            yield name, sum(levels)


def bad_of(terms: list[tuple[str, Tensor]]) -> dict[str, float]:
    """Of names and scalars those that are NaN or infinite."""
    values = {name: value.item() for name, value in terms}
    return {k: v for k, v in values.items() if not math.isfinite(v)}


def without_gradient(losses: dict) -> dict:
    """The same values, whose backward pass reaches no parameter.

    An optimizer passes over parameters without a gradient: no momentum, no
    weight decay, no step is counted.
    """

    def cut(value: object) -> object:
        if isinstance(value, (list, tuple)):
            return [cut(item) for item in value]
        if not value.is_floating_point():
            return value
        return value.detach() + value.new_zeros((), requires_grad=True)

    return {name: cut(value) for name, value in losses.items()}
