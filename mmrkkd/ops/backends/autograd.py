"""What our autograd functions share."""

import inspect
from collections.abc import Callable

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


def compiling() -> bool:
    """Whether torch.compile is reading the code; False before torch 2.3."""
    asked = getattr(torch.compiler, 'is_compiling', None)
    return asked is not None and asked()


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work.

    Not inside torch.compile, which works on other tensors than it is told of.
    """
    if compiling():
        return False
    stack = getattr(torch._C._functorch, 'peek_interpreter_stack', None)
    level = getattr(torch.autograd.forward_ad, '_current_level', -1)
    return level >= 0 or (stack is not None and stack() is not None)


def keepable(value: object) -> object:
    """What can be kept for a backward pass.

    A tensor that was made under ``torch.inference_mode`` cannot: a copy.
    """
    # Dynamo cannot ask.
    if compiling() or not isinstance(value, Tensor):
        return value
    if value.is_inference():
        return value.clone()
    return value


def with_slopes(
    eager: Callable[..., Tensor],
    fast: Callable[..., tuple[Tensor, Tensor]],
    student: Tensor,
    *others: object,
    dim: int = -1,
) -> Tensor:
    """A number for each row whose gradient is written down.

    It saves what autograd would keep and do again: beside its arguments one
    tensor is kept, and the way back is one product.

    Args:
        eager: The equation: (student, *others) -> (...), which autograd
            knows. It takes the place of ``fast`` where a second derivative
            is asked for, where ``others`` have a gradient too or another
            shape or type than the student, inside torch.compile, and under
            torch.func and forward-mode differentiation.
        fast: The same, and d value / d student, of the student's shape.
        student: Any shape. Gets gradient.
        others: What else both take.
        dim: The dimension of a row's entries, negative. Defaults to -1.

    Returns:
        The shape of the student without ``dim``.
    """
    numbers = [
        each
        for each in others
        if isinstance(each, Tensor) and each.is_floating_point()
    ]
    if (
        compiling()
        or transformed()
        or any(x.requires_grad or not _alike(x, student) for x in numbers)
    ):
        return eager(student, *others)
    if not (student.requires_grad and torch.is_grad_enabled()):
        return fast(student, *others)[0]
    others = [keepable(each) for each in others]
    return _WithSlopes.apply(student, eager, fast, dim, *others)[0]


def _alike(tensor: Tensor, student: Tensor) -> bool:
    return tensor.shape == student.shape and tensor.dtype == student.dtype


@known_signature
class _WithSlopes(torch.autograd.Function):
    @staticmethod
    def forward(student: Tensor, eager, fast, dim: int, *others):
        return fast(student, *others)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        student, ctx.eager, _, ctx.dim, *others = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        ctx.others = [
            None if isinstance(each, Tensor) else each for each in others
        ]
        tensors = [x if isinstance(x, Tensor) else None for x in others]
        ctx.save_for_backward(student, output[1], *tensors)

    @staticmethod
    def backward(ctx, upstream: Tensor, _):
        rest = (None,) * (3 + len(ctx.others))
        if upstream is None:
            return None, *rest
        student, slopes, *tensors = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return upstream.unsqueeze(ctx.dim) * slopes, *rest
        others = [
            value if tensor is None else tensor
            for value, tensor in zip(ctx.others, tensors, strict=True)
        ]
        value = ctx.eager(student, *others)
        (gradient,) = torch.autograd.grad(
            value, student, upstream, create_graph=True
        )
        return gradient, *rest
