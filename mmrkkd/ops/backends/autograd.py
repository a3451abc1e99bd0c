"""What our autograd functions share."""

import inspect

import torch
from torch import Tensor


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


def scaled_once(upstream: Tensor, student: Tensor, gradient: Tensor) -> Tensor:
    """A gradient made in the forward pass times the upstream one.

    Args:
        upstream: (...), one for each row, or a scalar for all.
        student: (..., C), what the gradient belongs to.
        gradient: (..., C).

    Returns:
        (..., C). To differentiate it again raises a RuntimeError.
    """
    # A second autograd function only where it may be asked for.
    scaled = _Scaled.apply if torch.is_grad_enabled() else _Scaled.forward
    return scaled(upstream, student, gradient)


class _Scaled(torch.autograd.Function):
    """The gradient times the upstream one: the end of the way.

    Autograd would take ``gradient`` for a constant, and its derivative for
    0, which is wrong. The student is an argument so that whoever asks for
    that derivative comes by here.
    """

    @staticmethod
    def forward(upstream: Tensor, student: Tensor, gradient: Tensor):
        return upstream.unsqueeze(-1) * gradient

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, _):
        raise RuntimeError(
            'the fused kendall_tau cannot be differentiated twice: its '
            "second derivative is not computed; use impl='eager' for it"
        )

    @staticmethod
    def vmap(info, in_dims, *tensors: Tensor):
        return _Scaled.apply(
            *(
                batch_first(tensor, dim, info.batch_size)
                for tensor, dim in zip(tensors, in_dims, strict=True)
            )
        ), 0


def batch_first(
    tensor: Tensor | None, dim: int | None, batch: int
) -> Tensor | None:
    """A tensor of vmap with its batch dimension in front."""
    if tensor is None:
        return None
    if dim is None:
        return tensor.expand(batch, *tensor.shape)
    return tensor.movedim(dim, 0)
