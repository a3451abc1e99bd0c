"""A number of two rows and its derivative, as one pass on the CPU."""

import ctypes
import functools
from collections.abc import Callable

import torch
from torch import Tensor

from .cpu.native_library import native_library

# Below 50 us of work, at some 2 ns a value, one thread does.
VALUES_WORTH_THREADS = 25_000


def paired_rows(
    name: str,
    student: Tensor,
    teacher: Tensor,
    number: float | Tensor,
    dim: int = -1,
) -> tuple[Tensor, Tensor] | None:
    """A value of each pair of rows, and its gradient by the student's.

    Args:
        name: 'kl_divergence', 'pearson', or 'binary_kd'.
        student: Any shape.
        teacher: Same shape.
        number: The temperature; eps; what logits below it are taken for.
        dim: The dimension of a row's entries, negative. Defaults to -1.

    Returns:
        The values, of the shape of the student without ``dim``, and the
        gradients, of the student's shape; None where the C code does not
        apply: on other devices, for other types than float32, a number that
        is a tensor, without entries, or without a compiler.
    """
    plain = all(type(each) in _PLAIN for each in (student, teacher))
    if (
        not plain
        or isinstance(number, Tensor)
        or student.dtype != torch.float32
        or teacher.dtype != torch.float32
        or student.device.type != 'cpu'
        or not student.numel()
        or native_library() is None
    ):
        return None
    rows = [each.movedim(dim, -1).contiguous() for each in (student, teacher)]
    value = torch.empty(rows[0].shape[:-1])
    slopes = torch.empty(rows[0].shape)
    worth = student.numel() > VALUES_WORTH_THREADS
    failed = _function(name)(
        *(tensor.data_ptr() for tensor in (*rows, value, slopes)),
        value.numel(),
        rows[0].shape[-1],
        number,
        torch.get_num_threads() if worth else 1,
    )
    if failed:
        raise MemoryError(f'no memory to share out {value.numel()} rows')
    return value, slopes.movedim(-1, dim)


@functools.lru_cache
def _function(name: str) -> Callable[..., int]:
    function = getattr(native_library(), f'mmrkkd_{name}')
    integer = ctypes.c_int64
    function.argtypes = 4 * [ctypes.c_void_p] + [integer, integer]
    function.argtypes += [ctypes.c_double, integer]
    return function


# Others, such as those that only know their shape, have no memory to read.
_PLAIN = (Tensor, torch.nn.Parameter)
