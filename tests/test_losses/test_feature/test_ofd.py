"""OFD: maps before their activation, as far as the teacher's has a say."""

import math
from statistics import NormalDist

import pytest
import torch
from torch import nn

from mmrkkd.losses import OFDLoss
from mmrkkd.losses.feature import FeaturePair
from mmrkkd.losses.feature.ofd import margin

NORMAL = NormalDist()
TEACHER = torch.tensor([2.0, -0.5, -3.0, -3.0]).view(1, 1, 2, 2)
STUDENT = torch.tensor([1.0, 0.5, 0.0, -2.0]).view(1, 1, 2, 2)


def made(*pairs, margins=-1.0, **options):
    """With connectors that hand the student's maps on."""
    loss = OFDLoss([f'a{number}' for number in range(len(pairs))], **options)
    students, teachers = zip(*pairs)
    loss.connect([s.shape for s in students], [t.shape for t in teachers])
    loss.take_statistics([(torch.zeros(t.shape[1]),) * 2 for t in teachers])
    for number, connector in enumerate(loss.connectors):
        connector.channels = nn.Identity()
        getattr(loss, f'margin{number}').fill_(margins)
    return loss(FeaturePair(students, teachers))['loss_ofd'].item()


def test_golden_value():
    # t' = 2, -0.5, -1, -1. Errors 1 (t' > 0), 1 and 1 (s > t'), and none
    # where both are silent.
    value = made((STUDENT, TEACHER), loss_weight=1.0)
    assert value == pytest.approx(1 + 1 + 1 + 0)
    assert made((STUDENT, TEACHER)) == pytest.approx(3e-3)


def test_sum_over_cells_and_mean_over_images():
    twice = STUDENT.repeat(2, 1, 1, 1), TEACHER.repeat(2, 1, 1, 1)
    assert made(twice, loss_weight=1.0) == pytest.approx(3)


def test_a_layer_counts_half_of_the_next_deeper_one():
    pair = STUDENT, TEACHER
    value = made(pair, pair, pair, loss_weight=1.0)
    assert value == pytest.approx(3 / 4 + 3 / 2 + 3)


def test_equals_the_three_cases_of_the_paper():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    bounded = teacher.clamp_min(-0.7)
    total = 0.0
    for s, t in zip(student.flatten().tolist(), bounded.flatten().tolist()):
        if t <= 0 and s <= t:
            continue
        total += (s - t) ** 2
    value = made((student, teacher), margins=-0.7, loss_weight=1.0)
    assert value == pytest.approx(total / 2, rel=1e-6)


@pytest.mark.parametrize(
    ('mean', 'deviation'), [(0.0, 1.0), (0.7, 0.4), (-2.0, 0.5), (1.5, 0.5)]
)
def test_margin_is_the_mean_of_the_negative_values(mean, deviation):
    # The integral of x p(x) over x < 0, by a sum over many small steps.
    density = NormalDist(mean, deviation)
    step = deviation / 2000
    grid = [-step * (number + 0.5) for number in range(24000)]
    weights = [density.pdf(x) for x in grid]
    expected = sum(x * w for x, w in zip(grid, weights)) / sum(weights)
    value = margin(torch.tensor(mean), torch.tensor(deviation)).item()
    assert value == pytest.approx(expected, rel=1e-4)


def test_margin_of_a_channel_that_is_hardly_ever_negative():
    limit = -NORMAL.inv_cdf(1e-3)
    mean = torch.tensor([limit + 0.01, limit - 0.01])
    rare, some = margin(mean, torch.ones(2)).tolist()
    assert rare == -3
    # Just below it is the mean of the last thousandth.
    assert some == pytest.approx(limit - NORMAL.pdf(limit) / 1e-3, abs=0.03)
    assert margin(2 * mean, 2 * torch.ones(2))[0].item() == -6


def test_margin_without_spread():
    mean = torch.tensor([1.0, 0.0, -2.0])
    found = margin(mean, torch.zeros(3))
    assert found.tolist() == pytest.approx([0, 0, -2], abs=1e-6)


def test_silent_cells_pull_at_nothing():
    student = STUDENT.clone().requires_grad_()
    loss = OFDLoss('a')
    loss.connect([(1, 1, 2, 2)], [(1, 1, 2, 2)])
    loss.take_statistics([(torch.tensor([0.0]), torch.tensor([1.0]))])
    loss.connectors[0].channels = nn.Identity()
    # A half-normal's mean.
    least = -2 / math.sqrt(2 * math.pi)
    assert loss.margin0.item() == pytest.approx(least)
    loss(FeaturePair([student], [TEACHER]))['loss_ofd'].backward()
    assert student.grad.flatten().tolist() == pytest.approx(
        [2e-3 * (1 - 2), 2e-3 * (0.5 + 0.5), 2e-3 * (0 - least), 0]
    )


def test_connector_gives_the_teachers_channels():
    loss = OFDLoss('a')
    loss.connect([(1, 3, 4, 4)], [(1, 5, 8, 8)])
    conv, norm = loss.connectors[0].channels
    assert conv.weight.shape == (5, 3, 1, 1) and conv.bias is None
    assert isinstance(norm, nn.BatchNorm2d)


def test_margins_move_and_are_in_no_checkpoint():
    loss = OFDLoss('a')
    loss.connect([(1, 3, 4, 4)], [(1, 5, 4, 4)])
    loss.take_statistics([(torch.zeros(5), torch.ones(5))])
    assert loss.double().margin0.dtype == torch.float64
    assert not any('margin' in key for key in loss.state_dict())


def test_margins_are_wanted():
    loss = OFDLoss('a')
    loss.connect([(1, 1, 2, 2)], [(1, 1, 2, 2)])
    with pytest.raises(ValueError, match='margins for 0 layers, got 1: call'):
        loss(FeaturePair([STUDENT], [TEACHER]))
