"""Exact telemetry against SciPy and by hand."""

import math

import pytest
import torch
from scipy.stats import kendalltau

from mmrkkd.ops import exact_kendall_tau, rank_correlation, top1_agreement


@pytest.mark.parametrize('ties', [False, True])
def test_tau_b_equals_scipy(ties):
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(20, 15, generator=generator)
    teacher = torch.randn(20, 15, generator=generator)
    if ties:
        student, teacher = student.round(), teacher.round()
    expected = torch.tensor(
        [
            kendalltau(s.numpy(), t.numpy()).statistic
            for s, t in zip(student, teacher)
        ]
    ).float()
    torch.testing.assert_close(exact_kendall_tau(student, teacher), expected)


def test_tau_a_counts_tied_pairs():
    # 2 concordant pairs, 1 tied, of 3; tau-b divides by sqrt(3 * 2).
    student, teacher = (
        torch.tensor([1.0, 2.0, 3.0]),
        torch.tensor([1.0, 1.0, 2.0]),
    )
    tau_a = exact_kendall_tau(student, teacher, 'a')
    tau_b = exact_kendall_tau(student, teacher, 'b')
    torch.testing.assert_close(tau_a.item(), 2 / 3)
    torch.testing.assert_close(tau_b.item(), 2 / math.sqrt(6))


@pytest.mark.parametrize('pairs', [200, 30])
def test_chunks_join_to_the_whole(pairs, monkeypatch):
    """Of rows, and of the classes of a row."""
    student, teacher = torch.randn(2, 14, 9).round(decimals=1)
    whole = rank_correlation.pair_counts_torch(student, teacher)
    monkeypatch.setattr(rank_correlation, 'PAIRS_AT_ONCE', pairs)
    parts = rank_correlation.pair_counts_torch(student, teacher)
    assert torch.equal(parts, whole)
    assert whole.shape == (14, 3)


def test_leading_dimensions_are_rows():
    student, teacher = torch.randn(2, 2, 7, 9)
    taus = exact_kendall_tau(student, teacher)
    assert taus.shape == (2, 7)
    assert taus[1, 3] == exact_kendall_tau(student[1, 3], teacher[1, 3])


@pytest.mark.parametrize('classes', range(2, 60))
def test_no_tau_is_above_1(classes):
    """In float32 the square of sqrt(28) is below 28."""
    logits = torch.arange(classes).float()
    for variant in 'ab':
        assert exact_kendall_tau(logits, logits, variant) <= 1
        assert exact_kendall_tau(logits, -logits, variant) >= -1


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('variant', ['a', 'b'])
@pytest.mark.parametrize('side', [0, 1])
@pytest.mark.parametrize('backend', ['torch', 'native'])
def test_a_row_with_nan_has_no_tau(backend, side, variant, dtype, monkeypatch):
    # SciPy and the soft tau say NaN too; 4 of 6 pairs would give 0.71.
    if backend == 'torch':
        monkeypatch.setattr(rank_correlation, 'native_library', lambda: None)
    rows = [torch.arange(1.0, 5.0).repeat(2, 1).to(dtype) for _ in 'st']
    rows[side][0, 1] = torch.nan
    tau = exact_kendall_tau(*rows, variant)
    assert tau[0].isnan() and tau[1].item() == pytest.approx(1)
    scipy_says = kendalltau(*(row[0].numpy() for row in rows)).statistic
    assert math.isnan(scipy_says)


def test_infinities_have_their_place_in_the_order():
    student = torch.tensor([-torch.inf, 0.0, 1.0, torch.inf])
    tau = exact_kendall_tau(student, torch.arange(4.0))
    assert tau.item() == pytest.approx(1)


def test_top1_of_a_row_with_nan_is_nan():
    student = torch.tensor([[torch.nan, 1.0], [0.0, 1.0]])
    assert top1_agreement(student, student)[0].isnan()
    assert top1_agreement(student, torch.zeros(2, 2))[0].isnan()
    assert top1_agreement(student, student)[1] == 1


def test_constant_row_has_no_tau_b():
    assert exact_kendall_tau(torch.ones(1, 4), torch.randn(1, 4)).isnan()


def test_no_rows():
    assert exact_kendall_tau(torch.ones(0, 4), torch.ones(0, 4)).shape == (0,)


def test_top1():
    student = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    teacher = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert top1_agreement(student, teacher).tolist() == [1.0, 0.0]


def test_unknown_variant():
    with pytest.raises(ValueError, match="variant must be one of .* 'c'"):
        exact_kendall_tau(torch.ones(1, 3), torch.ones(1, 3), 'c')
