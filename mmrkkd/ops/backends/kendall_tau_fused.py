"""The fast paths of soft Kendall's tau, behind one operator.

The teacher needs no gradient, so the student's is made in the forward pass
and kept as one (N, C) tensor; nothing of size C^2 is. The operator is
registered with PyTorch's dispatcher, which picks by device:

=========  ==============================================================
CPU        C code built on this machine, :mod:`.kendall_tau_native`
CUDA       a Triton kernel, :mod:`.kendall_tau_triton`
otherwise  blocks of tensor operations, :mod:`.kendall_tau_chunked`
=========  ==============================================================

and which lets ``torch.compile`` keep it whole in its graph.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .autograd import batch_first, known_signature, scaled_once
from .cpu.kendall_tau_native import kendall_tau_native
from .cpu.native_library import native_library
from .fast_path import FastPath
from .kendall_tau_approx import kendall_tau_approx
from .kendall_tau_chunked import kendall_tau_chunked


def kendall_tau_fused(
    student_logits: Tensor,
    teacher_logits: Tensor,
    steepness: float,
    form: int,
    class_mask: Tensor | None,
    approximate: bool = False,
) -> Tensor:
    """Soft Kendall's tau; see :func:`mmrkkd.ops.kendall_tau`.

    Args:
        student_logits: (..., C), float32 or float64. Gets gradient.
        teacher_logits: (..., C), same dtype, without gradient.
        steepness: k > 0.
        form: 1, 2 or 3.
        class_mask: bool, (..., C), or None.
        approximate: Use :mod:`.kendall_tau_approx`, on every device.
            Defaults to False.

    Returns:
        tau, (...). Its gradient may be scaled by row and be part of a
        larger graph, but not be differentiated again: that raises.
    """
    return _FusedTau.apply(
        student_logits,
        teacher_logits,
        class_mask,
        steepness,
        form,
        approximate,
    )[0]


@known_signature
class _FusedTau(torch.autograd.Function):
    """tau, and its gradient as a second, non-differentiable output."""

    @staticmethod
    def forward(
        student: Tensor,
        teacher: Tensor,
        class_mask: Tensor | None,
        steepness: float,
        form: int,
        approximate: bool,
    ):
        classes = student.shape[-1]
        if class_mask is not None:
            class_mask = class_mask.reshape(-1, classes)
        operator = (
            torch.ops.mmrkkd.kendall_tau_approx
            if approximate
            else torch.ops.mmrkkd.kendall_tau
        )
        tau, gradient = operator(
            student.reshape(-1, classes),
            teacher.reshape(-1, classes),
            class_mask,
            steepness,
            form,
        )
        return tau.reshape(student.shape[:-1]), gradient.reshape(student.shape)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        # No zeros in the place of the second output's gradient.
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx, grad_tau: Tensor, _):
        if grad_tau is None:
            return None, None, None, None, None, None
        gradient = scaled_once(grad_tau, *ctx.saved_tensors)
        return gradient, None, None, None, None, None

    @staticmethod
    def vmap(
        info,
        in_dims,
        student: Tensor,
        teacher: Tensor,
        class_mask: Tensor | None,
        *settings,
    ):
        student, teacher, class_mask = (
            batch_first(tensor, dim, info.batch_size)
            for tensor, dim in zip(
                (student, teacher, class_mask), in_dims[:3], strict=True
            )
        )
        return _FusedTau.apply(student, teacher, class_mask, *settings), (0, 0)


def _on_cpu(
    student: Tensor,
    teacher: Tensor,
    class_mask: Tensor | None,
    steepness: float,
    form: int,
) -> tuple[Tensor, Tensor]:
    if native_library() is None:
        return kendall_tau_chunked(
            student, teacher, class_mask, steepness, form
        )
    return kendall_tau_native(student, teacher, class_mask, steepness, form)


def _on_cuda(
    student: Tensor,
    teacher: Tensor,
    class_mask: Tensor | None,
    steepness: float,
    form: int,
) -> tuple[Tensor, Tensor]:
    arguments = student, teacher, class_mask, steepness, form
    result = TRITON((student.shape[1], student.dtype, form), *arguments)
    return kendall_tau_chunked(*arguments) if result is None else result


def _load() -> Callable:
    from .kendall_tau_triton import kendall_tau_triton

    return kendall_tau_triton


TRITON = FastPath(
    _load,
    "the Triton kernel of Kendall's tau",
    'blocks of tensor operations',
)


def _on_meta(
    student: Tensor,
    teacher: Tensor,
    class_mask: Tensor | None,
    steepness: float,
    form: int,
) -> tuple[Tensor, Tensor]:
    return student.new_empty(student.shape[:-1]), torch.empty_like(student)


_LIBRARY = torch.library.Library('mmrkkd', 'FRAGMENT')
for _name in ('kendall_tau', 'kendall_tau_approx'):
    _LIBRARY.define(
        f'{_name}(Tensor student, Tensor teacher, Tensor? mask, '
        'float steepness, int form) -> (Tensor, Tensor)'
    )
    _LIBRARY.impl(_name, _on_meta, 'Meta')
_LIBRARY.impl('kendall_tau', kendall_tau_chunked, 'CompositeExplicitAutograd')
_LIBRARY.impl('kendall_tau', _on_cpu, 'CPU')
_LIBRARY.impl('kendall_tau', _on_cuda, 'CUDA')
_LIBRARY.impl(
    'kendall_tau_approx', kendall_tau_approx, 'CompositeExplicitAutograd'
)
