"""Gradients that are written down against those that autograd finds."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

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


def test_vmap_is_the_batched_call():
    leaves, teacher = torch.randn(3, 4, 7), torch.randn(4, 7)
    by_vmap = torch.func.vmap(
        torch.func.grad(lambda s: kl_divergence(s, teacher).sum())
    )(leaves)
    whole = leaves.clone().requires_grad_()
    (batched,) = torch.autograd.grad(
        kl_divergence(whole, teacher.expand(3, 4, 7)).sum(), whole
    )
    torch.testing.assert_close(by_vmap, batched)


def test_without_a_gradient_the_equation_is_all():
    def fails(*args):
        raise AssertionError

    logits = torch.randn(2, 3)
    value = with_slopes(divergence._divergence, fails, logits, logits, 1.0)
    assert not value.any()
