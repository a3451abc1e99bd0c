"""NKD against arithmetic."""

import math

import pytest
import torch

from mmrkkd.losses import DKDLoss, NKDLoss, RankKDLoss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(
        2, 7, 12, generator=generator, dtype=torch.float64
    )
    return student, teacher, torch.randint(12, (7,), generator=generator)


def test_three_classes_by_hand():
    # T = 1, label 1. Student (1, 2, 1) / 4, teacher (3, 5, 1) / 9: the
    # others are (1/2, 1/2) and (3/4, 1/4), cross-entropy log 2.
    student = torch.tensor([[1.0, 2.0, 1.0]], dtype=torch.float64).log()
    teacher = torch.tensor([[3.0, 5.0, 1.0]], dtype=torch.float64).log()
    terms = NKDLoss()(student, teacher, torch.tensor([1]))
    assert list(terms) == ['loss_nkd_target', 'loss_nkd_non_target']
    torch.testing.assert_close(
        terms['loss_nkd_target'].item(), -5 / 9 * math.log(1 / 2)
    )
    torch.testing.assert_close(
        terms['loss_nkd_non_target'].item(), 1.5 * math.log(2)
    )


def test_temperature_is_for_the_others_only():
    # T = 2 and squared odds: the others are again (1/2, 1/2), (3/4, 1/4).
    student = torch.tensor([[1.0, 2.0, 1.0]], dtype=torch.float64).log()
    teacher = torch.tensor([[9.0, 5.0, 1.0]], dtype=torch.float64).log()
    loss = NKDLoss(2.0, non_target_weight=3.0, target_weight=0.5)
    terms = loss(student, teacher, torch.tensor([1]))
    torch.testing.assert_close(
        terms['loss_nkd_target'].item(), -0.5 * 5 / 15 * math.log(1 / 2)
    )
    torch.testing.assert_close(
        terms['loss_nkd_non_target'].item(), 3 * 2**2 * math.log(2)
    )


def test_others_have_the_gradient_of_dkd(batch):
    # Cross-entropy and KL differ by the teacher's entropy, a constant.
    gradients = []
    for loss in (NKDLoss(3.0, 2.0), DKDLoss(1.0, 2.0, temperature=3.0)):
        student = batch[0].clone().requires_grad_()
        terms = loss(student, *batch[1:])
        (value,) = (v for k, v in terms.items() if 'non_target' in k)
        value.backward()
        gradients.append(student.grad)
    torch.testing.assert_close(*gradients)


def test_target_gradient_is_the_task_losss_times_the_teachers_belief():
    # d(-p_t(y) log p_s(y)) / dz = p_t(y) (p_s - onehot)
    student = torch.randn(1, 5).double().requires_grad_()
    teacher = torch.randn(1, 5).double()
    terms = NKDLoss()(student, teacher, torch.tensor([2]))
    terms['loss_nkd_target'].backward()
    expected = student.detach().softmax(-1)
    expected[0, 2] -= 1
    torch.testing.assert_close(
        student.grad, teacher.softmax(-1)[0, 2] * expected
    )


def test_loss_weight_scales_both(batch):
    schedule = dict(type='linear', end=4)
    half = NKDLoss(loss_weight=schedule)(*batch)
    for name, value in NKDLoss()(*batch).items():
        torch.testing.assert_close(half[name], value / 4)


def test_ranking_is_added_to_it(batch):
    terms = RankKDLoss(kd=dict(type='NKDLoss'), kd_weight=0.5)(*batch)
    alone = NKDLoss(loss_weight=0.5)(*batch)
    assert set(terms) == {*alone, 'loss_rank'}
    for name, value in alone.items():
        torch.testing.assert_close(terms[name], value)


def test_labels_are_needed(batch):
    with pytest.raises(ValueError, match='NKDLoss needs labels, got None'):
        NKDLoss()(*batch[:2])


@pytest.mark.parametrize(
    'name,value',
    [
        ('temperature', 0),
        ('non_target_weight', -1),
        ('target_weight', -1),
        ('loss_weight', -1),
    ],
)
def test_errors(name, value):
    with pytest.raises(ValueError, match=f'^{name} must be .* got {value}'):
        NKDLoss(**{name: value})


def test_a_label_that_both_rule_out_adds_nothing():
    logits = torch.tensor([[-torch.inf, 1.0, 2.0]]).double()
    student = logits.clone().requires_grad_()
    terms = NKDLoss()(student, logits, torch.tensor([0]))
    sum(terms.values()).backward()
    assert terms['loss_nkd_target'] == 0
    assert terms['loss_nkd_non_target'] > 0
    assert student.grad.isfinite().all()
