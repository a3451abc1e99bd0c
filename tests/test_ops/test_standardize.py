"""Per-sample standardisation."""

import pytest
import torch
from torch.autograd import gradcheck

from mmrkkd.ops import standardize
from mmrkkd.ops.standardize import deviation


def test_mean_zero_and_unbiased_deviation_one():
    logits = torch.randn(4, 100, dtype=torch.float64) * 3 + 7
    result = standardize(logits)
    zeros, ones = torch.zeros(4).double(), torch.ones(4).double()
    torch.testing.assert_close(result.mean(-1), zeros)
    torch.testing.assert_close(result.std(-1), ones, rtol=1e-6, atol=0)


def test_three_classes_by_hand():
    # mean 2, unbiased variance (1 + 0 + 1) / 2 = 1; eps is added to std 1.
    result = standardize(torch.tensor([1.0, 2.0, 3.0]).double(), eps=0.25)
    expected = torch.tensor([-1 / 1.25, 0.0, 1 / 1.25]).double()
    torch.testing.assert_close(result, expected)


def test_gradient_flows_through_mean_and_deviation():
    # dL/dz = (g - mean g - z_hat (g . z_hat) / (C - 1)) / std, eps -> 0
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(6, dtype=torch.float64)
    z_hat = standardize(logits, eps=1e-300)
    z_hat.backward(upstream)
    z_hat = z_hat.detach()
    expected = (
        upstream - upstream.mean() - z_hat * (upstream @ z_hat) / 5
    ) / logits.detach().std()
    torch.testing.assert_close(logits.grad, expected)


def test_gradcheck():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(standardize, (logits,))


@pytest.mark.parametrize('value', [0.0, 0.1, -1e4, 1e30])
@pytest.mark.parametrize('classes', [2, 81, 1000])
def test_constant_row_gives_zeros_and_no_gradient(value, classes):
    logits = torch.full((2, classes), value, requires_grad=True)
    result = standardize(logits)
    (result * torch.randn(2, classes)).sum().backward()
    assert (result == 0).all()
    assert (logits.grad == 0).all()


def test_row_that_differs_by_rounding_only_is_constant():
    logits = torch.full((1, 10), 1e4)
    logits[0, 3] = torch.nextafter(logits[0, 3], torch.tensor(2e4))
    logits.requires_grad_()
    standardize(logits)[0, 3].backward()
    assert (logits.grad == 0).all()


def test_small_differences_still_count():
    result = standardize(torch.tensor([[1e-3, 2e-3, 3e-3]]))
    torch.testing.assert_close(
        result, torch.tensor([[-1.0, 0.0, 1.0]]), atol=2e-4, rtol=0
    )


def test_nan_row_stays_alone():
    logits = torch.randn(2, 4)
    expected = standardize(logits)[1]
    logits[0, 0] = torch.nan
    result = standardize(logits)
    assert result[0].isnan().all()
    assert torch.equal(result[1], expected)


def test_a_floor_stands_for_a_smaller_deviation():
    # Deviation 1 of both; floors 2 and 0.5: the second row stays.
    logits = torch.tensor([[1.0, 2.0, 3.0]] * 2, dtype=torch.float64)
    result = standardize(logits, eps=0.25, floor=torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(
        result,
        torch.tensor([[-1 / 2.25, 0, 1 / 2.25], [-0.8, 0, 0.8]]).double(),
    )
    assert torch.equal(standardize(logits, eps=0.25, floor=2.0)[0], result[0])


def test_below_the_floor_the_deviation_is_a_constant():
    # (1, 0, 0) minus its mean 1/3, over the floor 2, eps -> 0.
    logits = torch.tensor([1.0, 2.0, 3.0]).double().requires_grad_()
    standardize(logits, eps=1e-300, floor=2.0)[0].backward()
    torch.testing.assert_close(
        logits.grad, torch.tensor([1 / 3, -1 / 6, -1 / 6]).double()
    )


def test_a_floor_bounds_the_gradient_of_nearly_constant_logits():
    logits = (1e-3 * torch.randn(4, 50)).requires_grad_()
    upstream = torch.randn(4, 50)
    (steep,) = torch.autograd.grad(standardize(logits), logits, upstream)
    (bounded,) = torch.autograd.grad(
        standardize(logits, floor=0.5), logits, upstream
    )
    assert steep.norm() > 900 * upstream.norm()
    assert bounded.norm() <= upstream.norm() / 0.5


def test_a_constant_row_with_a_floor_has_its_gradient():
    logits = torch.full((2, 3), 7.0, requires_grad=True)
    result = standardize(logits, floor=torch.tensor([2.0, 0.0]))
    result[:, 0].sum().backward()
    assert (result == 0).all()
    torch.testing.assert_close(
        logits.grad, torch.tensor([[1 / 3, -1 / 6, -1 / 6], [0, 0, 0]])
    )


@pytest.mark.parametrize('floor', [None, 0.0, 0, torch.zeros(3)])
def test_no_floor_is_the_published_formula(floor):
    logits = torch.randn(3, 9)
    assert torch.equal(standardize(logits, floor=floor), standardize(logits))


def test_the_floor_gets_no_gradient():
    logits = torch.randn(3, 9, requires_grad=True)
    floor = torch.ones(3, requires_grad=True)
    standardize(logits, floor=5 * floor).sum().backward()
    assert floor.grad is None


@pytest.mark.parametrize(
    'floor, message',
    [
        (-1.0, 'floor must be a finite number >= 0, got -1.0'),
        (torch.inf, 'floor must be a finite number >= 0, got inf'),
        (torch.ones(3, 1), r'value for each row, shape \(3,\), got \(3, 1\)'),
    ],
)
def test_wrong_floors_are_refused(floor, message):
    with pytest.raises(ValueError, match=message):
        standardize(torch.randn(3, 9), floor=floor)


def test_deviation_of_rows():
    # Squares 1, 0, 1 over 2; no order; beyond float32's squares.
    logits = torch.tensor([[1.0, 2, 3], [4, 4, 4], [1e30, 2e30, 3e30]])
    torch.testing.assert_close(
        deviation(logits), torch.tensor([1.0, 0.0, 1e30])
    )
