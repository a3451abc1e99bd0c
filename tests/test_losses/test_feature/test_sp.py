"""SP: which images of a batch resemble each other."""

import math

import pytest
import torch

from mmrkkd.losses import SPLoss
from mmrkkd.losses.feature import FeaturePair


def term(student, teacher, weight=1.0):
    loss = SPLoss('a', loss_weight=weight)
    return loss(FeaturePair([student], [teacher]))['loss_sp'].item()


def test_golden_value():
    teacher = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    student = torch.eye(2)
    # Rows (1, 1) / sqrt 2 and (1, 2) / sqrt 5 against the identity:
    # (2 - sqrt 2) + (2 - 4 / sqrt 5), over 2^2.
    expected = (2 - math.sqrt(2) + 2 - 4 / math.sqrt(5)) / 4
    assert expected == pytest.approx(0.1992330, abs=1e-7)
    assert term(student, teacher) == pytest.approx(expected)
    assert term(student, teacher, 3000.0) == pytest.approx(3000 * expected)


def test_shapes_may_differ():
    student = torch.randn(3, 4, 5, 5)
    assert term(student, student.flatten(1)) == pytest.approx(0, abs=1e-12)
    assert term(student, torch.randn(3, 7)) > 0


def test_one_image_is_nothing():
    assert term(torch.randn(1, 4), torch.randn(1, 6)) < 1e-12
