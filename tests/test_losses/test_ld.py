"""LDLoss: distributions of the sides of boxes."""

import math

import pytest
import torch

from mmrkkd.losses import LDLoss
from mmrkkd.losses.placement import Placement


def test_two_distances_by_hand():
    # Teacher 1/2, 1/2; student 1/4, 3/4: KL = ln(4/3) / 2, mean of two.
    teacher = torch.zeros(1, 2, dtype=torch.float64)
    student = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
    loss = LDLoss(temperature=1.0, loss_weight=4.0)
    expected = 4.0 * (math.log(4 / 3) / 2) / 2
    value = loss(student, teacher)['loss_ld'].item()
    assert value == pytest.approx(expected, rel=1e-12)
    # T = 2 halves the logits, and its square multiplies.
    warm = LDLoss(temperature=2.0, loss_weight=4.0)
    value = warm(2 * student, 2 * teacher)['loss_ld'].item()
    assert value == pytest.approx(4 * expected, rel=1e-12)


def placed(bins, weight, total=None):
    """The loss of four sides of two cells."""
    seen = []

    def select(placement):
        seen.append(placement)
        return None, None, None, weight, total

    value = LDLoss(temperature=1.0).located(select, bins)['loss_ld']
    return value, seen[0]


def test_cells_and_sides_are_averaged():
    generator = torch.Generator().manual_seed(0)
    bins = torch.randn(2, 2, 4, 5, generator=generator).double()
    sides = LDLoss(temperature=1.0)
    each = [
        sum(sides(*bins[:, cell, side])['loss_ld'] for side in range(4)) / 4
        for cell in range(2)
    ]
    value, _ = placed(bins, torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(value, (each[0] + 3 * each[1]) / 4)
    value, _ = placed(bins, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(value, each[0])
    # A number of positives takes the place of the sum of the weights.
    value, _ = placed(bins, None, torch.tensor(5.0))
    torch.testing.assert_close(value, (each[0] + each[1]) / 5)


def test_it_applies_at_objects_unless_told():
    bins = torch.zeros(2, 2, 4, 5)
    _, placement = placed(bins, None)
    assert placement == Placement('foreground', normalizer='weight')
    loss, seen = LDLoss(), []
    loss.place(locations='confidence')

    def select(placement):
        seen.append(placement.locations)
        return None, None, None, None, None

    loss.located(select, bins)
    assert seen == ['confidence']
