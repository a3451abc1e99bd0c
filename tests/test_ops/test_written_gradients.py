"""Gradients that are written down against those that autograd finds."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.fx.experimental.proxy_tensor import make_fx

from mmrkkd.losses import BinaryKDLoss, list_mle
from mmrkkd.losses.list_mle import ranking, surprise_of
from mmrkkd.ops import divergence, kl_divergence, pearson
from mmrkkd.ops.backends.autograd import with_slopes

NAMES = (
    'kl',
    'pearson of rows',
    'pearson of columns',
    'list',
    'weighted',
    'binary',
    'binary, squared',
)


def functions():
    """Name to a function of the student's logits alone, and their eager."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(4, 7, generator=generator).double()
    order = ranking(teacher, None)
    weight = torch.rand(4, 7, generator=generator).double()
    return dict(
        zip(
            NAMES,
            (
                lambda s: kl_divergence(s, teacher, 3.0),
                lambda s: pearson(s, teacher),
                lambda s: pearson(s, teacher, dim=0),
                lambda s: surprise_of(s, order),
                lambda s: surprise_of(s, order, weight),
                lambda s: binary(s, teacher, 1.0),
                lambda s: binary(s, teacher, 2.0),
            ),
        )
    )


def binary(student, teacher, beta):
    loss = BinaryKDLoss(beta=beta)
    return loss.per_sample(student, teacher, None)['loss_binary_kd']


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def student():
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(4, 7, generator=generator)
    return logits.double().requires_grad_()


@pytest.mark.parametrize('name', NAMES)
def test_first_and_second_derivatives(name):
    function = functions()[name]
    assert gradcheck(function, student())
    assert gradgradcheck(function, student())


@pytest.mark.parametrize('name', NAMES)
def test_the_written_gradient_is_autograds(name, monkeypatch):
    function, leaf = functions()[name], student()
    (written,) = torch.autograd.grad(function(leaf).sum(), leaf)
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    value = function(leaf)
    assert value.grad_fn.name() != '_WithSlopesBackward'
    (found,) = torch.autograd.grad(value.sum(), leaf)
    torch.testing.assert_close(written, found, rtol=1e-9, atol=1e-12)


def test_the_mean_of_rows_keeps_a_graph_to_the_student_only():
    leaf = student()
    teacher = torch.randn(4, 7).double().requires_grad_()
    pearson(leaf, teacher).sum().backward()
    # A teacher with a gradient gets one.
    assert teacher.grad.any()


@pytest.mark.parametrize('spread', [1.0, 300.0, 1e4])
@pytest.mark.parametrize('weighted', [False, True])
def test_surprises_of_near_and_far_scores(spread, weighted, monkeypatch):
    logits = (spread * student().detach()).requires_grad_()
    order = ranking(torch.randn(4, 7).double(), None)
    weight = torch.rand(4, 7).double() if weighted else None
    results = []
    for narrow in (list_mle._narrow, lambda scores: None):
        monkeypatch.setattr(list_mle, '_narrow', narrow)
        value = surprise_of(logits, order, weight)
        (slope,) = torch.autograd.grad(value.sum(), logits)
        results.append((value.detach(), slope))
    eager = list_mle._surprise(logits, order, weight)
    (slope,) = torch.autograd.grad(eager.sum(), logits)
    for value, its_slope in results:
        torch.testing.assert_close(value, eager.detach())
        torch.testing.assert_close(its_slope, slope)


def test_a_class_that_is_ruled_out_has_no_slope_of_its_own():
    logits = torch.tensor([[1.0, -torch.inf, 0.5]], requires_grad=True)
    order = torch.tensor([[0, 2, 1]])
    (slope,) = torch.autograd.grad(surprise_of(logits, order).sum(), logits)
    assert slope.isfinite().all()
    assert slope[0, 1] == 0


def test_below_the_least_logit_no_form_has_a_slope():
    logits = torch.tensor([[-torch.inf, -2e5, -1e5]]).double().requires_grad_()
    value = binary(logits, torch.zeros(1, 3).double(), 1.0)
    for again in (False, True):
        (slope,) = torch.autograd.grad(
            value.sum(), logits, create_graph=again, retain_graph=True
        )
        assert slope.tolist() == [[0, 0, -0.25]]


@pytest.mark.parametrize('name', NAMES)
def test_forward_mode_and_transforms_take_the_equation(name):
    function, logits = functions()[name], student().detach()
    leaf = logits.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(leaf).sum(), leaf)
    tangent = torch.randn(4, 7).double()
    _, change = torch.func.jvp(
        lambda s: function(s).sum(), (logits,), (tangent,)
    )
    torch.testing.assert_close(change, (slope * tangent).sum())
    curved = torch.func.hessian(lambda s: function(s).sum())(logits)
    again = torch.autograd.functional.hessian(
        lambda s: function(s).sum(), logits
    )
    torch.testing.assert_close(curved, again)


@pytest.mark.parametrize('name', NAMES)
def test_vmap_over_gradients_is_a_loop_over_them(name):
    """With as many in the batch as there are rows, or classes."""
    function = functions()[name]
    for batch in (3, 4, 7):
        logits = torch.randn(batch, 4, 7).double()
        gradient = torch.func.grad_and_value(lambda s: function(s).sum())
        slopes, values = torch.func.vmap(gradient)(logits)
        for row, slope, value in zip(logits, slopes, values, strict=True):
            expected = gradient(row)
            torch.testing.assert_close(slope, expected[0])
            torch.testing.assert_close(value, expected[1])


def test_vmap_over_temperatures():
    logits, teacher = torch.randn(2, 4, 7)
    temperatures = torch.linspace(1, 5, 4)

    def slope(temperature):
        return torch.func.grad(
            lambda s: kl_divergence(s, teacher, temperature).sum()
        )(logits)

    torch.testing.assert_close(
        torch.func.vmap(slope)(temperatures),
        torch.stack([slope(each) for each in temperatures]),
    )


@pytest.mark.parametrize('function', [kl_divergence, pearson])
def test_a_graph_of_real_tensors_sees_the_arithmetic(function):
    logits, teacher = torch.randn(2, 2, 5)
    graph = make_fx(lambda s, t: function(s, t))(
        torch.randn(2, 5).requires_grad_(), torch.randn(2, 5)
    )
    expected = function(logits, teacher)
    torch.testing.assert_close(graph(logits, teacher), expected)


@pytest.mark.parametrize('function', [kl_divergence, pearson])
def test_a_teacher_of_another_shape_or_type(function):
    logits = torch.randn(4, 7).double()
    for teacher in (torch.randn(7).double(), torch.randn(4, 7)):
        without = function(logits, teacher)
        leaf = logits.clone().requires_grad_()
        value = function(leaf, teacher)
        assert value.dtype == torch.float64
        torch.testing.assert_close(value.detach(), without)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        whole = logits.clone().requires_grad_()
        wide = function(whole, teacher.double().expand(4, 7))
        (expected,) = torch.autograd.grad(wide.sum(), whole)
        torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize(
    'temperature', [1.0, 1e3, 1e4], ids=lambda value: f'T={value:g}'
)
def test_the_value_does_not_depend_on_a_gradient(temperature):
    logits, teacher = torch.randn(2, 4, 100)
    without = kl_divergence(logits, teacher, temperature)
    value = kl_divergence(logits.requires_grad_(), teacher, temperature)
    assert torch.equal(value.detach(), without)
    exact = kl_divergence(
        logits.detach().double(), teacher.double(), temperature
    )
    torch.testing.assert_close(without, exact.float(), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize('low', [-150.0, -800.0, -torch.inf])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_what_the_teacher_as_good_as_rules_out(low, dtype):
    """A student at -inf there: far away, or nothing, but a number."""
    teacher = torch.tensor([[0.0, low]], dtype=dtype)
    logits = torch.tensor([[0.0, -torch.inf]], dtype=dtype)
    known = kl_divergence(logits.clone().requires_grad_(), teacher)
    far = low == -150
    assert known.item() == (torch.inf if far else 0)
    assert kl_divergence(logits, teacher).item() == known.item()


def test_without_a_gradient_nothing_is_kept():
    logits = torch.randn(2, 3)
    value = with_slopes(
        divergence._divergence,
        divergence._divergence_and_slopes,
        logits,
        logits,
        1.0,
    )
    assert value.grad_fn is None
    assert not value.any()


def test_a_teacher_of_inference_mode_teaches():
    with torch.inference_mode():
        teacher = torch.randn(4, 7)
    copied = teacher.clone()
    for function in (kl_divergence, pearson):
        slopes = []
        for other in (teacher, copied):
            leaf = student().detach().float().requires_grad_()
            function(leaf, other).sum().backward()
            slopes.append(leaf.grad)
        assert torch.equal(*slopes)
