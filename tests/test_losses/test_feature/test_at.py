"""AT: where a network looks."""

import pytest
import torch

from mmrkkd.losses import ATLoss
from mmrkkd.losses.feature import FeaturePair


def term(student, teacher, **options):
    loss = ATLoss('a', **options)
    loss.connect([(1, *student.shape[1:])], [(1, *teacher.shape[1:])])
    return loss(FeaturePair([student], [teacher]))['loss_at'].item()


def test_golden_value():
    # Energies (9 + 1) / 2 and 0, and 0 and (4 + 16) / 2.
    student = torch.tensor([[[[3.0, 0.0]], [[1.0, 0.0]]]])
    teacher = torch.tensor([[[[0.0, 2.0]], [[0.0, -4.0]]]])
    # A = (1, 0) and (0, 1): the mean of 1 and 1, times 1000.
    assert term(student, teacher) == pytest.approx(1000.0)
    # Energies 3, 4 over one channel with p = 1: A = (0.6, 0.8).
    student = torch.tensor([[[[3.0, -4.0]]]])
    value = term(student, teacher, power=1.0, loss_weight=2.0)
    assert value == pytest.approx(2 * (0.6**2 + 0.2**2) / 2)


def test_scale_does_not_matter():
    student, teacher = torch.randn(2, 2, 3, 4, 4).unbind()
    assert term(5 * student, teacher) == pytest.approx(
        term(student, teacher / 3), rel=1e-4
    )


def test_channels_may_differ_and_the_finer_map_is_averaged():
    coarse = torch.rand(2, 3, 4, 4)
    fine = coarse.repeat(1, 2, 1, 1).repeat_interleave(2, 2)
    fine = fine.repeat_interleave(2, 3)
    assert term(coarse, fine) == pytest.approx(0, abs=1e-9)
    assert term(fine, coarse) == pytest.approx(0, abs=1e-9)


def test_power_must_be_positive():
    with pytest.raises(ValueError, match='power must be a finite number > 0'):
        ATLoss('a', power=0)
    with pytest.raises(ValueError, match='power must be >= 1, got 0.5'):
        ATLoss('a', power=0.5)


@pytest.mark.parametrize('power', [1, 1.5, 2])
def test_features_of_zero_have_finite_gradients(power):
    student = torch.randn(2, 3, 4, 4).relu()
    student[0] = 0.0
    student.requires_grad_()
    loss = ATLoss('a', power=power)
    loss.connect([(1, 3, 4, 4)], [(1, 3, 4, 4)])
    pair = FeaturePair([student], [torch.rand(2, 3, 4, 4)])
    loss(pair)['loss_at'].backward()
    assert not student.grad[0].any()
    assert student.grad.isfinite().all() and student.grad[1].any()
