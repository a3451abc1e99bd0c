"""Soft ranks: the projection of scores onto the permutahedron."""

import torch
from torch import Tensor

from . import checks
from .backends.autograd import batch_first, known_signature
from .backends.cpu.native_library import native_library
from .backends.native_rows import KINDS, run
from .checks import check_positive
from .rows import wide_dtype

# Below 200 us of work, at 10 ns a value, one thread does: waking the others
# takes about 50, and milliseconds where other programs have their cores.
VALUES_WORTH_THREADS = 20_000
# Pairs of places held at a time on a GPU, in float64: some 130 MB.
PAIRS_AT_ONCE = 2**22


def soft_rank(
    values: Tensor, *, regularization: float = 1.0, descending: bool = True
) -> Tensor:
    """Differentiable ranks of the entries of each row.

    With n classes, e the regularization and P the convex hull of all
    permutations of (n, ..., 1)::

        soft_rank(v) = argmin_{r in P} || r - z ||^2,   z = -v / e
                                                        (ascending: v / e)

    As e -> 0 these are the ranks 1 ... n, ties sharing their mean; as
    e -> inf every rank is (n + 1) / 2. Each row sums to n (n + 1) / 2, and
    the two directions add up to n + 1 entry by entry.

    At e = 1 and logits of usual size the projection only centres: wherever,
    for each m, the m largest z exceed the mean by at most m (n - m) / 2 in
    total, it is exactly z - mean z + (n + 1) / 2. Scores of deviation d
    give actual ranks for e well below 0.1 d.

    The derivative, exact and symmetric, centres the upstream gradient
    within each pooled block: a class that is alone in its block gets none.
    It may be differentiated again: a second derivative is 0.

    Args:
        values: Scores, (..., n), n >= 1. Gets gradient.
        regularization: e > 0, in the unit of the scores. Defaults to 1.0.
        descending: Give the largest score rank 1. Defaults to True.

    Returns:
        (..., n), in [1, n]; float32 for half inputs. A row that holds NaN
        or infinity is NaN.

    Raises:
        TypeError: values is not a floating point tensor.
        ValueError: values has no dimension or no class, or regularization
            is not a finite number > 0.

    Source: Blondel et al., arXiv:2002.08871.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        kind = getattr(values, 'dtype', type(values).__name__)
        raise TypeError(f'values must be a floating point tensor, got {kind}')
    if values.dim() == 0 or values.shape[-1] == 0:
        raise ValueError(
            'values need at least 1 class in the last '
            f'dimension, got shape {tuple(values.shape)}'
        )
    regularization = check_positive('regularization', regularization)
    scale = (-1.0 if descending else 1.0) / regularization
    dtype = torch.promote_types(values.dtype, torch.float32)
    ranks, _, _ = _SoftRank.apply(values.to(dtype), scale)
    return ranks


@known_signature
class _SoftRank(torch.autograd.Function):
    """Ranks, the sorting permutation and each place's block."""

    @staticmethod
    def forward(values: Tensor, scale: float):
        if values.dim() == 2:
            return torch.ops.mmrkkd.soft_rank(values, scale)
        rows = values.reshape(-1, values.shape[-1])
        results = torch.ops.mmrkkd.soft_rank(rows, scale)
        return tuple(result.reshape(values.shape) for result in results)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.scale = inputs[1]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1], output[2])
        ctx.save_for_backward(output[1], output[2])

    @staticmethod
    def backward(ctx, grad_ranks: Tensor, *_):
        if grad_ranks is None:
            return None, None
        order, block = ctx.saved_tensors
        # A second autograd function only where it may be asked for.
        derivative = (
            _SoftRankVJP.apply
            if torch.is_grad_enabled()
            else _SoftRankVJP.forward
        )
        return derivative(grad_ranks, order, block, ctx.scale), None

    @staticmethod
    def vmap(info, in_dims, values: Tensor, scale: float):
        return _SoftRank.apply(values.movedim(in_dims[0], 0), scale), (0, 0, 0)


@known_signature
class _SoftRankVJP(torch.autograd.Function):
    """The derivative. It is linear and symmetric, so it is its own VJP."""

    @staticmethod
    def forward(gradient: Tensor, order: Tensor, block: Tensor, scale: float):
        if gradient.dim() == 2:
            return torch.ops.mmrkkd.soft_rank_vjp(
                gradient, order, block, scale
            )
        classes = gradient.shape[-1]
        return torch.ops.mmrkkd.soft_rank_vjp(
            gradient.reshape(-1, classes),
            order.reshape(-1, classes),
            block.reshape(-1, classes),
            scale,
        ).reshape(gradient.shape)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])
        ctx.scale = inputs[3]

    @staticmethod
    def backward(ctx, grad: Tensor):
        return (
            _SoftRankVJP.apply(grad, *ctx.saved_tensors, ctx.scale),
            None,
            None,
            None,
        )

    @staticmethod
    def vmap(info, in_dims, *inputs: Tensor | float):
        *tensors, scale = inputs
        return _SoftRankVJP.apply(
            *(
                batch_first(tensor, dim, info.batch_size)
                for tensor, dim in zip(tensors, in_dims[:3], strict=True)
            ),
            scale,
        ), 0


def soft_rank_torch(
    values: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Tensor operations only: for a GPU, or a CPU without a C compiler.

    Args:
        values: (N, n), float32 or float64.
        scale: 1 / e, or -1 / e for descending ranks.

    Returns:
        Ranks, the class at each place of the sort and the first place of
        each place's block, all (N, n), the latter two int32.
    """
    order = torch.argsort(values, dim=-1, descending=scale > 0, stable=True)
    z = values.gather(-1, order).to(wide_dtype(values.device)) * scale
    first = first_places(z)
    means, weights = _block_means(z, first)
    finite = torch.isfinite(values).all(-1, keepdim=True)
    sorted_ranks = ((z - means) + weights).masked_fill(~finite, torch.nan)
    ranks = torch.empty_like(values).scatter_(
        -1, order, sorted_ranks.to(values.dtype)
    )
    return ranks, order.int(), first.int()


def first_places(z: Tensor) -> Tensor:
    """The first place of each place's block.

    Args:
        z: (N, n), sorted downwards.

    Returns:
        (N, n), int64.
    """
    if checks.at_hand(z):
        return first_by_rounds(z)
    return first_by_slopes(z)


def first_by_rounds(z: Tensor) -> Tensor:
    """Merges all adjacent violators at once, round by round.

    Violators may be pooled in any order (two neighbours that violate are in
    one block of the solution), so the blocks are those of the sequential
    method. A few rounds are usual; n is the most. The host looks after each
    round whether it was the last one.
    """
    places = torch.arange(z.shape[-1], device=z.device).expand(z.shape)
    first = places
    while True:
        means, weights = _block_means(z, first)
        starts = first == places
        # z and n - place stay apart: z may be so large that the difference
        # of the two is z.
        starts[:, 1:] &= ~(-means.diff(dim=-1) <= -weights.diff(dim=-1))
        merged = torch.where(starts, places, 0).cummax(-1).values
        if torch.equal(merged, first):
            return first
        first = merged


def first_by_slopes(z: Tensor) -> Tensor:
    """Looks at all pairs of places, and needs no look by the host.

    With P the sums of y = z - (n - place), the blocks are the edges of the
    least concave line above P. A block starts at place i where ::

        min_{j < i} (P_i - P_j) / (i - j) > max_{j > i} (P_j - P_i) / (j - i)

    Gaps of z above n part blocks as n does; narrowed to that, sums of huge
    scores keep their digits.
    """
    rows, n = z.shape
    gaps = (-z.diff(dim=-1)).clamp(max=n)
    y = torch.nn.functional.pad((1 - gaps).cumsum(-1), (1, 0))
    sums = torch.nn.functional.pad(y.cumsum(-1), (1, 0))
    places = torch.arange(n + 1, device=z.device)
    starts = torch.ones(rows, n, dtype=torch.bool, device=z.device)
    rows_at_once = max(1, PAIRS_AT_ONCE // n**2)
    places_at_once = max(1, PAIRS_AT_ONCE // n)
    for row in range(0, rows, rows_at_once):
        some = sums[row : row + rows_at_once]
        for i in range(1, n, places_at_once):
            block = slice(i, min(i + places_at_once, n))
            steps = places[block, None] - places
            slopes = (some[:, block, None] - some[:, None]) / steps
            left = slopes.masked_fill(steps <= 0, torch.inf).amin(-1)
            right = slopes.masked_fill(steps >= 0, -torch.inf).amax(-1)
            starts[row : row + rows_at_once, block] = left > right
    return torch.where(starts, places[:n], 0).cummax(-1).values


def _block_means(z: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """The means of z and of n - place over each place's block, (N, n)."""
    zeros = torch.zeros_like(z)
    counts = zeros.scatter_add(-1, first, torch.ones_like(z)).gather(-1, first)
    # Relative to the block's first value, so that equal ones stay equal.
    base = z.gather(-1, first)
    sums = zeros.scatter_add(-1, first, z - base).gather(-1, first)
    return base + sums / counts, z.shape[-1] - first - 0.5 * (counts - 1)


def soft_rank_vjp_torch(
    gradient: Tensor, order: Tensor, block: Tensor, scale: float
) -> Tensor:
    """The derivative of :func:`soft_rank_torch` at its order and blocks."""
    order, block = order.long(), block.long()
    sorted_gradient = gradient.gather(-1, order)
    zeros = torch.zeros_like(sorted_gradient)
    sums = zeros.scatter_add(-1, block, sorted_gradient)
    counts = zeros.scatter_add(-1, block, torch.ones_like(sorted_gradient))
    means = (sums / counts.clamp(min=1)).gather(-1, block)
    return torch.empty_like(gradient).scatter_(
        -1, order, (sorted_gradient - means) * scale
    )


def _soft_rank_cpu(
    values: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    if native_library() is None:
        return soft_rank_torch(values, scale)
    values = values.contiguous()
    ranks = torch.empty_like(values)
    order = torch.empty_like(values, dtype=torch.int32)
    block = torch.empty_like(order)
    run(
        f'soft_rank_{KINDS[values.dtype]}',
        (values, ranks, order, block),
        scale,
        VALUES_WORTH_THREADS,
    )
    return ranks, order, block


def _soft_rank_vjp_cpu(
    gradient: Tensor, order: Tensor, block: Tensor, scale: float
) -> Tensor:
    if native_library() is None:
        return soft_rank_vjp_torch(gradient, order, block, scale)
    gradient = gradient.contiguous()
    result = torch.empty_like(gradient)
    run(
        f'soft_rank_vjp_{KINDS[gradient.dtype]}',
        (gradient, result, order.contiguous(), block.contiguous()),
        scale,
        VALUES_WORTH_THREADS,
    )
    return result


def _soft_rank_meta(
    values: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    order = torch.empty_like(values, dtype=torch.int32)
    return torch.empty_like(values), order, torch.empty_like(order)


def _soft_rank_vjp_meta(
    gradient: Tensor, order: Tensor, block: Tensor, scale: float
) -> Tensor:
    return torch.empty_like(gradient)


# Operators of PyTorch's dispatcher, so that torch.compile keeps them whole
# and picks the implementation by device.
_LIBRARY = torch.library.Library('mmrkkd', 'FRAGMENT')
_LIBRARY.define(
    'soft_rank(Tensor values, float scale) -> (Tensor, Tensor, Tensor)'
)
_LIBRARY.define(
    'soft_rank_vjp(Tensor gradient, Tensor order, Tensor block, '
    'float scale) -> Tensor'
)
for _key, _forward, _vjp in (
    ('CompositeExplicitAutograd', soft_rank_torch, soft_rank_vjp_torch),
    ('CPU', _soft_rank_cpu, _soft_rank_vjp_cpu),
    ('Meta', _soft_rank_meta, _soft_rank_vjp_meta),
):
    _LIBRARY.impl('soft_rank', _forward, _key)
    _LIBRARY.impl('soft_rank_vjp', _vjp, _key)
