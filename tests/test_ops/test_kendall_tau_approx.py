"""The near-linear path: its stated error, and what it leaves to others."""

import time

import pytest
import torch
from torch import Tensor

from mmrkkd.ops import kendall_tau
from mmrkkd.ops.backends.kendall_tau_approx import (
    LARGEST_DEGREE,
    LEAST_CLASSES,
    TOLERANCE,
    _degree,
    _range_of_degree,
)


def check(
    student: Tensor,
    teacher: Tensor,
    steepness: float = 1.0,
    form: int = 1,
    class_mask: Tensor | None = None,
) -> None:
    """Asserts the stated error against the exact path in float64."""
    results = {}
    for impl, dtype in (('fused', torch.float64), ('approx', torch.float32)):
        leaf = student.detach().to(dtype).requires_grad_()
        tau = kendall_tau(
            leaf,
            teacher.to(dtype),
            steepness=steepness,
            form=form,
            class_mask=class_mask,
            impl=impl,
        )
        tau.sum().backward()
        results[impl] = tau.detach(), leaf.grad
    classes = student.shape[-1]
    if class_mask is not None:
        classes = class_mask.sum(-1).clamp(min=2).unsqueeze(-1)
    (tau, gradient), (near_tau, near_gradient) = results.values()
    assert (near_tau - tau).abs().max() <= TOLERANCE
    error = (near_gradient - gradient).abs() / (2 * steepness / classes)
    assert error.max() <= TOLERANCE


@pytest.mark.parametrize('form', [1, 3])
@pytest.mark.parametrize('classes', [2, 127, 128, 129, 1000, 5000])
@pytest.mark.parametrize('steepness', [0.3, 1.0, 6.0])
def test_error_on_gaussian_logits(classes, steepness, form):
    teacher = torch.randn(3, classes)
    check(teacher / 2 + torch.randn(3, classes), teacher, steepness, form)


@pytest.mark.parametrize('form', [1, 3])
def test_outliers_do_not_widen_the_range(form):
    student, teacher = torch.randn(2, 2, 2000)
    teacher[:, 5], student[:, 7], student[:, 8] = 44.0, -1e4, 1e30
    check(student, teacher, 1.0, form)
    check(teacher, student, 1.0, form)


@pytest.mark.parametrize('form', [1, 3])
def test_ties_and_constant_rows(form):
    student, teacher = torch.randn(2, 4, 500).round()
    student[0], teacher[1] = 3.0, -2.0
    check(student, teacher, 1.0, form)


@pytest.mark.parametrize('form', [1, 3])
def test_a_batch_without_any_range(form):
    """No row to scale the polynomials by: 0 / 0 once."""
    student, teacher = torch.full((2, 200), 3.0), torch.randn(2, 200)
    check(student, teacher, 1.0, form)
    check(teacher, student, 1.0, form)
    check(student, student, 1.0, form)
    nothing = torch.zeros(200, dtype=torch.bool)
    check(teacher, teacher, 1.0, form, nothing)


def test_the_sign_of_a_tiny_gap_beside_a_wide_one_counts():
    """9 + 1e-30 is 9: positions added up from the gaps tie the two."""
    student = torch.arange(200.0).unsqueeze(0) / 10
    teacher = student.clone()
    teacher[0, :3] = torch.tensor([-100.0, 0.0, 1e-30])
    check(student, teacher, form=3)


def test_few_classes_are_exact():
    student, teacher = torch.randn(2, 4, LEAST_CLASSES - 1)
    assert torch.equal(
        kendall_tau(student, teacher, impl='approx'),
        kendall_tau(student, teacher),
    )


@pytest.mark.parametrize('form', [1, 3])
def test_rows_too_wide_for_it_are_exact(form):
    student, teacher = torch.randn(2, 3, 300)
    student[1] *= 1e4
    teacher[2] *= 1e4
    check(student, teacher, 1.0, form)


@pytest.mark.parametrize('form', [1, 3])
def test_masked_classes_do_not_count(form):
    student, teacher = torch.randn(2, 5, 600)
    mask = torch.rand(5, 600) < 0.3
    mask[0], mask[1] = False, True
    check(student, teacher, 1.0, form, mask)
    spoiled = student.masked_fill(~mask, torch.nan)
    torch.testing.assert_close(
        kendall_tau(spoiled, teacher, class_mask=mask, impl='approx'),
        kendall_tau(student, teacher, class_mask=mask),
        rtol=0,
        atol=TOLERANCE,
    )


def test_a_value_that_is_not_finite_spoils_its_row_only():
    student, teacher = torch.randn(2, 3, 200)
    student[1, 3] = torch.nan
    tau = kendall_tau(student, teacher, impl='approx')
    assert tau.isnan().tolist() == [False, True, False]


def test_the_error_does_not_grow_with_the_degree():
    """The widest range that is not left to the exact path."""
    width = _range_of_degree(LARGEST_DEGREE)
    assert _degree(width) <= LARGEST_DEGREE < _degree(1.1 * width)
    student = torch.rand(1, 3000) * width
    check(student, student.flip(-1) + torch.rand(1, 3000))


def test_float64_logits_and_no_rows():
    student, teacher = torch.randn(2, 2, 200, dtype=torch.float64)
    tau = kendall_tau(student, teacher, impl='approx')
    assert tau.dtype == torch.float64
    assert kendall_tau(student[:0], teacher[:0], impl='approx').shape == (0,)


def test_form_2_is_refused():
    with pytest.raises(ValueError, match='knows forms 1 and 3'):
        kendall_tau(torch.zeros(3), torch.zeros(3), form=2, impl='approx')


def test_time_grows_almost_linearly_from_1k_to_128k_classes():
    """Power at most 1.2: at most 128^1.2 = 338 times the time a row."""

    def seconds(classes: int, rows: int) -> float:
        student, teacher = torch.randn(2, rows, classes)
        measured = []
        for _ in range(5):
            start = time.perf_counter()
            kendall_tau(student, teacher, impl='approx')
            measured.append((time.perf_counter() - start) / rows)
        return min(measured)

    threads = torch.get_num_threads()
    try:
        # One thread: others on the machine then disturb both alike.
        torch.set_num_threads(1)
        assert seconds(131072, 1) <= 338 * seconds(1024, 8)
    finally:
        torch.set_num_threads(threads)
