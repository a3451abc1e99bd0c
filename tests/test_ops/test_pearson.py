"""Pearson's correlation against arithmetic and NumPy."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from mmrkkd.ops import pearson


def test_by_hand():
    # Around their means (-1, 0, 1) and (-1, 2, -1): orthogonal; and
    # (-1, 0, 1) . (-2, 1, 1) / sqrt(2 * 6) = 3 / sqrt 12.
    student = torch.tensor([[1, 2, 3], [1, 2, 3]], dtype=torch.float64)
    teacher = torch.tensor([[4, 7, 4], [0, 3, 3]], dtype=torch.float64)
    expected = torch.tensor([0, 3 / 12**0.5], dtype=torch.float64)
    torch.testing.assert_close(
        pearson(student, teacher), expected, rtol=1e-8, atol=0
    )


def test_eps_is_added_to_the_product_of_the_norms():
    # Norms sqrt 2 and sqrt 2 / 2: 1 / (1 + 1 / 3) = 3 / 4.
    student = torch.tensor([-1.0, 0.0, 1.0])
    value = pearson(student, student / 2, eps=1 / 3)
    torch.testing.assert_close(value.item(), 3 / 4)


@pytest.mark.parametrize('dim', [0, 1, -1])
def test_equals_numpy_along_a_dimension(dim):
    student, teacher = torch.randn(2, 6, 9).double()
    pairs = zip(
        student.movedim(dim, -1).numpy(), teacher.movedim(dim, -1).numpy()
    )
    expected = [np.corrcoef(s, t)[0, 1] for s, t in pairs]
    torch.testing.assert_close(
        pearson(student, teacher, dim=dim),
        torch.tensor(expected).double(),
        rtol=1e-7,
        atol=1e-8,
    )


def test_scale_and_shift_do_not_matter_and_a_sign_turns_it():
    student, teacher = torch.randn(2, 6, 9).double()
    value = pearson(student, teacher)
    for changed in (
        pearson(3 * student + 5, teacher),
        pearson(teacher, student),
    ):
        torch.testing.assert_close(changed, value, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(pearson(-student, teacher), -value)


@pytest.mark.parametrize('dim', [0, 1])
def test_gradient(dim):
    student = torch.randn(4, 5).double().requires_grad_()
    teacher = torch.randn(4, 5).double().requires_grad_()
    assert gradcheck(lambda s, t: pearson(s, t, dim), (student, teacher))


@pytest.mark.parametrize('value', [0.0, 0.1, 1e-30, 3e4])
def test_no_variation_gives_0_and_no_gradient(value):
    student = torch.full((2, 100), value, requires_grad=True)
    teacher = torch.randn(2, 100, requires_grad=True)
    correlation = pearson(student, teacher)
    correlation.sum().backward()
    assert (correlation == 0).all()
    assert (student.grad == 0).all()
    assert (teacher.grad == 0).all()


def test_variation_too_small_to_square_gives_0():
    student = torch.tensor([[1e-30, 2e-30, 5e-30]], requires_grad=True)
    correlation = pearson(student, torch.randn(1, 3))
    correlation.sum().backward()
    assert correlation == 0
    assert (student.grad == 0).all()


@pytest.mark.parametrize('scale', [1e19, 1e30, 1e38])
def test_squares_beyond_float32_do_not_overflow(scale):
    student, teacher = torch.randn(2, 3, 9)
    expected = pearson(student.double(), teacher.double())
    huge = (student / student.abs().max() * scale).requires_grad_()
    correlation = pearson(huge, teacher)
    correlation.sum().backward()
    torch.testing.assert_close(correlation.double(), expected)
    assert huge.grad.isfinite().all()
    both = pearson(huge, teacher * scale / teacher.abs().max())
    torch.testing.assert_close(both.double(), expected)


@pytest.mark.parametrize('bad', [torch.nan, torch.inf, -torch.inf])
def test_a_value_that_is_not_finite_spoils_its_row_only(bad):
    student, teacher = torch.randn(2, 3, 9)
    clean = pearson(student, teacher)
    student[1, 4] = bad
    correlation = pearson(student, teacher)
    assert correlation.isnan().tolist() == [False, True, False]
    assert torch.equal(correlation[[0, 2]], clean[[0, 2]])
    assert pearson(teacher, student).isnan()[1]
