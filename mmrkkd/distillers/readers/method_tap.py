"""What a method of a model is called with, where no module's hook sees it."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import nn


class Call(NamedTuple):
    """One call of a method: its arguments by name, and what it gave."""

    arguments: dict
    result: object


@contextmanager
def noted_calls(owner: nn.Module, method: str) -> Iterator[list[Call]]:
    """Notes the calls of a method of this object inside the block.

    Some parts of a detector are methods and no modules: the decoder's
    preparation (``forward_decoder``), a RoI stage (``_bbox_forward``).

    Args:
        owner: The module with the method.
        method: The method's name.
    """
    calls, bound = [], getattr(owner, method)

    def call(*args, **kwargs) -> object:
        result = bound(*args, **kwargs)
        named = inspect.signature(bound).bind(*args, **kwargs).arguments
        # What a method takes as **kwargs stands among the others.
        calls.append(Call({**named, **named.pop('kwargs', {})}, result))
        return result

    before = vars(owner).get(method)
    vars(owner)[method] = call
    try:
        yield calls
    finally:
        if before is None:
            del vars(owner)[method]
        else:
            vars(owner)[method] = before
