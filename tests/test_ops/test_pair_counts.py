"""The counts behind the exact tau: C code against tensor operations."""

import pytest
import torch

from mmrkkd.ops import exact_kendall_tau
from mmrkkd.ops.backends.cpu.kendall_tau_native import pair_counts_native
from mmrkkd.ops.backends.cpu.native_library import native_library
from mmrkkd.ops.rank_correlation import pair_counts_torch


@pytest.mark.skipif(native_library() is None, reason='needs a C compiler')
@pytest.mark.parametrize('classes', [1, 2, 15, 16, 17, 81, 200, 1000])
@pytest.mark.parametrize('rows', [0, 1, 7])
def test_native_counts_equal_tensor_operations(classes, rows):
    generator = torch.Generator().manual_seed(classes)
    student, teacher = torch.randn(2, rows, classes, generator=generator)
    # Ties on one side, values a comparison must not subtract.
    teacher = (2 * teacher).round()
    if rows > 3:
        student[0] = 1.0
        student[1] *= 1e-45
        student[2] *= 3e38
        student[3, 0] = torch.nan
    assert torch.equal(
        pair_counts_native(student, teacher),
        pair_counts_torch(student, teacher)
        if rows
        else torch.zeros(0, 3, dtype=torch.int64),
    )


def test_doubles_closer_than_float32_can_tell_are_ranked():
    values = torch.tensor([1.0, 1.0 + 1e-12, 1.0 + 2e-12]).double()
    values += torch.arange(3) * 1e-12
    assert exact_kendall_tau(values, -values) == -1


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_types_are_compared_exactly(dtype):
    student, teacher = torch.randn(2, 4, 50).to(dtype)
    torch.testing.assert_close(
        exact_kendall_tau(student, teacher),
        exact_kendall_tau(student.double(), teacher.double()),
    )


@pytest.mark.skipif(native_library() is None, reason='needs a C compiler')
def test_where_new_tensors_lie_by_default_changes_nothing():
    student, teacher = torch.randn(2, 4, 9)
    expected = pair_counts_native(student, teacher)
    with torch.device('meta'):
        found = pair_counts_native(student, teacher)
    assert torch.equal(found, expected)
