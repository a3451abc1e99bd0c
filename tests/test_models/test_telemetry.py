"""What is logged about agreement."""

import pytest
import torch
from scipy.stats import kendalltau

from mmrkkd.distillers.telemetry import agreement, rows_looked_at


def test_values():
    student, teacher = torch.randn(40, 7), torch.randn(40, 7)
    values = agreement(student, teacher)
    taus = [
        kendalltau(s.numpy(), t.numpy()).statistic
        for s, t in zip(student, teacher)
    ]
    torch.testing.assert_close(
        values['kd/tau'].item(), sum(taus) / 40, rtol=1e-5, atol=1e-7
    )
    same = (student.argmax(-1) == teacher.argmax(-1)).float().mean()
    torch.testing.assert_close(values['kd/top1_agreement'], same)
    p, q = teacher.softmax(-1), student.softmax(-1)
    kl = (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(values['kd/kl'], kl)


def test_no_key_is_optimised():
    assert all(
        'loss' not in key
        for key in agreement(torch.randn(2, 3), torch.randn(2, 3))
    )


def test_no_rows_give_0():
    values = agreement(torch.ones(0, 3), torch.ones(0, 3))
    assert {float(value) for value in values.values()} == {0.0}


def test_rows_are_limited_and_evenly_spread():
    # 10,000 rows: every 40th is looked at, at most 256 of them.
    student, teacher = torch.randn(10_000, 5), torch.randn(10_000, 5)
    limited = agreement(student, teacher)
    expected = agreement(student[::40], teacher[::40], every_row=True)
    assert limited == expected
    assert limited != agreement(student, teacher, every_row=True)


def counted_in_front(student, teacher, garbage=3):
    """The same rows behind each of which others follow that do not count."""
    counts = torch.arange((garbage + 1) * len(student)) % (garbage + 1) == 0
    sides = []
    for side in (student, teacher):
        filled = torch.randn(len(counts), side.shape[-1])
        filled[counts] = side
        sides.append(filled)
    return *sides, counts


def test_many_classes_bound_the_rows_of_tau_alone():
    # 2**24 pairs are 4 rows of 2000 classes: every 3rd of 10 is looked at.
    student, teacher = torch.randn(2, 10, 2000)
    values = agreement(student, teacher)
    whole = agreement(student, teacher, every_row=True)
    for name in ('kd/top1_agreement', 'kd/kl'):
        assert values[name] == whole[name], name
    some = agreement(student[::3], teacher[::3], every_row=True)
    assert values['kd/tau'] == some['kd/tau'] != whole['kd/tau']
    *sides, counts = counted_in_front(student, teacher)
    assert agreement(*sides, counts=counts) == values


def test_more_pairs_are_more_rows_of_tau():
    student, teacher = torch.randn(2, 10, 20)
    few = agreement(student, teacher, pairs=2 * 20**2)['kd/tau']
    some = agreement(student[::5], teacher[::5])['kd/tau']
    assert few == some != agreement(student, teacher)['kd/tau']


@pytest.mark.parametrize(
    ('number', 'classes', 'rows'),
    [
        (0, 5, (0, 0)),
        (64, 100, (64, 64)),
        (256, 81, (256, 256)),
        # Every other one.
        (300, 81, (150, 150)),
        # 16 rows of 2**24 pairs, and every 4th of 64.
        (64, 1000, (64, 16)),
        (64, 21841, (64, 1)),
    ],
)
def test_rows_that_are_looked_at(number, classes, rows):
    assert rows_looked_at(number, classes) == rows


def test_nan_among_the_logits_shows():
    """In every number, and beside rows that are fine."""
    student = torch.randn(4, 5)
    student[2, 1] = torch.nan
    teacher = torch.randn(4, 5)
    for logits in ((student, teacher), (teacher, student)):
        for name, value in agreement(*logits).items():
            assert value.isnan(), name


def test_constant_rows_are_left_out_of_tau():
    student, teacher = torch.randn(2, 4, 5)
    expected = agreement(student[1:], teacher[1:])['kd/tau']
    student[0] = 1.0
    torch.testing.assert_close(agreement(student, teacher)['kd/tau'], expected)


def test_a_class_that_the_teacher_rules_out_is_finite():
    student, teacher = torch.randn(2, 4, 5)
    teacher[2, 1] = -torch.inf
    values = agreement(student, teacher)
    far = teacher.nan_to_num(neginf=-1e4)
    for name, value in agreement(student, far).items():
        torch.testing.assert_close(values[name], value)
