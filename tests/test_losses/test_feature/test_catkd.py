"""CAT-KD: class activation maps, transferred."""

import pytest
import torch

from mmrkkd.losses import CATKDLoss
from mmrkkd.losses.feature import FeaturePair


def pair(student, teacher, *weights):
    return FeaturePair([student], [teacher], classifiers=weights)


def term(*values, **options):
    return CATKDLoss(**options)(pair(*values))['loss_catkd']


# One image, two channels, one row of two cells; two classes.
STUDENT = torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]])
TEACHER = torch.tensor([[[[3.0, 4.0]]]])
OWN = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
OTHERS = torch.tensor([[1.0], [0.5]])


def test_golden_value():
    # CAMs of the student (1, 3) and (0, 2), of the teacher (3, 4) and
    # (1.5, 2); with one region their means 2, 1 and 3.5, 1.75.
    value = term(STUDENT, TEACHER, OWN, OTHERS, resolution=1, loss_weight=4.0)
    assert value.item() == pytest.approx(4 * (1.5**2 + 0.75**2) / 2)
    # Two rows and two columns of regions repeat the one row.
    value = term(STUDENT, TEACHER, OWN, OTHERS, loss_weight=1.0)
    assert value.item() == pytest.approx((4 + 1 + 1.5**2 + 0) / 4)


def test_normalised_maps():
    # Of the student (1, 3) / sqrt 20 and (0, 2) / sqrt 8 in both rows, of
    # the teacher (3, 4) / sqrt 50 twice.
    first = (1 / 20**0.5 - 3 / 50**0.5) ** 2 + (3 / 20**0.5 - 4 / 50**0.5) ** 2
    second = (3 / 50**0.5) ** 2 + (2 / 8**0.5 - 4 / 50**0.5) ** 2
    value = term(
        STUDENT, TEACHER, OWN, OTHERS, normalize=True, loss_weight=1.0
    )
    assert value.item() == pytest.approx((first + second) / 4)


def test_mean_of_the_maps_is_the_score_without_bias():
    features, weights = torch.randn(3, 4, 6, 6), torch.randn(5, 4)
    maps = CATKDLoss()._maps(features, weights)
    torch.testing.assert_close(
        maps.mean((2, 3)), features.mean((2, 3)) @ weights.T
    )


def test_the_students_classifier_learns_and_the_teachers_does_not():
    weights = [OWN.clone().requires_grad_(), OTHERS.clone().requires_grad_()]
    term(STUDENT, TEACHER, *weights).backward()
    assert weights[0].grad.abs().sum() > 0
    assert weights[1].grad is None


@pytest.mark.parametrize('value', [0, 2.0, True])
def test_resolution(value):
    with pytest.raises(ValueError, match='resolution must be a number of cel'):
        CATKDLoss(resolution=value)


def test_of_a_map_of_one_cell_its_norm_leaves_nothing():
    with pytest.raises(ValueError, match='resolution must be > 1 .* got 1'):
        CATKDLoss(resolution=1, normalize=True)
    values = STUDENT.mean(3, keepdim=True), TEACHER, OWN, OTHERS
    assert term(*values) > 0
    with pytest.raises(ValueError, match=r"'backbone\[0\]' .* 1 x 1 cells"):
        term(*values, normalize=True)


def test_an_empty_map_pulls_at_nothing():
    student = torch.zeros(2, 4, 3, 3, requires_grad=True)
    teacher, weights = torch.randn(2, 4, 3, 3), torch.randn(5, 4)
    value = term(student, teacher, weights, weights, normalize=True)
    value.backward()
    assert value > 0 and not student.grad.any()


def test_no_weights():
    with pytest.raises(ValueError, match='needs the weights of both linear'):
        CATKDLoss()(FeaturePair([STUDENT], [STUDENT]))
