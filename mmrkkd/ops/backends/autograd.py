"""What our autograd functions share."""

import inspect

import torch


def known_signature(
    function: type[torch.autograd.Function],
) -> type[torch.autograd.Function]:
    """Class decorator: works out forward's signature once.

    ``apply`` asks ``inspect`` for it at every call, which takes 10 us of the
    some 50 that a small operator costs; it is read from ``__signature__``
    where there is one.
    """
    function.forward.__signature__ = inspect.signature(function.forward)
    return function
