"""Quality focal distillation against arithmetic."""

import math

import pytest
import torch

from mmrkkd.losses import BinaryKDLoss


def logit(probability):
    return math.log(probability / (1 - probability))


def one(student, teacher, **options):
    """The loss of a single score, from probabilities."""
    terms = BinaryKDLoss(**options)(
        torch.tensor([[logit(student)]]).double(),
        torch.tensor([[logit(teacher)]]).double(),
    )
    assert list(terms) == ['loss_binary_kd']
    return terms['loss_binary_kd'].item()


def test_one_score_by_hand():
    # q = 3/4, p = 1/2: BCE = -(log 3/4 + log 1/4) / 2 = .8369882,
    # times |3/4 - 1/2|
    assert one(3 / 4, 1 / 2) == pytest.approx(0.2092471, abs=1e-7)


def test_beta_is_the_power_of_the_distance():
    entropy = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    assert one(3 / 4, 1 / 2, beta=2) == pytest.approx(entropy / 16)
    assert one(3 / 4, 1 / 2, beta=0) == pytest.approx(entropy)
    assert one(3 / 4, 1 / 2, loss_weight=3.0) == pytest.approx(3 * entropy / 4)


def test_models_that_agree_have_no_loss_and_no_gradient():
    logits = torch.randn(4, 6).double()
    student = logits.clone().requires_grad_()
    loss = BinaryKDLoss()(student, logits)['loss_binary_kd']
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


def test_the_gradient_goes_through_the_distance_too():
    # q = 3/4, p = 1/2: d|q - p|/dz = q (1 - q), dBCE/dz = q - p
    student = torch.tensor([[logit(3 / 4)]]).double().requires_grad_()
    teacher = torch.zeros(1, 1).double()
    BinaryKDLoss()(student, teacher)['loss_binary_kd'].backward()
    entropy = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    expected = 3 / 16 * entropy + 1 / 4 * 1 / 4
    assert student.grad.item() == pytest.approx(expected)


def test_sum_over_classes_and_samples_divided_by_the_positives():
    student, teacher = torch.randn(2, 30, 5).double()
    q, p = student.sigmoid(), teacher.sigmoid()
    entropy = -p * q.log() - (1 - p) * (1 - q).log()
    expected = ((q - p).abs() * entropy).sum()
    loss = BinaryKDLoss()(student, teacher, normalizer=7)['loss_binary_kd']
    torch.testing.assert_close(loss, expected / 7)
    mean = BinaryKDLoss()(student, teacher)['loss_binary_kd']
    torch.testing.assert_close(mean, expected / 30)


def test_weights_multiply_before_the_division():
    student, teacher = torch.randn(2, 3, 5).double()
    weight = torch.tensor([2.0, 0.0, 0.5])
    terms = [
        BinaryKDLoss()(student[i : i + 1], teacher[i : i + 1])
        for i in range(3)
    ]
    expected = sum(
        w * each['loss_binary_kd'] for w, each in zip(weight, terms)
    )
    loss = BinaryKDLoss()(student, teacher, None, weight, 4.0)
    torch.testing.assert_close(loss['loss_binary_kd'], expected / 4)


@pytest.mark.parametrize('beta', [-1, 0.5, math.nan, math.inf, True, '1'])
def test_a_wrong_beta_is_refused(beta):
    with pytest.raises(ValueError, match='beta must be 0 or .* >= 1'):
        BinaryKDLoss(beta=beta)
