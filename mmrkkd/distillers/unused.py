"""Layers of a head that its scores do not depend on."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from .nested import tensors

Scores = Callable[[Sequence[Tensor]], list[Tensor]]


def unused_layers(
    head: nn.Module, scores: Scores, inputs: Sequence[Tensor]
) -> set[nn.Module]:
    """The convolutions and linear layers of a branch that is not read.

    Found by gradient, and then left out once: where that changes a score,
    as one that reaches it without gradient does, there are none.

    Args:
        head: The head, in float32.
        scores: Runs it, and gives its scores.
        inputs: What it takes, of a few images.
    """
    layers = [part for part in head.modules() if _can_be_skipped(part)]
    noted: list[tuple[nn.Module, Tensor]] = []

    def note(layer: nn.Module, args: tuple, output: Tensor) -> Tensor:
        noted.append((layer, output))
        # What comes next may write into it.
        return output.clone()

    with ExitStack() as stack, torch.enable_grad():
        for layer in layers:
            stack.enter_context(layer.register_forward_hook(note))
        found = scores([each.detach().requires_grad_() for each in inputs])
        total = sum(each.sum() for each in found)
    if not noted or not all(output.requires_grad for _, output in noted):
        return set()
    gradients = torch.autograd.grad(
        total, [output for _, output in noted], allow_unused=True
    )
    pulled = {
        layer
        for (layer, _), gradient in zip(noted, gradients, strict=True)
        if gradient is not None
    }
    unused = {layer for layer, _ in noted} - pulled
    return unused if _alike(unused, scores, inputs) else set()


def layers_with_gradient(
    head: nn.Module, run: Callable[[], object]
) -> set[nn.Module]:
    """Layers with weights of their own whose outputs have gradient.

    Args:
        head: The head.
        run: Runs it.
    """
    found = set()

    def note(layer: nn.Module, args: tuple, output: object) -> None:
        if any(each.requires_grad for each in tensors(output)):
            found.add(layer)

    with ExitStack() as stack:
        for layer in head.modules():
            if next(layer.parameters(recurse=False), None) is not None:
                stack.enter_context(layer.register_forward_hook(note))
        run()
    return found


def skip(layer: nn.Module) -> None:
    """Lets a layer give zeros; :func:`whole` knows what it gave."""
    layer.forward = partial(_zeros, layer, vars(layer).get('forward'))


@contextmanager
def skipped(layers: Collection[nn.Module]) -> Iterator[None]:
    """Inside the block these layers give zeros.

    Args:
        layers: Convolutions and linear layers.
    """
    before = [(layer, vars(layer).get('forward')) for layer in layers]
    for layer in layers:
        skip(layer)
    try:
        yield
    finally:
        for layer, forward in before:
            _set_forward(layer, forward)


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside the block no layer is skipped: for predictions, with boxes.

    Args:
        model: The teacher.
    """
    zeros = [
        (layer, forward)
        for layer in model.modules()
        if getattr(forward := vars(layer).get('forward'), 'func', None)
        is _zeros
    ]
    for layer, forward in zeros:
        _, own = forward.args
        _set_forward(layer, own)
    try:
        yield
    finally:
        for layer, forward in zeros:
            layer.forward = forward


def _set_forward(layer: nn.Module, forward: Callable | None) -> None:
    """One of this object alone; None for its class's."""
    if forward is None:
        vars(layer).pop('forward', None)
    else:
        layer.forward = forward


@torch.no_grad()
def _alike(
    unused: Collection[nn.Module], scores: Scores, inputs: Sequence[Tensor]
) -> bool:
    expected = scores(inputs)
    with skipped(unused):
        found = scores(inputs)
    return all(
        torch.equal(one, other)
        for one, other in zip(found, expected, strict=True)
    )


def _can_be_skipped(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


def _zeros(layer: nn.Module, own: Callable | None, values: Tensor) -> Tensor:
    """What a layer would give, but for its values; ``own`` gives them."""
    if isinstance(layer, nn.Linear):
        return values.new_zeros(*values.shape[:-1], layer.out_features)
    sizes = [
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, pad, dilation, kernel, stride in zip(
            values.shape[2:],
            layer.padding,
            layer.dilation,
            layer.kernel_size,
            layer.stride,
            strict=True,
        )
    ]
    return values.new_zeros(len(values), layer.out_channels, *sizes)
