"""The divergence of yes and no against arithmetic."""

import math

import pytest
import torch

from mmrkkd.losses import BinaryKLLoss, KDLoss
from mmrkkd.ops import binary_kl_divergence

INF = math.inf


def test_one_score_by_hand():
    # p = 1/2, q = 3/4: (log 2/3 + log 2) / 2 = log(4/3) / 2
    student = torch.tensor([[math.log(3)]]).double()
    teacher = torch.zeros(1, 1).double()
    terms = BinaryKLLoss()(student, teacher)
    assert list(terms) == ['loss_binary_kl']
    assert terms['loss_binary_kl'].item() == pytest.approx(math.log(4 / 3) / 2)
    # At T = 2 the logit log 9 is what log 3 is at T = 1; times T^2.
    loss = BinaryKLLoss(temperature=2.0, loss_weight=0.5)(2 * student, teacher)
    assert loss['loss_binary_kl'].item() == pytest.approx(math.log(4 / 3))


def test_is_the_kl_of_two_classes_with_one_logit_at_0():
    student, teacher = torch.randn(2, 9, 1).double()
    pair = [
        torch.cat([logits, torch.zeros_like(logits)], 1)
        for logits in (student, teacher)
    ]
    torch.testing.assert_close(
        BinaryKLLoss(temperature=3.0)(student, teacher)['loss_binary_kl'],
        KDLoss(temperature=3.0)(*pair)['loss_kd'],
    )


def test_gradient_is_t_times_difference_of_probabilities():
    student = torch.randn(1, 5).double().requires_grad_()
    teacher = torch.randn(1, 5).double()
    BinaryKLLoss(temperature=4.0)(student, teacher)[
        'loss_binary_kl'
    ].backward()
    expected = 4 * ((student / 4).sigmoid() - (teacher / 4).sigmoid())
    torch.testing.assert_close(student.grad, expected.detach())


def test_a_class_ruled_out_by_both_adds_nothing():
    student = torch.tensor([0.0, -INF]).double().requires_grad_()
    teacher = torch.tensor([0.0, -INF]).double()
    divergence = binary_kl_divergence(student, teacher)
    divergence.backward()
    assert divergence == 0
    assert (student.grad == 0).all()


def test_a_student_may_not_rule_out_what_the_teacher_does_not():
    student, teacher = torch.tensor([[-INF], [0.0]])
    assert binary_kl_divergence(student, teacher) == INF


@pytest.mark.parametrize('temperature', [0, -1, None])
def test_a_wrong_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match='temperature must be .* > 0'):
        BinaryKLLoss(temperature=temperature)
