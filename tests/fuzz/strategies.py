"""What the fuzz tests draw: tensors of every shape, size and layout.

Hypothesis draws the shape, the data type, the layout in memory and, row by
row, what kind of numbers a row holds; a seed makes the numbers. A failing
case therefore prints as a few short words, and the shrunk one is the
smallest shape and the plainest kind that still fail.
"""

import collections
import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

DOUBLE, SINGLE = torch.float64, torch.float32
HALVES = (torch.float16, torch.bfloat16)
WIDE = (DOUBLE, SINGLE)
DTYPES = (*WIDE, *HALVES)
CLASSES = (2, 3, 4, 5, 7, 8, 9, 10, 15, 16, 17, 33, 65)
SAMPLES = ((1,), (2,), (3,), (5,), (0,), (), (2, 3), (0, 2), (1, 2, 2))
# Powers of ten; half precision is clamped to what it can hold.
MAGNITUDES = (1.0, 1e-3, 1e-6, 1e-30, 1e-42, 30.0, 1e4, 1e10, 1e30)
KINDS = (
    'normal',
    'ties',
    'constant',
    'one-hot',
    'mixed',
    'near-ties',
    'outlier',
)
LAYOUTS = ('contiguous', 'transposed', 'sliced', 'expanded', 'offset')

# How often each test body has run, by the name of the test.
cases = collections.Counter()


def fuzz(**drawn):
    """``given``, which also counts the cases that it has run."""

    def decorate(test):
        @functools.wraps(test)
        def counted(*args, **arguments):
            test(*args, **arguments)
            cases[test.__name__] += 1

        return pytest.mark.slow(given(**drawn)(counted))

    return decorate


def _row(kind: str, classes: int, generator: torch.Generator) -> Tensor:
    """One row (C,), float64, of deviation about 1 for most kinds."""
    normal = torch.randn(classes, generator=generator, dtype=DOUBLE)
    place = torch.randint(classes, (), generator=generator)
    if kind == 'ties':
        return normal.round()
    if kind == 'constant':
        return normal[:1].expand(classes).clone()
    if kind == 'one-hot':
        return 10 * torch.nn.functional.one_hot(place, classes).double()
    if kind == 'mixed':
        powers = torch.empty(classes, dtype=DOUBLE)
        return normal * 10 ** powers.uniform_(-40, 0, generator=generator)
    if kind == 'near-ties':
        return 1 + 1e-7 * normal.round()
    if kind == 'outlier':
        normal[place] *= 1e6
    return normal


def fill(
    shape: tuple[int, ...],
    kinds: list[str],
    magnitude: float,
    dtype: torch.dtype,
    seed: int,
) -> Tensor:
    """A tensor (..., C) whose rows take the kinds in turn, all finite."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.empty(shape, dtype=DOUBLE).reshape(-1, shape[-1])
    for index in range(len(rows)):
        kind = kinds[index % len(kinds)]
        rows[index] = _row(kind, shape[-1], generator)
    largest = torch.finfo(dtype).max / 4
    values = (magnitude * rows).clamp(-largest, largest)
    return values.to(dtype).reshape(shape)


def lay_out(values: Tensor, layout: str) -> Tensor:
    """The same values in another layout; 'expanded' repeats the first."""
    if layout == 'transposed' and values.dim() > 1:
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == 'sliced':
        wide = values.new_full((*values.shape[:-1], 2 * values.shape[-1]), 9)
        wide[..., ::2] = values
        return wide[..., ::2]
    if layout == 'expanded' and values.dim() > 1 and len(values):
        return values[:1].expand(values.shape)
    if layout == 'offset':
        return torch.cat([values.new_ones(3), values.flatten()])[3:].view(
            values.shape
        )
    return values


def shapes(samples=SAMPLES, classes=CLASSES):
    """Shapes (..., C)."""
    return st.builds(
        lambda leading, last: (*leading, last),
        st.sampled_from(samples),
        st.sampled_from(classes),
    )


@st.composite
def tensors(
    draw,
    shape,
    dtype,
    kinds=KINDS,
    magnitudes=MAGNITUDES,
    layouts=LAYOUTS,
):
    """Finite logits of a shape (..., C)."""
    values = fill(
        shape,
        draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3)),
        draw(st.sampled_from(magnitudes)),
        dtype,
        draw(st.integers(0, 999)),
    )
    return lay_out(values, draw(st.sampled_from(layouts)))


@st.composite
def pairs(
    draw,
    samples=SAMPLES,
    classes=CLASSES,
    dtypes=DTYPES,
    **numbers,
):
    """Student and teacher of one shape and one data type."""
    shape = draw(shapes(samples, classes))
    dtype = draw(st.sampled_from(dtypes))
    return tuple(draw(tensors(shape, dtype, **numbers)) for _ in range(2))


@st.composite
def masks(draw, shape):
    """A class mask that broadcasts to a shape (..., C), or None."""
    kind = draw(st.sampled_from(('none', 'rows', 'shared', 'empty')))
    if kind == 'none':
        return None
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    if kind == 'empty':
        return torch.zeros(shape[-1], dtype=torch.bool)
    size = shape if kind == 'rows' else shape[-1:]
    return torch.rand(size, generator=generator) < 0.6


def permutation(count: int, seed: int) -> Tensor:
    """A permutation of count entries."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)
