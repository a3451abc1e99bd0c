"""What is logged about agreement."""

import torch
from scipy.stats import kendalltau

from mmrkkd.distillers.telemetry import agreement


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
