"""What is measured: every way to the same numbers."""

from collections.abc import Callable

import torch
from torch import Tensor

from mmrkkd.ops import kendall_tau, standardize
from mmrkkd.ops.backends.kendall_tau_chunked import kendall_tau_chunked
from mmrkkd.ops.backends.rank_term_fused import rank_term_fused
from mmrkkd.ops.kendall_tau_eager import kendall_tau_eager
from mmrkkd.ops.standardize_eager import standardize_eager

# The plain form keeps about this many tensors of N x C x C.
PLAIN_TENSORS = 6
# The default of standardize.
EPS = 1e-7


def logits(rows: int, classes: int, device: str = 'cpu'):
    """A teacher, and a student that half agrees with it."""
    generator = torch.Generator().manual_seed(rows + classes)
    teacher, noise = torch.randn(2, rows, classes, generator=generator)
    return (teacher / 2 + noise).to(device), teacher.to(device)


def plain(student: Tensor, teacher: Tensor) -> Tensor:
    """The equations by autograd, without the checks of the door."""
    student, teacher = (
        standardize_eager(logits, EPS) for logits in (student, teacher)
    )
    return kendall_tau_eager(student, teacher, 1.0, 1, None).mean()


def door(impl: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The public function with one ``impl``."""

    def tau(student: Tensor, teacher: Tensor) -> Tensor:
        return kendall_tau(
            standardize(student), standardize(teacher), impl=impl
        ).mean()

    return tau


def fused(student: Tensor, teacher: Tensor) -> Tensor:
    """What the loss does: on a GPU one operator, elsewhere the doors."""
    term = rank_term_fused(student, teacher, scale=1.0)
    return door('fused')(student, teacher) if term is None else term


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
    student, teacher = (
        standardize_eager(logits, EPS) for logits in (student, teacher)
    )
    return _Chunked.apply(student, teacher).mean()


def tau_backends(with_compile: bool = True) -> dict[str, Callable]:
    """Name to function of (student, teacher); the plain form first."""
    backends = {'plain': plain}
    if with_compile:
        torch._dynamo.reset()
        backends['plain, torch.compile'] = torch.compile(plain, dynamic=False)
    backends['chunked'] = chunked
    backends['fused'] = fused
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
