"""CWD: where in a map each channel is active."""

import math

import pytest
import torch

from mmrkkd.losses import CWDLoss
from mmrkkd.losses.feature import FeaturePair


def term(student, teacher, weight=1.0, **options):
    loss = CWDLoss('a', loss_weight=weight, **options)
    loss.connect([(1, *student.shape[1:])], [(1, *teacher.shape[1:])])
    return loss(FeaturePair([student], [teacher]))['loss_cwd'].item()


def square(*values):
    return torch.tensor(values).view(1, 1, 2, 2)


ZEROS, TEACHER = torch.zeros(1, 1, 2, 2), square(0, 0, 0, math.log(5))


def test_golden_value():
    # p = (1, 1, 1, 5) / 8 against q = 1/4.
    expected = 3 / 8 * math.log(1 / 2) + 5 / 8 * math.log(5 / 2)
    assert expected == pytest.approx(0.3127515, abs=1e-7)
    assert term(ZEROS, TEACHER) == pytest.approx(expected)
    assert term(ZEROS, TEACHER, 10.0) == pytest.approx(10 * expected)
    # The other way round in the last two cells: (5 - 1) / 8 ln 5.
    student = square(0, 0, math.log(5), 0)
    assert term(student, TEACHER) == pytest.approx(math.log(5) / 2)


def test_golden_value_with_temperature():
    # p = (1, 1, 1, sqrt 5) / (3 + sqrt 5), and T^2 = 4.
    root = math.sqrt(5)
    total = 3 + root
    kl = 3 / total * math.log(4 / total)
    kl += root / total * math.log(4 * root / total)
    assert 4 * kl == pytest.approx(0.2975182, abs=1e-7)
    assert term(ZEROS, TEACHER, temperature=2.0) == pytest.approx(4 * kl)


def test_mean_over_images_and_channels():
    value = term(ZEROS, TEACHER)
    student = ZEROS.expand(3, 4, 2, 2)
    teacher = torch.zeros(3, 4, 2, 2)
    teacher[1, 2] = TEACHER[0, 0]
    assert term(student, teacher) == pytest.approx(value / 12)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match='temperature must be a finite'):
        CWDLoss('a', temperature=0)
