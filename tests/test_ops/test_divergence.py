"""KL divergence at the ends of what logits may be."""

import math

import pytest
import torch

from mmrkkd.ops import kl_divergence

INF = math.inf


@pytest.mark.parametrize('temperature', [1.0, 4.0, torch.tensor(4.0).double()])
def test_a_class_ruled_out_by_the_teacher_adds_nothing(temperature):
    # p_t = (1/2, 1/2, 0), p_s = (1/4, 1/4, 1/2): log 2
    student = torch.tensor([0.0, 0.0, math.log(2) * float(temperature)])
    student = student.double().requires_grad_()
    teacher = torch.tensor([1.0, 1.0, -INF]).double()
    divergence = kl_divergence(student, teacher, temperature)
    torch.testing.assert_close(divergence.item(), math.log(2))
    divergence.backward()
    # (p_s - p_t) / T
    expected = torch.tensor([-0.25, -0.25, 0.5]).double() / temperature
    torch.testing.assert_close(student.grad, expected)


def test_a_class_ruled_out_by_both_adds_nothing():
    student = torch.tensor([0.0, math.log(3), -INF]).double().requires_grad_()
    teacher = torch.tensor([0.0, 0.0, -INF]).double()
    divergence = kl_divergence(student, teacher)
    # 1/2 log(1/2 / 1/4) + 1/2 log(1/2 / 3/4)
    torch.testing.assert_close(divergence.item(), math.log(4 / 3) / 2)
    divergence.backward()
    expected = torch.tensor([-0.25, 0.25, 0.0]).double()
    torch.testing.assert_close(student.grad, expected)


def test_a_student_may_not_rule_out_what_the_teacher_does_not():
    student = torch.tensor([0.0, 0.0, -INF])
    assert kl_divergence(student, torch.zeros(3)) == INF


def test_a_learned_temperature_has_its_gradient_beside_a_ruled_out_class():
    student = torch.randn(4, 6).double()
    teacher = torch.randn(4, 6).double()
    teacher[1, 2] = student[1, 2] = teacher[3, 0] = -INF
    temperature = torch.tensor(2.0).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda value: kl_divergence(student, teacher, value), temperature
    )


@pytest.mark.parametrize('side', [0, 1])
def test_nan_stays_nan(side):
    logits = list(torch.randn(2, 2, 4).unbind(0))
    logits[side][0, 1] = torch.nan
    divergence = kl_divergence(*logits)
    assert divergence[0].isnan() and divergence[1].isfinite()
