"""Vectors of norm 1, and what has no direction."""

import pytest
import torch
from torch.nn.functional import normalize

from mmrkkd.losses import ICKDLoss, SPLoss
from mmrkkd.losses.feature import FeaturePair
from mmrkkd.losses.feature.unit import unit


@pytest.mark.parametrize('dim', [1, -1, (1, 2)])
def test_vectors_with_a_length_are_those_of_torch(dim):
    values = torch.randn(4, 5, 6, requires_grad=True)
    pull = torch.randn(4, 5, 6)
    found, expected = unit(values, dim), normalize(values, dim=dim)
    assert torch.equal(found, expected)
    (one,) = torch.autograd.grad(found, values, pull)
    (other,) = torch.autograd.grad(expected, values, pull)
    assert torch.equal(one, other)


def test_what_has_no_length_gives_zeros_and_no_gradient():
    values = torch.tensor([[0.0, 0], [1e-13, 0], [0.3, 0.4], [3, 4]])
    values.requires_grad_()
    found = unit(values, least=torch.tensor([[0.0], [0], [0.6], [0]]))
    expected = torch.tensor([[0.0, 0], [0, 0], [0, 0], [0.6, 0.8]])
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, values, torch.randn(4, 2))
    assert not gradient[:3].any() and gradient[3].any()


def test_nan_stays():
    assert unit(torch.tensor([[torch.nan, 1.0]])).isnan().all()


def test_an_image_without_features_pulls_at_nothing():
    student = torch.randn(4, 8)
    student[1] = 0.0
    student.requires_grad_()
    loss = SPLoss('a', loss_weight=1.0)
    loss(FeaturePair([student], [torch.randn(4, 8)]))['loss_sp'].backward()
    assert student.grad[1].norm() < 10 * student.grad[0].norm()
    assert student.grad[0].any()


def test_a_channel_without_features_pulls_at_no_more_than_others():
    loss = ICKDLoss('a', loss_weight=1.0)
    loss.connect([(1, 3, 4, 4)], [(1, 3, 4, 4)])
    weight = loss.connectors[0][0].weight
    weight.data[0] = 0.0
    student = torch.randn(2, 3, 4, 4, requires_grad=True)
    pair = FeaturePair([student], [torch.randn(2, 3, 4, 4)])
    loss(pair)['loss_ickd'].backward()
    # BatchNorm multiplies that of a constant by eps^-1/2 = 316.
    assert weight.grad[0].norm() < 1e4 * weight.grad[1:].norm()
