"""What parts of a model are called with, and what they give."""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from torch import nn


class Call(NamedTuple):
    """One call of a method: its arguments by name, and what it gave."""

    arguments: dict
    result: object


@contextmanager
def noted_outputs(*heads: nn.Module) -> Iterator[list]:
    """Notes what each call of these modules gives inside the block.

    Args:
        heads: The modules; of none nothing is noted.
    """
    seen = []
    with ExitStack() as stack:
        for head in heads:
            stack.enter_context(
                head.register_forward_hook(
                    lambda module, args, output: seen.append(output)
                )
            )
        yield seen


@contextmanager
def noted_calls(owner: nn.Module, method: str) -> Iterator[list[Call]]:
    """Notes the calls of a method of this object inside the block.

    Some parts of a detector are methods and no modules, and no hook sees
    them: the decoder's preparation (``forward_decoder``), a RoI stage
    (``_bbox_forward``).

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
