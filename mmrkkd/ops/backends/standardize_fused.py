"""Standardisation as one pass forward and one backward, on the CPU."""

import torch
from torch import Tensor

from mmrkkd.ops.standardize_eager import (
    centered_rows,
    standardize_vjp_eager,
)

from .autograd import batch_first, known_signature
from .cpu.native_library import native_library
from .native_rows import KINDS, run

# The C code works in float64, whose squares overflow beyond this; float32
# never gets there.
LARGEST_IN_C = 1e150
# Below 50 us of work, at 1 ns a value, one thread does.
VALUES_WORTH_THREADS = 50_000


def standardize_fused(
    logits: Tensor, eps: float, floor: Tensor | None = None
) -> Tensor:
    """See :func:`mmrkkd.ops.standardize`.

    Args:
        logits: (..., C), C >= 2, float32 or float64, on the CPU.
        eps: Added to the deviation.
        floor: The least deviation of each row, (...), or None.

    Returns:
        z_hat, (..., C), differentiable any number of times.
    """
    return _Standardize.apply(logits, eps, floor)[0]


@known_signature
class _Standardize(torch.autograd.Function):
    """z_hat, and the deviation of each row: 0 for one without order, minus
    the floor where that stands in its place.
    """

    @staticmethod
    def forward(logits: Tensor, eps: float, floor: Tensor | None):
        rows = logits.reshape(-1, logits.shape[-1])
        floor = None if floor is None else floor.reshape(-1)
        z, deviation = torch.ops.mmrkkd.standardize(rows, eps, floor)
        return z.reshape(logits.shape), deviation.reshape(logits.shape[:-1])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.eps = inputs[1]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], inputs[2], *output)

    @staticmethod
    def backward(ctx, grad_z: Tensor, _):
        if grad_z is None:
            return None, None, None
        logits, floor, z, deviation = ctx.saved_tensors
        # Autograd would take z for a constant: where a second derivative
        # may be asked for, the first is made of operations that it knows.
        if torch.is_grad_enabled():
            gradient = standardize_vjp_eager(grad_z, logits, ctx.eps, floor)
            return gradient, None, None
        classes = logits.shape[-1]
        gradient = torch.ops.mmrkkd.standardize_vjp(
            grad_z.reshape(-1, classes),
            z.reshape(-1, classes),
            deviation.reshape(-1),
            ctx.eps,
        )
        return gradient.reshape(logits.shape), None, None

    @staticmethod
    def vmap(info, in_dims, logits: Tensor, eps: float, floor: Tensor | None):
        logits = batch_first(logits, in_dims[0], info.batch_size)
        floor = batch_first(floor, in_dims[2], info.batch_size)
        return _Standardize.apply(logits, eps, floor), (0, 0)


def standardize_torch(
    logits: Tensor, eps: float, floor: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Tensor operations only, for a CPU without a C compiler.

    Args:
        logits: (N, C).
        eps: Added to the deviation.
        floor: The least deviation of each row, (N,), or None.

    Returns:
        z_hat, (N, C), and the deviation, (N,), 0 for a row without order,
        minus the floor where that stands in its place.
    """
    centered, deviation, flat, raised, scale = centered_rows(logits, floor)
    z = (centered / (deviation + eps / scale)).masked_fill(flat, 0.0)
    marked = torch.where(raised, -deviation, deviation)
    return z, (scale * marked).masked_fill(flat, 0.0).squeeze(-1)


def standardize_vjp_torch(
    gradient: Tensor, z: Tensor, deviation: Tensor, eps: float
) -> Tensor:
    """The gradient at the logits, from what the forward pass has kept.

    ::

        d L / d z_i = [g_i - mean g - z_hat_i (g . z_hat) / (C - 1)
                                      * (std + eps) / std] / (std + eps)

    and without the term with z_hat where the floor stands for std.
    """
    marked = deviation.unsqueeze(-1)
    flat = marked == 0
    deviation = marked.abs().masked_fill(flat, 1.0)
    width = deviation + eps
    slope = (gradient * z).sum(-1, keepdim=True) / (z.shape[-1] - 1)
    slope = slope.masked_fill(marked < 0, 0.0)
    # Centred last: that also takes out what rounding has left of z's mean.
    across = gradient - z * (slope * (width / deviation))
    result = (across - across.mean(-1, keepdim=True)) / width
    return result.masked_fill(flat, 0.0)


def _standardize_cpu(
    logits: Tensor, eps: float, floor: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    if native_library() is None:
        return standardize_torch(logits, eps, floor)
    logits = logits.contiguous()
    floor = None if floor is None else floor.contiguous()
    z, deviation = _standardize_meta(logits, eps)
    run(
        f'standardize_{KINDS[logits.dtype]}',
        (logits, z, deviation, floor),
        eps,
        VALUES_WORTH_THREADS,
    )
    if logits.dtype == torch.float64:
        magnitude = torch.linalg.vector_norm(logits, torch.inf, -1)
        huge = (magnitude > LARGEST_IN_C) & magnitude.isfinite()
        if huge.any():
            z[huge], deviation[huge] = standardize_torch(
                logits[huge], eps, None if floor is None else floor[huge]
            )
    return z, deviation


def _standardize_vjp_cpu(
    gradient: Tensor, z: Tensor, deviation: Tensor, eps: float
) -> Tensor:
    if native_library() is None:
        return standardize_vjp_torch(gradient, z, deviation, eps)
    gradient, z = gradient.contiguous(), z.contiguous()
    result = torch.empty_like(z)
    run(
        f'standardize_vjp_{KINDS[gradient.dtype]}',
        (gradient, z, deviation.contiguous(), result),
        eps,
        VALUES_WORTH_THREADS,
    )
    return result


def _standardize_meta(
    logits: Tensor, eps: float, floor: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(logits), logits.new_empty(logits.shape[0])


def _standardize_vjp_meta(
    gradient: Tensor, z: Tensor, deviation: Tensor, eps: float
) -> Tensor:
    return torch.empty_like(z)


# Operators of PyTorch's dispatcher, so that torch.compile keeps them whole.
_LIBRARY = torch.library.Library('mmrkkd', 'FRAGMENT')
_LIBRARY.define(
    'standardize(Tensor logits, float eps, Tensor? floor=None) '
    '-> (Tensor, Tensor)'
)
_LIBRARY.define(
    'standardize_vjp(Tensor gradient, Tensor z, Tensor deviation, float eps) '
    '-> Tensor'
)
for _key, _forward, _vjp in (
    ('CPU', _standardize_cpu, _standardize_vjp_cpu),
    ('Meta', _standardize_meta, _standardize_vjp_meta),
):
    _LIBRARY.impl('standardize', _forward, _key)
    _LIBRARY.impl('standardize_vjp', _vjp, _key)
