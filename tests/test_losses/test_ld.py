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


def test_crosskd_adds_up_its_17_distances():
    student, teacher = torch.randn(2, 6, 17).double()
    target = teacher.softmax(1)
    apart = teacher.log_softmax(1) - student.log_softmax(1)
    expected = 4.0 * (target * apart).sum(1).mean()
    loss = LDLoss(temperature=1.0, loss_weight=68.0)
    value = loss(student, teacher)['loss_ld']
    torch.testing.assert_close(value, expected)


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


@pytest.mark.parametrize('stated', [False, True])
def test_the_sides_of_few_cells_are_picked_out(stated, monkeypatch):
    """At objects, which it applies at whether its config says so or not."""
    loss, rows = LDLoss(), []
    if stated:
        loss.place(locations='foreground')
    per_sample = LDLoss.per_sample

    def noted(self, student, teacher, labels):
        rows.append(len(student))
        return per_sample(self, student, teacher, labels)

    monkeypatch.setattr(LDLoss, 'per_sample', noted)
    bins = torch.randn(2, 6, 4, 5)
    weight = torch.tensor([0.0, 1, 0, 0, 1, 0])
    terms = loss.located(lambda _: (None, None, None, weight, None), bins)
    assert rows == [2 * 4]
    monkeypatch.undo()
    kept = bins[:, weight > 0].flatten(1, 2)
    torch.testing.assert_close(terms, LDLoss()(*kept))


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
