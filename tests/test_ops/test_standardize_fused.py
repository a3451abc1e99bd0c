"""The fused standardisation against the plain equation and float64.

The error budget: the truth is the plain equation in float64, and the fused
path may be further from it than the plain equation in the same type, at its
worst in the row, by no more than BUDGET units of rounding of the largest
value of the row.
"""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from mmrkkd.ops import standardize
from mmrkkd.ops.backends import standardize_fused
from mmrkkd.ops.backends.cpu.native_library import native_library
from mmrkkd.ops.standardize_eager import standardize_eager

BUDGET = 4
EPS = 1e-7
BACKENDS = ['torch'] + (['native'] if native_library() is not None else [])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Makes the door use one backend."""
    if request.param == 'torch':
        monkeypatch.setattr(standardize_fused, 'native_library', lambda: None)
    return request.param


def z_and_gradient(function, logits: Tensor, upstream: Tensor):
    leaf = logits.detach().requires_grad_()
    z = function(leaf, EPS)
    (gradient,) = torch.autograd.grad(z, leaf, upstream.to(leaf.dtype))
    return z.detach(), gradient


def check_budget(
    logits: Tensor,
    upstream: Tensor | None = None,
    floor: Tensor | None = None,
) -> None:
    """Asserts the error budget of this module's docstring."""

    def with_floor(function):
        if floor is None:
            return function
        return lambda x, eps: function(x, eps, floor.to(x.dtype))

    plain_function = with_floor(standardize_eager)
    if upstream is None:
        upstream = torch.randn(logits.shape)
    truth = z_and_gradient(plain_function, logits.double(), upstream)
    eager = z_and_gradient(plain_function, logits, upstream)
    fused = z_and_gradient(with_floor(standardize), logits, upstream)
    limits = torch.finfo(logits.dtype)
    # What the gradient is a difference of: for two classes it is 0.
    width = logits.double().std(-1, keepdim=True) + EPS
    if floor is not None:
        width = width.maximum(floor.double().unsqueeze(-1) + EPS)
    units = (
        truth[0].abs().amax(-1, keepdim=True),
        upstream.double().abs().amax(-1, keepdim=True) / width,
    )
    for name, unit, exact, plain, fast in zip(
        ('z', 'gradient'), units, truth, eager, fused
    ):
        assert fast.dtype == logits.dtype
        assert torch.isfinite(fast).all(), name
        plain_error = (plain - exact).abs().amax(-1, keepdim=True)
        allowed = plain_error + BUDGET * limits.eps * unit
        worst = (fast - exact).abs() / (allowed + limits.tiny)
        assert not worst.numel() or worst.max() <= 1, (
            f'{name}: {worst.max():.2f} of the budget'
        )


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('rows', [1, 33])
@pytest.mark.parametrize(
    'classes', [2, 3, 7, 8, 9, 15, 16, 17, 80, 81, 100, 1000, 1203]
)
def test_agrees_with_eager_for_odd_sizes(backend, classes, rows, dtype):
    check_budget(torch.randn(rows, classes).to(dtype) * 3 + 2)


@pytest.mark.parametrize('scale', [1e4, 1e-3, 1e-6, 1e12])
@pytest.mark.parametrize('offset', [0.0, 10.0])
def test_agrees_with_eager_at_extreme_scales(backend, scale, offset):
    check_budget(scale * (torch.randn(5, 81) + offset))


@pytest.mark.skipif('native' not in BACKENDS, reason='needs a C compiler')
def test_a_large_offset_costs_no_precision():
    """Plain float32 squares and adds what is left of a rounded mean."""
    logits = (1e4 + torch.randn(4, 1000)).double()
    exact = standardize_eager(logits.float().double(), EPS)
    torch.testing.assert_close(
        standardize(logits.float()).double(), exact, rtol=0, atol=5e-7
    )


@pytest.mark.parametrize(
    'size, dtype',
    [
        (1e18, torch.float32),
        (1e30, torch.float32),
        (3e38, torch.float32),
        (1e160, torch.float64),
        (1e308, torch.float64),
    ],
)
@pytest.mark.parametrize('function', [standardize, standardize_eager])
def test_squares_beyond_the_range_do_no_harm(backend, function, size, dtype):
    relative = 2 * torch.rand(3, 50).to(dtype) - 1
    upstream = torch.randn(3, 50)
    z, gradient = z_and_gradient(function, relative * size, upstream)
    # eps is nothing beside such a deviation.
    exact, slope = z_and_gradient(
        lambda leaf, _: standardize_eager(leaf, 0.0),
        relative.double(),
        upstream,
    )
    torch.testing.assert_close(z, exact.to(dtype))
    torch.testing.assert_close(gradient * size, slope.to(dtype))


@pytest.mark.parametrize('scale', [1e-25, 1e-30, 1e-42, 1e-45])
def test_a_row_whose_squares_are_0_counts_as_constant(backend, scale):
    logits = (scale * torch.randn(3, 9)).requires_grad_()
    z = standardize(logits)
    (z * torch.randn(3, 9)).sum().backward()
    assert torch.equal(z, torch.zeros(3, 9))
    assert torch.equal(logits.grad, torch.zeros(3, 9))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_a_constant_row_changes_no_other(backend, dtype):
    logits, upstream = torch.randn(2, 3, 20).to(dtype)
    clean = z_and_gradient(standardize, logits, upstream)
    logits[1] = 7
    for now, before in zip(
        z_and_gradient(standardize, logits, upstream), clean
    ):
        assert torch.equal(now[1], torch.zeros(20, dtype=dtype))
        assert torch.equal(now[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize('bad', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('place', [0, 4, 19])
def test_a_value_that_is_not_finite_spoils_its_row_only(backend, bad, place):
    logits, upstream = torch.randn(2, 3, 20)
    clean = z_and_gradient(standardize, logits, upstream)
    logits[1, place] = bad
    for now, before in zip(
        z_and_gradient(standardize, logits, upstream), clean
    ):
        assert now[1].isnan().all()
        assert torch.equal(now[[0, 2]], before[[0, 2]])
    assert standardize_eager(logits, EPS)[1].isnan().all()


@pytest.mark.parametrize('eps', [1e-7, 0.5])
def test_first_and_second_derivatives(backend, eps):
    logits = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def z_hat(x):
        return standardize(x, eps)

    assert torch.autograd.gradcheck(z_hat, logits)
    assert torch.autograd.gradgradcheck(z_hat, logits)


def test_a_second_derivative_of_a_constant_row_is_0(backend):
    logits = torch.full((1, 5), 2.0, requires_grad=True)
    weight = torch.randn(1, 5)
    (gradient,) = torch.autograd.grad(
        (standardize(logits) * weight).sum(), logits, create_graph=True
    )
    gradient.square().sum().backward()
    assert torch.equal(logits.grad, torch.zeros(1, 5))


def test_leading_dimensions_and_strides(backend):
    logits = torch.randn(7, 2, 3, 5).permute(3, 2, 1, 0)[::2]
    assert not logits.is_contiguous()
    check_budget(logits, torch.randn(7, 2, 3, 3).permute(3, 2, 1, 0))
    check_budget(logits[0, 0, 0])
    # An expanded gradient has strides of 0.
    check_budget(logits, torch.ones(()).expand(logits.shape))


def test_no_rows_give_no_values_and_a_gradient(backend):
    logits = torch.zeros(0, 5, requires_grad=True)
    z = standardize(logits)
    assert z.shape == (0, 5)
    z.sum().backward()
    assert logits.grad.shape == (0, 5)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_as_they_were(dtype):
    logits = torch.randn(3, 9).to(dtype)
    z = standardize(logits)
    assert z.dtype == dtype
    assert torch.equal(z, standardize_eager(logits, EPS))


def test_one_class_is_constant_and_none_is_refused():
    assert torch.equal(standardize(torch.ones(2, 1)), torch.zeros(2, 1))
    with pytest.raises(IndexError, match='non-zero size'):
        standardize(torch.zeros(2, 0))


def test_autocast_changes_nothing():
    logits = torch.randn(3, 12)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        z = standardize(logits)
    assert torch.equal(z, standardize(logits))


def test_vmap_is_the_batched_call():
    logits, weight = torch.randn(2, 4, 3, 8)
    by_vmap = torch.func.vmap(standardize, in_dims=1, out_dims=1)(logits)
    assert torch.equal(by_vmap, standardize(logits))
    per_sample = torch.func.vmap(
        torch.func.grad(lambda x, w: (standardize(x) * w).sum())
    )(logits, weight)
    _, gradient = z_and_gradient(standardize, logits, weight)
    torch.testing.assert_close(per_sample, gradient)


def test_a_compiled_caller_keeps_it_whole_and_does_not_recompile():
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: standardize(x).pow(3).sum(),
        fullgraph=True,
        backend='aot_eager',
        dynamic=True,
    )
    try:
        for rows in (4, 7, 9):
            logits = torch.randn(rows, 12, requires_grad=True)
            compiled(logits).backward()
            (gradient,) = torch.autograd.grad(
                standardize(logits).pow(3).sum(), logits
            )
            torch.testing.assert_close(logits.grad, gradient)
            torch._dynamo.config.error_on_recompile = rows > 4
    finally:
        torch._dynamo.config.error_on_recompile = False


def test_rows_may_run_on_any_number_of_threads():
    logits, upstream = torch.randn(2, 700, 100)
    usual = z_and_gradient(standardize, logits, upstream)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            for now, before in zip(
                z_and_gradient(standardize, logits, upstream), usual
            ):
                assert torch.equal(now, before)
    finally:
        torch.set_num_threads(threads)


def test_the_switch_takes_the_tensor_operations():
    script = (
        'import torch\n'
        'from mmrkkd.ops import standardize\n'
        'x = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)\n'
        'z = standardize(x)\n'
        'z[0, 0].backward()\n'
        'assert torch.allclose(z, torch.tensor([[-1.0, 0.0, 1.0]]))\n'
        # (1, 0, 0) - 1/3 - (-1, 0, 1) (-1) / 2
        'expected = torch.tensor([[1 / 6, -1 / 3, 1 / 6]])\n'
        'assert torch.allclose(x.grad, expected, atol=1e-6)\n'
    )
    subprocess.run(
        [sys.executable, '-c', script],
        check=True,
        env={**os.environ, 'MMRKKD_NATIVE': '0'},
    )


# Rows of deviation 1: below, at about, above and far above their floor.
FLOORS = (2.0, 1.0, 0.5, 1e-9)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('classes', [2, 7, 81, 1203])
@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e4])
def test_a_floor_agrees_with_eager(backend, classes, scale, dtype):
    logits = torch.randn(8, classes).to(dtype)
    logits = scale * (1 + standardize(logits))
    floor = scale * torch.tensor(FLOORS, dtype=dtype).repeat(2)
    # A deviation that rounding alone puts on one side or the other.
    floor[1::4] = (1 + 1e-3) * logits.double().std(-1)[1::4].to(dtype)
    check_budget(logits, floor=floor)


@pytest.mark.parametrize('scale', [1e-25, 1e-42])
def test_a_floor_under_rows_whose_squares_are_0(backend, scale):
    check_budget(scale * torch.randn(3, 9), floor=torch.full((3,), scale / 9))


@pytest.mark.parametrize('eps', [1e-7, 0.5])
def test_first_and_second_derivatives_with_a_floor(backend, eps):
    logits = torch.randn(4, 6, dtype=torch.float64)
    logits = logits / logits.std(-1, keepdim=True)
    logits[1] = 3.0  # without order, on a floor
    logits.requires_grad_()
    floor = torch.tensor([2.0, 0.7, 0.5, 0.0]).double()

    def z_hat(x):
        return standardize(x, eps, floor)

    assert torch.autograd.gradcheck(z_hat, logits)
    assert torch.autograd.gradgradcheck(z_hat, logits)


def test_a_floor_of_one_row_changes_no_other(backend):
    logits, upstream = torch.randn(2, 3, 20)
    clean = z_and_gradient(standardize, logits, upstream)
    floor = torch.tensor([0.0, 9.0, 0.0])
    floored = z_and_gradient(
        lambda x, eps: standardize(x, eps, floor), logits, upstream
    )
    for now, before in zip(floored, clean):
        assert torch.equal(now[[0, 2]], before[[0, 2]])
        assert not torch.equal(now[1], before[1])


@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_is_nan_on_a_floor_too(backend, bad):
    logits = torch.randn(2, 20)
    logits[0, 4] = bad
    z, gradient = z_and_gradient(
        lambda x, eps: standardize(x, eps, 1e3), logits, torch.randn(2, 20)
    )
    assert z[0].isnan().all() and gradient[0].isnan().all()
    assert z[1].isfinite().all() and gradient[1].isfinite().all()


def test_a_floor_under_huge_float64_rows(backend):
    logits = 1e160 * torch.tensor([[1.0, 2, 3]] * 2).double()
    floor = torch.tensor([2e160, 0.5e160], dtype=torch.float64)
    z, gradient = z_and_gradient(
        lambda x, eps: standardize(x, eps, floor),
        logits,
        torch.tensor([[1.0, 0, 0]] * 2),
    )
    torch.testing.assert_close(
        z, torch.tensor([[-0.5, 0, 0.5], [-1, 0, 1]]).double()
    )
    # On the floor 2: (2, -1, -1) / 6. Above: (1, -2, 1) / 6.
    torch.testing.assert_close(
        1e160 * gradient,
        torch.tensor([[2.0, -1, -1], [1, -2, 1]]).double() / 6,
    )


@pytest.mark.parametrize('in_dims', [(0, 0), (0, None), (None, 0)])
def test_vmap_over_logits_and_floors(in_dims):
    logits, floor = torch.randn(4, 3, 8), torch.rand(4, 3)
    if in_dims[0] is None:
        logits = logits[0]
    if in_dims[1] is None:
        floor = floor[0]
    by_vmap = torch.func.vmap(
        lambda x, f: standardize(x, floor=f), in_dims=in_dims
    )(logits, floor)
    whole = standardize(
        logits.expand(4, 3, 8), floor=floor.expand(4, 3).contiguous()
    )
    assert torch.equal(by_vmap, whole)


@pytest.mark.parametrize('floor', [1.0, 'of rows'])
def test_a_compiled_caller_keeps_the_floor(floor):
    torch._dynamo.reset()
    logits = torch.randn(5, 12, requires_grad=True)
    floor = torch.rand(5) + 0.5 if floor == 'of rows' else floor

    def loss(x):
        return standardize(x, floor=floor).pow(3).sum()

    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    compiled(logits).backward()
    (gradient,) = torch.autograd.grad(loss(logits), logits)
    torch.testing.assert_close(logits.grad, gradient)
