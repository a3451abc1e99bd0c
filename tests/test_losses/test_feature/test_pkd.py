"""PKD: maps compared up to the scale and shift of their channels."""

import math

import pytest
import torch

from mmrkkd.losses import PKDLoss
from mmrkkd.losses.feature import FeaturePair


def term(student, teacher, weight=1.0):
    loss = PKDLoss('a', loss_weight=weight)
    loss.connect([(1, *student.shape[1:])], [(1, *teacher.shape[1:])])
    return loss(FeaturePair([student], [teacher]))['loss_pkd'].item()


def square(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 2, 2)


def test_golden_value():
    student, teacher = square(10, 20, 30, 60), square(1, 2, 3, 4)
    # Pearson's r = 80 / sqrt(5 * 1400), and (n - 1) / n (1 - r) of n = 4.
    expected = 3 / 4 * (1 - 80 / math.sqrt(5 * 1400))
    assert expected == pytest.approx(0.0328628344, abs=1e-10)
    # The epsilon takes 3e-8 away.
    assert term(student, teacher) == pytest.approx(0.0328628074, abs=1e-10)
    assert term(student, teacher, 6.0) == pytest.approx(6 * 0.0328628074)


def test_a_batch_is_one_population():
    student, teacher = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64).unbind()
    pairs = zip(
        student.transpose(0, 1).flatten(1), teacher.transpose(0, 1).flatten(1)
    )
    r = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]
    n = 3 * 5 * 6
    expected = (n - 1) / n * (1 - sum(r) / 4)
    assert term(student, teacher) == pytest.approx(expected.item(), rel=1e-5)


def test_scale_and_shift_do_not_matter():
    student = torch.randn(2, 3, 4, 4)
    assert term(7 * student - 3, student) < 1e-10


@pytest.mark.parametrize('value', [0.0, 0.1, 1.3, 100.3, -1234.567])
def test_constant_channels_have_nothing_to_compare(value):
    student = torch.full((2, 1, 3, 3), value, requires_grad=True)
    loss = PKDLoss('a', loss_weight=1.0)
    loss.connect([(1, 1, 3, 3)], [(1, 1, 3, 3)])
    value = loss(FeaturePair([student], [torch.randn(2, 1, 3, 3)]))['loss_pkd']
    value.backward()
    # z_s = 0, and the teacher's mean square is (n - 1) / n.
    assert value.item() == pytest.approx(17 / 18 / 2, rel=1e-4)
    assert not student.grad.any()
