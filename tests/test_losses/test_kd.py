"""KL distillation against arithmetic."""

import math

import pytest
import torch

from mmrkkd.losses import KDLoss


def kl(teacher, student):
    return sum(p * math.log(p / q) for p, q in zip(teacher, student))


def test_two_classes_by_hand():
    # softmax([log 3, 0]) = (3/4, 1/4), softmax([0, 0]) = (1/2, 1/2)
    student = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)
    terms = KDLoss(temperature=1.0)(student, teacher)
    assert list(terms) == ['loss_kd']
    expected = kl((3 / 4, 1 / 4), (1 / 2, 1 / 2))
    torch.testing.assert_close(terms['loss_kd'].item(), expected)


def test_temperature_divides_the_logits_and_multiplies_by_its_square():
    # log 9 / 2 = log 3
    student = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[math.log(9), 0.0]], dtype=torch.float64)
    loss = KDLoss(temperature=2.0, loss_weight=0.5)(student, teacher)
    expected = 0.5 * 4 * kl((3 / 4, 1 / 4), (1 / 2, 1 / 2))
    torch.testing.assert_close(loss['loss_kd'].item(), expected)


def test_sum_over_classes_mean_over_samples():
    student = torch.randn(6, 81).double()
    teacher = torch.randn(6, 81).double()
    p, q = teacher.softmax(-1), student.softmax(-1)
    expected = (p * (p.log() - q.log())).sum() / 6
    loss = KDLoss(temperature=1.0)(student, teacher)['loss_kd']
    torch.testing.assert_close(loss, expected)


def test_gradient_is_t_times_difference_of_probabilities():
    # d(T^2 KL)/dz_s = T (p_s - p_t)
    student = torch.randn(1, 5).double().requires_grad_()
    teacher = torch.randn(1, 5).double()
    KDLoss(temperature=4.0)(student, teacher)['loss_kd'].backward()
    expected = 4 * (
        (student.detach() / 4).softmax(-1) - (teacher / 4).softmax(-1)
    )
    torch.testing.assert_close(student.grad, expected)


@pytest.mark.parametrize(
    'change,message',
    [
        (
            dict(temperature=0),
            'temperature must be a finite number > 0, got 0',
        ),
        (dict(temperature='4'), "temperature .* got '4'"),
        (
            dict(loss_weight=-1),
            'loss_weight must be a finite number >= 0, got -1',
        ),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        KDLoss(**change)
