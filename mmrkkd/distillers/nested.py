"""Tensors inside of what modules take and give."""

from collections.abc import Callable, Iterator

from torch import Tensor


def mapped(value: object, function: Callable[[Tensor], Tensor]) -> object:
    """The same lists, tuples and dicts, with each tensor mapped.

    Args:
        value: A tensor, a container of values, or anything else, which is
            handed back as it is.
        function: Of a tensor.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return type(value)(
            (key, mapped(each, function)) for key, each in value.items()
        )
    if isinstance(value, tuple) and hasattr(value, '_fields'):
        return type(value)(*(mapped(each, function) for each in value))
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(each, function) for each in value)
    return value


def tensors(value: object) -> Iterator[Tensor]:
    """The tensors in lists, tuples and dicts, in their order."""
    found: list[Tensor] = []
    mapped(value, lambda tensor: found.append(tensor) or tensor)
    yield from found
