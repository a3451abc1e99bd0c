"""Standardised distillation against arithmetic."""

import math

import pytest
import torch
from torch import nn

from mmrkkd.losses import (
    CTKDLoss,
    DKDLoss,
    KDLoss,
    LSKDLoss,
    MLKDLoss,
    Progress,
    RankKDLoss,
    set_progress,
)


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        3 * torch.randn(2, 7, 9, generator=generator).double()
    ).unbind(0)
    return student.requires_grad_(), teacher


def standardized(logits):
    """By the definition, row by row, divisor C - 1."""
    rows = []
    for row in logits:
        mean = row.sum() / len(row)
        variance = ((row - mean) ** 2).sum() / (len(row) - 1)
        rows.append((row - mean) / (variance.sqrt() + 1e-7))
    return torch.stack(rows)


def test_three_classes_by_hand():
    # (0, 2, 4) and (12, 11, 10) have z_hat (-1, 0, 1) and (1, 0, -1), so
    # KL = sum p_t (z_hat_t - z_hat_s) = 2 p_t(0) - 2 p_t(2): one partition
    student = torch.tensor([[0.0, 2.0, 4.0]]).double()
    teacher = torch.tensor([[12.0, 11.0, 10.0]]).double()
    kd = KDLoss(temperature=1.0, loss_weight=3.0)
    terms = LSKDLoss(kd=kd)(student, teacher)
    assert list(terms) == ['loss_kd']
    e = math.e
    expected = 3 * 2 * (e - 1 / e) / (e + 1 + 1 / e)
    assert terms['loss_kd'].item() == pytest.approx(expected, 1e-6)


def test_default_is_temperature_2_and_weight_9(logits):
    student, teacher = (standardized(value) / 2 for value in logits)
    p_t = teacher.softmax(-1)
    kl = (p_t * (p_t.log() - student.log_softmax(-1))).sum() / 7
    torch.testing.assert_close(LSKDLoss()(*logits)['loss_kd'], 9 * 4 * kl)


def test_gradient_flows_through_mean_and_deviation(logits):
    student, teacher = logits
    kd = KDLoss(temperature=2.0, loss_weight=9.0)
    expected = kd(standardized(student), standardized(teacher))['loss_kd']
    loss = LSKDLoss()(student, teacher)['loss_kd']
    torch.testing.assert_close(
        *(torch.autograd.grad(value, student)[0] for value in (loss, expected))
    )


def test_shift_and_scale_of_the_logits_do_not_matter(logits):
    student, teacher = (value.detach() for value in logits)
    expected = LSKDLoss()(student, teacher)
    shift = torch.linspace(-9, 9, 7).double()[:, None]
    scale = torch.logspace(-1, 2, 7).double()[:, None]
    for changed in (
        (scale * student + shift, teacher),
        (student, scale * teacher + shift),
    ):
        # eps is 1e-7 of a deviation of order 1.
        torch.testing.assert_close(
            LSKDLoss()(*changed), expected, rtol=1e-5, atol=0
        )


def test_gradient_asks_for_neither_shift_nor_scale(logits):
    student, teacher = logits
    LSKDLoss(eps=1e-12)(student, teacher)['loss_kd'].backward()
    zero = torch.zeros(7).double()
    torch.testing.assert_close(student.grad.sum(-1), zero)
    torch.testing.assert_close((student.grad * student).sum(-1), zero)


def test_a_student_that_is_the_scaled_teacher_has_loss_0(logits):
    teacher = logits[1]
    value = LSKDLoss()(0.01 * teacher - 5, teacher)['loss_kd']
    assert value.item() == pytest.approx(0, abs=1e-8)


def test_eps_is_added_to_the_deviation():
    # (-1, 0, 1) has deviation 1: eps = 1 halves it
    student = torch.tensor([[-1.0, 0.0, 1.0]]).double()
    kd = KDLoss(temperature=1.0)
    torch.testing.assert_close(
        LSKDLoss(kd=kd, eps=1.0)(student, -student),
        kd(student / 2, -student / 2),
    )


def test_lambda_is_the_weight_of_the_wrapped_loss(logits):
    one, twelve = (
        LSKDLoss(kd=dict(type='KDLoss', temperature=4.0, loss_weight=weight))
        for weight in (1.0, 12.0)
    )
    torch.testing.assert_close(
        twelve(*logits)['loss_kd'], 12 * one(*logits)['loss_kd']
    )


def test_labels_reach_the_wrapped_loss(logits):
    loss = LSKDLoss(kd=dict(type='DKDLoss'))
    assert loss.needs_labels
    with pytest.raises(ValueError, match='LSKDLoss needs labels, got None'):
        loss(*logits)
    labels = torch.arange(7)
    expected = DKDLoss()(*(standardized(value) for value in logits), labels)
    torch.testing.assert_close(loss(*logits, labels), expected)


def test_a_learned_temperature_can_be_wrapped(logits):
    loss = LSKDLoss(kd=CTKDLoss(ramp=1.0))
    assert list(loss.state_dict()) == ['kd.theta']
    terms = loss(*logits)
    plain = CTKDLoss(ramp=1.0)
    expected = plain(*(standardized(value) for value in logits))
    torch.testing.assert_close(terms, expected)
    terms['loss_ctkd'].backward()
    expected['loss_ctkd'].backward()
    torch.testing.assert_close(loss.kd.theta.grad, plain.theta.grad)


def test_views_of_the_wrapped_loss_are_standardised_one_by_one():
    student, teacher = torch.randn(2, 2, 5, 6).double().unbind(0)
    loss = LSKDLoss(kd=MLKDLoss())
    assert loss.views == 2
    expected = MLKDLoss()(
        *(
            torch.stack([standardized(view) for view in value])
            for value in (student, teacher)
        )
    )
    torch.testing.assert_close(loss(student, teacher), expected)


@pytest.mark.parametrize('name', ['KDLoss', 'DKDLoss', 'CTKDLoss'])
def test_ranking_can_be_put_on_top(logits, name):
    labels = torch.arange(7)
    inner = dict(type='LSKDLoss', kd=dict(type=name))
    weights = dict(kd_weight=0.5, rank_weight=0.25, min_std=0)
    terms = RankKDLoss(kd=inner, **weights)(*logits, labels)
    # Ranking standardises already: on top of it nothing changes.
    expected = RankKDLoss(kd=dict(type=name), **weights)(
        *(standardized(value) for value in logits), labels
    )
    torch.testing.assert_close(terms, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    'kd',
    [
        dict(type='RankKDLoss'),
        dict(type='KendallLoss'),
        dict(type='LSKDLoss'),
        dict(type='LRALoss', standardize=True),
        dict(type='MLKDLoss', standardize=True),
    ],
)
def test_standardising_twice_is_refused(kd):
    name = kd['type']
    name = 'KendallLoss' if name == 'RankKDLoss' else name
    with pytest.raises(
        ValueError, match=f'kd holds {name}, which standardises .* itself'
    ):
        LSKDLoss(kd=kd)


def test_the_right_nesting_is_named():
    with pytest.raises(
        ValueError, match=r"RankKDLoss\(kd=dict\(type='LSKDLoss', ...\)\)"
    ):
        LSKDLoss(kd=dict(type='RankKDLoss'))


def test_a_ranking_that_does_not_standardise_can_be_wrapped(logits):
    loss = LSKDLoss(kd=dict(type='RankKDLoss', normalize=False))
    terms = loss(*logits)
    torch.testing.assert_close(
        terms['loss_rank'], RankKDLoss(min_std=0)(*logits)['loss_rank']
    )


def test_schedules_inside_follow_the_run(logits):
    loss = LSKDLoss(kd=KDLoss(loss_weight=dict(type='linear', end=4)))
    first = loss(*logits)['loss_kd']
    set_progress(loss, Progress(epoch=3))
    torch.testing.assert_close(loss(*logits)['loss_kd'], 3 * first)


def test_errors():
    with pytest.raises(ValueError, match='eps must be .* > 0, got 0'):
        LSKDLoss(eps=0)
    with pytest.raises(TypeError, match='must be a LogitLoss .* got MSELoss'):
        LSKDLoss(kd=nn.MSELoss())
