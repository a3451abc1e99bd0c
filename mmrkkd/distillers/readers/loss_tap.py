"""What a head's classification loss is called with."""

import inspect

import torch
from torch import Tensor, nn

# Numbers of as many bytes.
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Losses that decide by a sigmoid and have no use_sigmoid to say so.
SIGMOID_LOSSES = dict.fromkeys(
    ('FocalLoss', 'BCEWithLogitsLoss', 'MultiLabelSoftMarginLoss'), True
)


class LossTap:
    """Notes the scores and the labels of each call of a loss module.

    Which call belongs to which scores is found by value: a head may call
    its loss more than once in a step, on other rows or on other scores.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, object]] = []

    def see(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Hook before the loss: its first two arguments, by any name."""
        values = arguments(module, args, kwargs)
        if len(values) > 1 and isinstance(values[0], Tensor):
            self.calls.append(tuple(values[:2]))

    def labels_of(self, *scores: Tensor) -> object | None:
        """The labels of the last call on one of these scores.

        Args:
            scores: What a head put out.

        Returns:
            The call's second argument; None where the loss saw none of them.
        """
        for seen, labels in reversed(self.calls):
            if any(same_values(seen, each) for each in scores):
                return labels
        return None


def arguments(module: nn.Module, args: tuple, kwargs: dict) -> list:
    """The values that a module is called with, in its forward's order."""
    signature = inspect.signature(module.forward)
    values = []
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            values.extend(value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            values.extend(value.values())
        else:
            values.append(value)
    return values


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, NaN included where they are the same.

    A step waits for the device only where a head copied its scores on the
    way to the loss.
    """
    if one is other:
        return True
    if one.shape != other.shape or one.device != other.device:
        return False
    return bool(all_equal(one.detach(), other.detach()))


def all_equal(one: Tensor, other: Tensor) -> Tensor:
    """Whether tensors of one shape have the same values, NaN included.

    Args:
        one: Any shape.
        other: The same; compared in the type of the first.

    Returns:
        A scalar, bool, on the device.
    """
    other = other.to(one.dtype)
    if one.is_floating_point():
        # Copies have the same bits, also of NaN: one comparison does.
        bits = INTEGERS[one.dtype.itemsize]
        one, other = one.view(bits), other.view(bits)
    return (one == other).all()


def is_sigmoid(loss: nn.Module) -> bool:
    """Whether a classification loss decides each class by a sigmoid."""
    stated = getattr(loss, 'use_sigmoid', None)
    if stated is not None:
        return bool(stated)
    if by_class(SIGMOID_LOSSES, loss):
        return True
    # Label smoothing, for one, keeps the cross entropy inside.
    return any(is_sigmoid(part) for part in loss.children())


def by_class(table: dict[str, object], module: nn.Module) -> object | None:
    """What a table of class names says of a module or of what it derives from.

    By name, as there are two families of OpenMMLab, and neither may be
    imported here.
    """
    for kind in type(module).__mro__:
        if kind.__name__ in table:
            return table[kind.__name__]
    return None
