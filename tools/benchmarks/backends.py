"""What is measured: every way to the same numbers."""

from collections.abc import Callable

import torch
from torch import Tensor

from mmrkkd.ops import kendall_tau, soft_rank, standardize
from mmrkkd.ops.kendall_tau_chunked import kendall_tau_chunked
from mmrkkd.ops.kendall_tau_eager import kendall_tau_eager
from mmrkkd.ops.soft_rank import soft_rank_torch, soft_rank_vjp_torch

# The plain form keeps about this many tensors of N x C x C.
PLAIN_TENSORS = 6


def plain(student: Tensor, teacher: Tensor) -> Tensor:
    """The equation by autograd, without the checks of the door."""
    tau = kendall_tau_eager(
        standardize(student), standardize(teacher), 1.0, 1, None
    )
    return tau.mean()


def door(impl: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The public function with one ``impl``."""

    def tau(student: Tensor, teacher: Tensor) -> Tensor:
        return kendall_tau(
            standardize(student), standardize(teacher), impl=impl
        ).mean()

    return tau


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, student: Tensor, teacher: Tensor) -> Tensor:
        tau, gradient = kendall_tau_chunked(student, teacher, None, 1.0, 1)
        ctx.save_for_backward(gradient)
        return tau

    @staticmethod
    def backward(ctx, grad_tau: Tensor):
        (gradient,) = ctx.saved_tensors
        return grad_tau.unsqueeze(-1) * gradient, None


def chunked(student: Tensor, teacher: Tensor) -> Tensor:
    """What a machine without a C compiler uses."""
    return _Chunked.apply(standardize(student), standardize(teacher)).mean()


def tau_backends(with_compile: bool = True) -> dict[str, Callable]:
    """Name to function of (student, teacher); the plain form first."""
    backends = {'plain': plain}
    if with_compile:
        torch._dynamo.reset()
        backends['plain, torch.compile'] = torch.compile(plain, dynamic=False)
    backends['chunked'] = chunked
    backends['fused'] = door('fused')
    backends['approx'] = door('approx')
    return backends


def plain_megabytes(rows: int, classes: int) -> float:
    """What the plain form needs, by counting."""
    return PLAIN_TENSORS * rows * classes**2 * 4 / 2**20


def step(
    function: Callable, student: Tensor, teacher: Tensor
) -> Callable[[], Tensor]:
    """A call that computes the value and the student's gradient."""

    def forward_and_backward() -> Tensor:
        leaf = student.detach().requires_grad_()
        function(leaf, teacher).backward()
        return leaf.grad

    return forward_and_backward


def tau_errors(
    impl: str, student: Tensor, teacher: Tensor
) -> tuple[float, float]:
    """Largest errors against float64 of tau, and of its gradient.

    The gradient's is divided by 2 k / C, the largest it can be. The inputs
    are standardised beforehand, so that only the operator errs.
    """
    student, teacher = standardize(student), standardize(teacher)
    # The plain form is the truth where its memory allows.
    small = plain_megabytes(*student.shape) < 600
    results = []
    for kind, dtype in (
        ('eager' if small else 'fused', torch.float64),
        (impl, torch.float32),
    ):
        leaf = student.to(dtype).requires_grad_()
        if kind == 'chunked':
            tau, gradient = kendall_tau_chunked(
                leaf.detach(), teacher, None, 1.0, 1
            )
        else:
            tau = kendall_tau(leaf, teacher.to(dtype), impl=kind)
            (gradient,) = torch.autograd.grad(tau.sum(), leaf)
        results.append((tau.detach().double(), gradient.double()))
    (truth, gradient), (tau, measured) = results
    unit = 2 / student.shape[-1]
    return (
        (tau - truth).abs().max().item(),
        ((measured - gradient).abs().max() / unit).item(),
    )


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
    # Compared with where they are installed; nothing here needs them.
    try:
        import torchsort

        backends['torchsort'] = lambda values: torchsort.soft_rank(
            values, regularization_strength=regularization
        )
    except ImportError:
        pass
    try:
        from fast_soft_sort import pytorch_ops

        backends['fast-soft-sort'] = lambda values: pytorch_ops.soft_rank(
            values, regularization_strength=regularization
        )
    except ImportError:
        pass
    return backends
