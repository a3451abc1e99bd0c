"""The loss around the weights of a trained model, on a plane through them.

With theta the weights, d and e two random directions, x and y the place on
the plane::

    f(x, y) = loss(theta + x d + y e)

Each filter of a direction has the length of that filter of the weights, so
that a network and the same one with rescaled weights look alike::

    d_ij <- d_ij ||theta_ij|| / ||d_ij||      layer i, filter j

Weights of one dimension, which are biases and those of normalisations, stay
where they are, and so do running statistics.

Source: Li et al., arXiv:1712.09913, section 4; what stays where it is, and
that losses are those of eval mode, are their released code's choices.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]
Loss = Callable[[State], Mapping[str, float]]
Row = list[dict[str, float]]
# A training of the same seed draws its first weights by it: not these.
SALT = 171209913


def random_directions(weights: State, seed: int) -> tuple[State, State]:
    """Two filter-normalised directions.

    Args:
        weights: Name to tensor; the filters are along the first dimension.
        seed: Of the normal numbers. Weights of the same names and shapes in
            the same order get the same numbers, before each is scaled to
            its own filters.

    Returns:
        d and e: name to a tensor of the weight's shape and type; 0 for
        weights of fewer than two dimensions.
    """
    generator = torch.Generator().manual_seed(SALT + seed)
    first, second = (
        {
            name: _scaled(
                torch.randn(weight.shape, generator=generator), weight
            )
            for name, weight in weights.items()
        }
        for _ in range(2)
    )
    return first, second


def _scaled(numbers: Tensor, weight: Tensor) -> Tensor:
    """Numbers whose filters are as long as those of a weight."""
    if weight.dim() < 2:
        return torch.zeros_like(weight)
    numbers = numbers.to(weight)
    dims = tuple(range(1, weight.dim()))
    own, wanted = (
        torch.linalg.vector_norm(each, dim=dims, keepdim=True)
        for each in (numbers, weight)
    )
    return numbers * (wanted / own.clamp_min(torch.finfo(own.dtype).tiny))


def places(span: float, points: int) -> list[float]:
    """Evenly spaced numbers from -span to span, 0 in the middle.

    Args:
        span: > 0, in lengths of the weights.
        points: How many, odd and at least 3.

    Raises:
        ValueError: one of them is not.
    """
    if not (span > 0 and math.isfinite(span)):
        raise ValueError(f'span must be above 0 and finite, got {span!r}')
    if points < 3 or points % 2 == 0:
        raise ValueError(
            'points must be odd, so that the trained weights are one of '
            f'them, and at least 3, got {points!r}'
        )
    half = points // 2
    return [span * (index - half) / half for index in range(points)]


@torch.no_grad()
def loss_rows(
    loss: Loss,
    weights: State,
    directions: tuple[State, State],
    coordinates: Sequence[float],
    start: int = 0,
) -> Iterator[Row]:
    """The losses of a grid, row by row.

    Each point is reached from ``weights``, not from its neighbour: rows are
    the same wherever one begins.

    Args:
        loss: Name to loss at a state like ``weights``, which it may not
            change.
        weights: theta.
        directions: d and e.
        coordinates: Those of x, in a row, and of y, row by row.
        start: The first row that is made. Defaults to 0.

    Yields:
        The losses of the points of a row; not finite where they are not.
    """
    first, second = directions
    for y in coordinates[start:]:
        yield [
            dict(
                loss(
                    {
                        name: weight + x * first[name] + y * second[name]
                        for name, weight in weights.items()
                    }
                )
            )
            for x in coordinates
        ]


def loss_of_model(
    model: nn.Module, measure: Callable[[], Mapping[str, float]]
) -> Loss:
    """A loss of states out of a measure of a model.

    Args:
        model: Gets the states; see :func:`restored`.
        measure: Name to loss of the model as it is.
    """
    own = dict(model.named_parameters())

    def loss(state: State) -> Mapping[str, float]:
        with torch.no_grad():
            for name, value in state.items():
                own[name].copy_(value)
        return measure()

    return loss


@contextmanager
def restored(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Gives a model back as it was, whatever happens inside.

    Args:
        model: Its parameters, its buffers, running statistics among them,
            and which of its modules train are restored.

    Returns:
        A context manager, whose value is a copy of the parameters by name.
    """
    tensors = list(chain(model.parameters(), model.buffers()))
    copies = [tensor.detach().clone() for tensor in tensors]
    modes = [(module, module.training) for module in model.modules()]
    parameters = {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
    }
    try:
        yield parameters
    finally:
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
        for module, training in modes:
            module.training = training
