"""What the fuzz tests of the operators do with what is drawn."""

import contextlib
import math
import sys
from unittest import mock

import torch
from hypothesis import strategies as st
from torch import Tensor

from fuzz.strategies import DOUBLE
from mmrkkd.ops import exact_kendall_tau, soft_rank
from mmrkkd.ops.backends.cpu.native_library import native_library

BACKENDS = ('torch', 'native') if native_library() is not None else ('torch',)
BAD = (math.nan, math.inf, -math.inf)
FEW = ((1,), (2,), (5,), (2, 3))

backends = st.sampled_from(BACKENDS)
seeds = st.integers(0, 99)


@contextlib.contextmanager
def using(backend: str):
    """All operators on one CPU backend."""
    with contextlib.ExitStack() as stack:
        if backend == 'torch':
            for function in ('kendall_tau_fused', 'standardize_fused'):
                stack.enter_context(
                    mock.patch(
                        f'mmrkkd.ops.backends.{function}.native_library',
                        lambda: None,
                    )
                )
            for function in (soft_rank, exact_kendall_tau):
                module = sys.modules[function.__module__]
                stack.enter_context(
                    mock.patch.object(module, 'native_library', lambda: None)
                )
        yield


def value_and_gradient(function, values: Tensor, seed: int = 0):
    """f(values), and the gradient of a random weighting of its entries."""
    leaf = values.detach().requires_grad_()
    result = function(leaf)
    generator = torch.Generator().manual_seed(seed)
    upstream = torch.randn(result.shape, generator=generator, dtype=DOUBLE)
    (gradient,) = torch.autograd.grad(result, leaf, upstream.to(result.dtype))
    return result.detach(), gradient


def spoil(values: Tensor, bad: float, row: int) -> tuple[Tensor, Tensor]:
    """A copy with one bad entry, and the mask of the rows without."""
    spoiled = values.clone(memory_format=torch.contiguous_format)
    rows = spoiled.view(-1, values.shape[-1])
    rows[row % len(rows), 0] = bad
    others = torch.ones(len(rows), dtype=torch.bool)
    others[row % len(rows)] = False
    return spoiled, others.reshape(values.shape[:-1])
