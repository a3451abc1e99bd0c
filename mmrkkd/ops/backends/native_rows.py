"""What the C code makes of rows, as one pass on the CPU."""

import ctypes
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .cpu.native_library import native_library

# Below 50 us of work, at some 2 ns a value, one thread does.
VALUES_WORTH_THREADS = 25_000
# By these the C functions are told apart that know both types.
KINDS = {torch.float32: 'float', torch.float64: 'double'}


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
        apply: on other devices, for other types than float32, unlike shapes,
        a number that is a tensor, without entries, without a compiler, or
        where a dispatch mode (``make_fx``, fake tensors) looks on, which
        would see nothing of it.
    """
    if isinstance(number, Tensor) or not _known(student, teacher):
        return None
    rows = [each.movedim(dim, -1).contiguous() for each in (student, teacher)]
    value, slopes = _call(name, rows, number)
    return value, slopes.movedim(-1, dim)


def surprise_rows(
    scores: Tensor, order: Tensor, weight: Tensor | None, lowest: float
) -> tuple[Tensor, Tensor] | None:
    """How unlikely a ranking is, and the gradient by the scores.

    Args:
        scores: (N, C); of no use where they differ by 600 or more in a row.
        order: (N, C), int64, a permutation of the classes in each row.
        weight: Of each place, (N, C), or None for 1.
        lowest: What scores below it are taken for; they have no gradient.

    Returns:
        (N,) and (N, C); None where the C code does not apply.
    """
    given = [scores] if weight is None else [scores, weight]
    if not _known(*given) or type(order) is not Tensor:
        return None
    if order.dtype != torch.int64 or order.shape != scores.shape:
        return None
    tensors = scores, order, weight
    rows = [None if each is None else each.contiguous() for each in tensors]
    return _call('surprise', rows, lowest)


def _known(*tensors: Tensor) -> bool:
    return (
        all(
            type(each) in _PLAIN
            and each.dtype == torch.float32
            and each.device.type == 'cpu'
            and each.shape == tensors[0].shape
            for each in tensors
        )
        and tensors[0].numel() > 0
        and not _watched()
        and native_library() is not None
    )


def _call(
    name: str, rows: list[Tensor | None], number: float
) -> tuple[Tensor, Tensor]:
    """A value and a slope of each of some rows."""
    shape = rows[0].shape
    # As the rows: the type and the device of new tensors may be set.
    value, slopes = rows[0].new_empty(shape[:-1]), rows[0].new_empty(shape)
    run(name, (*rows, value, slopes), number, VALUES_WORTH_THREADS)
    return value, slopes


def run(
    name: str, tensors: Sequence[Tensor | None], number: float, worth: int
) -> None:
    """Calls a C function, which writes into some of its tensors.

    Args:
        name: The function's, without mmrkkd_.
        tensors: As it takes them, each contiguous or None; the first is of
            shape (..., C), the rows.
        number: What it takes behind the rows and C.
        worth: With more values than this all threads share the rows.

    Raises:
        MemoryError: there is none to share the rows out.
    """
    shape = tensors[0].shape
    rows, classes = shape[:-1].numel(), shape[-1]
    failed = _function(name, len(tensors))(
        *(None if each is None else each.data_ptr() for each in tensors),
        rows,
        classes,
        number,
        torch.get_num_threads() if rows * classes > worth else 1,
    )
    if failed:
        raise MemoryError(f'no memory to share out {rows} rows')


@functools.lru_cache
def _function(name: str, arrays: int) -> Callable[..., int]:
    function = getattr(native_library(), f'mmrkkd_{name}')
    integer = ctypes.c_int64
    function.argtypes = arrays * [ctypes.c_void_p] + [integer, integer]
    function.argtypes += [ctypes.c_double, integer]
    return function


def _watched() -> bool:
    depth = getattr(torch._C, '_len_torch_dispatch_stack', None)
    return depth is not None and depth() > 0


# Others, such as those that only know their shape, have no memory to read.
_PLAIN = (Tensor, torch.nn.Parameter)
