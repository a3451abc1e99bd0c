"""ICKD: how the channels of a map go together."""

import math

import pytest
import torch
from torch import nn

from mmrkkd.losses import ICKDLoss
from mmrkkd.losses.feature import FeaturePair


def term(student, teacher, **options):
    """With connectors that hand the student's map on."""
    loss = ICKDLoss('a', **options)
    loss.connect([(1, *student.shape[1:])], [(1, *teacher.shape[1:])])
    loss.connectors[0] = nn.Identity()
    return loss(FeaturePair([student], [teacher]))['loss_ickd'].item()


def test_golden_value():
    teacher = torch.tensor([[[[1.0, 0.0]], [[1.0, 1.0]]]])
    student = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]])
    # Rows (1, 1) / sqrt 2 and (1, 2) / sqrt 5 against the identity.
    total = 2 - math.sqrt(2) + 2 - 4 / math.sqrt(5)
    assert total / 2 == pytest.approx(0.3984660, abs=1e-7)
    assert term(student, teacher, loss_weight=1.0) == pytest.approx(total / 2)
    assert term(student, teacher) == pytest.approx(2.5 * total / 2)
    value = term(student, teacher, loss_weight=1.0, by_entries=True)
    assert value == pytest.approx(total / 4)


def test_sizes_may_differ():
    teacher = torch.randn(2, 3, 4, 4)
    student = teacher.repeat(1, 1, 2, 1)
    assert term(student, teacher) == pytest.approx(0, abs=1e-10)


def test_connector_gives_the_teachers_channels():
    loss = ICKDLoss('a')
    loss.connect([(1, 3, 4, 4)], [(1, 5, 8, 8)])
    conv, norm = loss.connectors[0]
    assert conv.weight.shape == (5, 3, 1, 1)
    assert conv.bias is None
    assert isinstance(norm, nn.BatchNorm2d)
    # One side has one connector: the teacher's map is not learned.
    assert len(list(loss.parameters())) == 3
