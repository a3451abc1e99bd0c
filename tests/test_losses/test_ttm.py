"""TTM and WTTM against arithmetic."""

import math

import pytest
import torch

from mmrkkd.losses import RankKDLoss, TTMLoss, WTTMLoss
from mmrkkd.ops import kl_divergence


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 7, 12, generator=generator, dtype=torch.float64)
    return (3 * values).unbind(0)


def test_two_classes_by_hand():
    # Teacher (9, 1) / 10 to the power 1/2 is (3, 1) / sqrt 10: q is
    # (3/4, 1/4) and U is 4 / sqrt 10. Student (1/2, 1/2).
    student = torch.zeros(1, 2, dtype=torch.float64)
    teacher = torch.tensor([[9.0, 1.0]], dtype=torch.float64).log()
    expected = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    ttm = TTMLoss(exponent=0.5, loss_weight=2.0)(student, teacher)
    assert list(ttm) == ['loss_ttm']
    torch.testing.assert_close(ttm['loss_ttm'].item(), 2 * expected)
    wttm = WTTMLoss(exponent=0.5, loss_weight=2.0)(student, teacher)
    assert list(wttm) == ['loss_wttm']
    torch.testing.assert_close(
        wttm['loss_wttm'].item(), 2 * 4 / math.sqrt(10) * expected
    )


def test_equals_powers_of_probabilities(logits):
    student, teacher = logits
    powers = teacher.softmax(-1) ** 0.3
    weights = powers.sum(-1)
    q = powers / weights[:, None]
    divergence = (q * (q / student.softmax(-1)).log()).sum(-1)
    torch.testing.assert_close(
        TTMLoss(0.3, 1.0)(*logits)['loss_ttm'], divergence.mean()
    )
    torch.testing.assert_close(
        WTTMLoss(0.3, 1.0)(*logits)['loss_wttm'],
        (weights * divergence).mean(),
    )


def test_exponent_1_is_distillation_without_temperature(logits):
    expected = kl_divergence(*logits).mean()
    torch.testing.assert_close(
        TTMLoss(1.0, 1.0)(*logits)['loss_ttm'], expected
    )
    # The powers of every sample then add up to 1.
    torch.testing.assert_close(
        WTTMLoss(1.0, 1.0)(*logits)['loss_wttm'], expected
    )


def test_uncertain_teacher_weighs_up_to_a_power_of_the_classes():
    # U is C^(1 - g) for a uniform teacher and 1 for a certain one.
    student = torch.randn(1, 16).double()
    for scale, weight in ((0.0, 16**0.75), (1e3, 1.0)):
        teacher = scale * torch.arange(16).double()[None]
        ttm = TTMLoss(0.25, 1.0)(student, teacher)['loss_ttm']
        wttm = WTTMLoss(0.25, 1.0)(student, teacher)['loss_wttm']
        torch.testing.assert_close(wttm, weight * ttm)


def test_student_equal_to_the_softened_teacher_reaches_0(logits):
    _, teacher = logits
    for kind in (TTMLoss, WTTMLoss):
        (value,) = kind(exponent=0.2)(0.2 * teacher, teacher).values()
        assert value.abs() < 1e-12


@pytest.mark.parametrize('kind', ['TTMLoss', 'WTTMLoss'])
def test_ranking_is_added_to_it(logits, kind):
    terms = RankKDLoss(kd=dict(type=kind, loss_weight=2.0), kd_weight=0.5)(
        *logits
    )
    alone = dict(TTMLoss=TTMLoss, WTTMLoss=WTTMLoss)[kind](loss_weight=1.0)
    (name,) = alone(*logits)
    assert set(terms) == {name, 'loss_rank'}
    torch.testing.assert_close(terms[name], alone(*logits)[name])


@pytest.mark.parametrize('kind', [TTMLoss, WTTMLoss])
def test_errors(kind):
    with pytest.raises(ValueError, match='exponent must be .* > 0, got 0'):
        kind(exponent=0)
    with pytest.raises(ValueError, match='loss_weight must be .* got -1'):
        kind(loss_weight=-1)
