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

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from .autograd import known_signature
from .cpu.kendall_tau_native import kendall_tau_native
from .cpu.native_library import native_library
from .kendall_tau_approx import kendall_tau_approx
from .kendall_tau_chunked import kendall_tau_chunked

logger = logging.getLogger(__name__)


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
        # A second autograd function only where it may be asked for.
        scaled = _Scaled.apply if torch.is_grad_enabled() else _Scaled.forward
        gradient = scaled(grad_tau, *ctx.saved_tensors)
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
            _batch_first(tensor, dim, info.batch_size)
            for tensor, dim in zip(
                (student, teacher, class_mask), in_dims[:3], strict=True
            )
        )
        return _FusedTau.apply(student, teacher, class_mask, *settings), (0, 0)


class _Scaled(torch.autograd.Function):
    """The gradient times the upstream one: the end of the way.

    Autograd would take ``gradient`` for a constant, and its derivative for
    0, which is wrong. The student is an argument so that whoever asks for
    that derivative comes by here.
    """

    @staticmethod
    def forward(grad_tau: Tensor, student: Tensor, gradient: Tensor):
        return grad_tau.unsqueeze(-1) * gradient

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
                _batch_first(tensor, dim, info.batch_size)
                for tensor, dim in zip(tensors, in_dims, strict=True)
            )
        ), 0


def _batch_first(
    tensor: Tensor | None, dim: int | None, batch: int
) -> Tensor | None:
    if tensor is None:
        return None
    if dim is None:
        return tensor.expand(batch, *tensor.shape)
    return tensor.movedim(dim, 0)


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
    implementation = _triton_kernel() or kendall_tau_chunked
    return implementation(student, teacher, class_mask, steepness, form)


@functools.lru_cache(maxsize=1)
def _triton_kernel() -> Callable | None:
    """The Triton path, or None where Triton cannot be used; says why."""
    try:
        from .kendall_tau_triton import kendall_tau_triton

        # Triton builds its launcher with a C compiler and needs a device of
        # compute capability 7 or more: only a launch shows that it works.
        trial = torch.zeros(1, 2, device='cuda')
        kendall_tau_triton(trial, trial, None, 1.0, 1)
    except Exception as error:
        logger.warning(
            "mmrkkd computes Kendall's tau on CUDA in blocks of tensor "
            'operations, which is slower: Triton cannot be used here (%s)',
            error,
        )
        return None
    return kendall_tau_triton


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
