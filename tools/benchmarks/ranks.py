"""Soft ranks: how fast they are, and that others agree."""

import contextlib
import functools
import importlib
from collections.abc import Callable
from importlib import metadata

import backends
import measure
import torch
from torch import Tensor

from mmrkkd.ops import soft_rank
from mmrkkd.ops.soft_rank import soft_rank_torch, soft_rank_vjp_torch

RANK_SHAPES = ((64, 100), (64, 1000))
# One pooled block, and many.
REGULARIZATIONS = (1.0, 0.03)

# Packages with a soft_rank to compare with, and where it lies.
PUBLISHED = {
    'torchsort': 'torchsort',
    'fast-soft-sort': 'fast_soft_sort.pytorch_ops',
}
AGREEMENT_REGULARIZATIONS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.001)


class _TorchRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, scale: float) -> Tensor:
        ranks, *saved = soft_rank_torch(values, scale)
        ctx.save_for_backward(*saved)
        ctx.scale = scale
        return ranks

    @staticmethod
    def backward(ctx, gradient: Tensor):
        saved = ctx.saved_tensors
        return soft_rank_vjp_torch(gradient, *saved, ctx.scale), None


def rank_backends(regularization: float) -> dict[str, Callable]:
    """Name to function of values; ascending, as all of them can."""
    backends = {
        'soft_rank': lambda values: soft_rank(
            values, regularization=regularization, descending=False
        ),
        'soft_rank, tensor operations': lambda values: _TorchRank.apply(
            values, 1 / regularization
        ),
    }
    for name, function in published_ranks().items():
        backends[name] = functools.partial(
            function, regularization_strength=regularization
        )
    return backends


def published_ranks() -> dict[str, Callable]:
    """soft_rank of other packages; nothing here needs them."""
    found = {}
    for name, module in PUBLISHED.items():
        with contextlib.suppress(ImportError):
            found[name] = importlib.import_module(module).soft_rank
    return found


def rank_differences(
    function: Callable, values: Tensor, weight: Tensor
) -> dict[str, float]:
    """Largest differences of ours from a published soft_rank.

    Over AGREEMENT_REGULARIZATIONS, e, from one block to hardly a pooled
    class. The gradient's is multiplied by e, which makes its largest entry
    about that of the upstream gradient.
    """
    worst = dict.fromkeys(('ranks', 'gradient', 'our_error', 'its_error'), 0.0)
    for e in AGREEMENT_REGULARIZATIONS:
        ours = functools.partial(soft_rank, regularization=e, descending=False)
        theirs = functools.partial(function, regularization_strength=e)
        exact = ours(values.double())
        results = []
        for some in (ours, theirs):
            leaf = values.detach().requires_grad_()
            ranks = some(leaf)
            ranks.backward(weight)
            results.append((ranks.detach().double(), e * leaf.grad))
        (ranks, gradient), (its_ranks, its_gradient) = results
        for name, difference in (
            ('ranks', ranks - its_ranks),
            ('gradient', gradient - its_gradient),
            ('our_error', ranks - exact),
            ('its_error', its_ranks - exact),
        ):
            worst[name] = max(worst[name], difference.abs().max().item())
    return worst


def times(seconds: float) -> list:
    """Soft ranks: one entry for each package that is installed."""
    entries = []
    for rows, classes in RANK_SHAPES:
        values, weight = backends.logits(rows, classes)
        for regularization in REGULARIZATIONS:
            functions = rank_backends(regularization)

            def error(function, regularization=regularization, values=values):
                exact = rank_backends(regularization)['soft_rank']
                difference = function(values) - exact(values.double())
                return difference.abs().max().item()

            steps = {
                name: backends.step(
                    lambda leaf, weight, f=function: (f(leaf) * weight).sum(),
                    values,
                    weight,
                )
                for name, function in functions.items()
            }
            series_of = measure.interleaved(steps, seconds, rounds=(5, 200))
            entries += [
                dict(
                    rows=rows,
                    classes=classes,
                    backend=name,
                    regularization=regularization,
                    rank_error=error(functions[name]),
                    **measure.spread(series),
                )
                for name, series in series_of.items()
            ]
    return entries


def agreement() -> list:
    """Our soft ranks against those of each package that is installed."""
    entries = []
    for name, function in published_ranks().items():
        for rows, classes in RANK_SHAPES:
            for dtype in (torch.float64, torch.float32):
                values, weight = (
                    x.to(dtype) for x in backends.logits(rows, classes)
                )
                entries.append(
                    dict(
                        package=f'{name} {metadata.version(name)}',
                        rows=rows,
                        classes=classes,
                        dtype=str(dtype).removeprefix('torch.'),
                        **rank_differences(function, values, weight),
                    )
                )
    return entries
