"""VID: the teacher's map as a draw from what the student's predicts."""

import math

import pytest
import torch
from torch import nn

from mmrkkd.losses import VIDLoss
from mmrkkd.losses.feature import FeaturePair


def made(student, teacher, **options):
    loss = VIDLoss('a', **options)
    loss.connect([(1, *student.shape[1:])], [(1, *teacher.shape[1:])])
    return loss


def test_golden_value():
    student = torch.tensor([[[[1.0, 3.0]]]])
    teacher = torch.tensor([[[[2.0, 0.0]]]])
    loss = made(student, teacher, loss_weight=2.0, variance=4.0)
    loss.regressors[0] = nn.Identity()
    term = loss(FeaturePair([student], [teacher]))['loss_vid']
    # Errors 1 and 9 over the variance 4, and ln 4, halved.
    expected = (1 / 4 + 9 / 4) / 2 / 2 + math.log(4) / 2
    assert term.item() == pytest.approx(2 * expected, rel=1e-5)


def test_three_layers_of_the_teachers_channels_from_variance_5():
    loss = made(torch.ones(1, 3, 4, 4), torch.ones(1, 5, 4, 4))
    weights = [p.shape[:2] for p in loss.regressors[0].parameters()]
    assert weights == [(5, 3), (5, 5), (5, 5)]
    variance = torch.nn.functional.softplus(loss.scales[0]) + 1e-5
    torch.testing.assert_close(variance, torch.full((5, 1, 1), 5.0))


@pytest.mark.parametrize('mends', [True, False])
def test_variances_are_learned_unless_the_slip_is_kept(mends):
    student, teacher = torch.randn(2, 1, 3, 4, 4).unbind()
    loss = made(student, teacher, mend_slips=mends)
    loss(FeaturePair([student], [teacher]))['loss_vid'].backward()
    assert (loss.scales[0].grad is not None) == mends
    assert loss.regressors[0][0].weight.grad is not None


def test_best_variance_is_the_mean_square_error():
    student, teacher = torch.randn(2, 4, 1, 5, 5).unbind()
    loss = made(student, teacher)
    loss.regressors[0] = nn.Identity()
    error = (student - teacher).square().mean()
    with torch.no_grad():
        loss.scales[0].copy_(torch.log(torch.expm1(error - 1e-5)))
    loss(FeaturePair([student], [teacher]))['loss_vid'].backward()
    assert loss.scales[0].grad.abs().max() < 1e-6


def test_the_finer_map_is_averaged():
    student, teacher = torch.randn(1, 2, 8, 8), torch.randn(1, 2, 4, 4)
    loss = made(student, teacher)
    loss.regressors[0] = nn.Identity()
    small = nn.functional.avg_pool2d(student, 2)
    wanted = made(small, teacher)
    wanted.regressors[0] = nn.Identity()
    torch.testing.assert_close(
        loss(FeaturePair([student], [teacher])),
        wanted(FeaturePair([small], [teacher])),
    )


@pytest.mark.parametrize('variance', [1e-3, 5.0, 100.0, 1000.0])
def test_variances_start_where_they_are_told_to(variance):
    loss = VIDLoss('a', variance=variance)
    loss.connect([(1, 2, 4, 4)], [(1, 3, 4, 4)])
    found = torch.nn.functional.softplus(loss.scales[0]) + 1e-5
    torch.testing.assert_close(found, torch.full((3, 1, 1), variance))


def test_variance_must_leave_room():
    with pytest.raises(ValueError, match='variance must be > 1e-05'):
        VIDLoss('a', variance=1e-6)
