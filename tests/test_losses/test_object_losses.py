"""Losses among the candidates of an object: RankMimicLoss, BoxRankLoss."""

import math

import pytest
import torch
from scipy.stats import kendalltau

from mmrkkd.losses import BoxRankLoss, RankMimicLoss

HIGH = math.log(4)


def column(*values):
    """Logits of one class among three, (N, 3)."""
    logits = torch.full((len(values), 3), -7.0, dtype=torch.float64)
    logits[:, 1] = torch.tensor(values, dtype=torch.float64)
    return logits


def mimic(student, teacher, groups=None, **options):
    loss = RankMimicLoss(loss_weight=1.0, **options)
    labels = torch.ones(len(student), dtype=torch.long)
    return loss(student, teacher, labels, groups=groups)['loss_rank_mimic']


def test_rank_mimic_of_three_candidates():
    # Teacher's probabilities .8, .5, .2, the student's all .5:
    # p = softmax = (.436752, .323554, .239694), KL(p || 1/3).
    teacher = column(HIGH, 0.0, -HIGH)
    p = torch.tensor([0.8, 0.5, 0.2], dtype=torch.float64).softmax(0)
    expected = (p * (p * 3).log()).sum()
    value = mimic(column(0.0, 0.0, 0.0), teacher)
    torch.testing.assert_close(value, expected)
    assert value.item() == pytest.approx(0.0293393, abs=5e-8)


def test_a_reversed_student_is_not_sorted_first():
    # q is p from the back: KL = (p_1 - p_3) (.8 - .2).
    teacher, student = column(HIGH, 0.0, -HIGH), column(-HIGH, 0.0, HIGH)
    p = torch.tensor([0.8, 0.5, 0.2], dtype=torch.float64).softmax(0)
    value = mimic(student, teacher)
    torch.testing.assert_close(value, (p[0] - p[2]) * 0.6)
    assert value.item() == pytest.approx(0.1182344, abs=5e-8)


def test_a_low_temperature_sharpens():
    teacher, student = column(HIGH, 0.0, -HIGH), column(-HIGH, 0.0, HIGH)
    values = [mimic(student, teacher, temperature=t) for t in (1, 0.5, 0.1)]
    assert values[0] < values[1] < values[2]
    p = (torch.tensor([0.8, 0.5, 0.2], dtype=torch.float64) / 0.1).softmax(0)
    torch.testing.assert_close(values[2], (p[0] - p[2]) * 6.0)


def test_of_a_softmax_the_probability_of_the_class_counts():
    loss = RankMimicLoss(loss_weight=1.0)
    loss.suit('softmax')
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 4, generator=generator).double()
    labels = torch.full((5,), 2)
    p, q = (each.softmax(1)[:, 2].softmax(0) for each in (teacher, student))
    torch.testing.assert_close(
        loss(student, teacher, labels)['loss_rank_mimic'],
        (p * (p / q).log()).sum(),
    )


@pytest.mark.parametrize('kind', [RankMimicLoss, BoxRankLoss])
def test_the_mean_is_over_the_objects(kind):
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 9, 4, generator=generator).double()
    labels = torch.tensor([1, 1, 1, 1, 1, 2, 2, 2, 3])
    # Two objects of class 1; one of class 2; the last is nobody's.
    groups = torch.tensor([7, 7, 2, 2, 2, 5, 5, 5, -1])
    loss = kind(loss_weight=1.0)
    (name,) = loss(student, teacher, labels, groups=groups)
    alone = [
        loss(student[kept], teacher[kept], labels[kept])[name]
        for kept in (groups == number for number in (7, 2, 5))
    ]
    torch.testing.assert_close(
        loss(student, teacher, labels, groups=groups)[name], sum(alone) / 3
    )
    # A weight of 0 leaves a candidate out.
    weight = torch.ones(9)
    weight[5:8] = 0
    torch.testing.assert_close(
        loss(student, teacher, labels, weight, groups=groups)[name],
        sum(alone[:2]) / 2,
    )
    nobody = torch.full((9,), -1)
    assert loss(student, teacher, labels, groups=nobody)[name] == 0


def test_box_rank_by_hand():
    # Pairs (1, 2), (1, 3), (2, 3) of s = 0, 1, 3 and t = 2, 1, 0.
    student, teacher = column(0.0, 1.0, 3.0), column(2.0, 1.0, 0.0)
    tanh = math.tanh
    tau = tanh(-1) * tanh(1) + tanh(-3) * tanh(2) + tanh(-2) * tanh(1)
    loss = BoxRankLoss(normalize=False, loss_weight=2.0)
    value = loss(student, teacher, torch.ones(3).long())['loss_box_rank']
    assert value.item() == pytest.approx(-2.0 * tau / 3, rel=1e-12)


@pytest.mark.parametrize('normalize', [False, True])
def test_a_steep_box_rank_is_kendalls_tau(normalize):
    generator = torch.Generator().manual_seed(2)
    student, teacher = torch.randn(2, 14, 3, generator=generator).double()
    labels = torch.zeros(14).long()
    groups = torch.tensor([0] * 9 + [1] * 5)[torch.randperm(14)]
    loss = BoxRankLoss(steepness=1e7, normalize=normalize)
    value = loss(student, teacher, labels, groups=groups)['loss_box_rank']
    taus = [
        kendalltau(student[kept, 0], teacher[kept, 0]).statistic
        for kept in (groups == 0, groups == 1)
    ]
    assert value.item() == pytest.approx(-sum(taus) / 2, rel=1e-9)


def test_scale_and_shift_of_a_side_do_not_matter_when_normalized():
    generator = torch.Generator().manual_seed(3)
    student, teacher = torch.randn(2, 6, 3, generator=generator).double()
    labels = torch.zeros(6).long()
    loss = BoxRankLoss(min_std=0)
    value = loss(student, teacher, labels)['loss_box_rank']
    moved = loss(5 * student - 3, 0.2 * teacher + 1, labels)['loss_box_rank']
    # The number added to a deviation is 1e-7.
    torch.testing.assert_close(moved, value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('min_std', [0.5, dict(absolute=1.5)])
def test_a_floor_stands_for_a_small_deviation(min_std):
    """Both objects' teachers have the deviation 3; the second's student 9."""
    first, second = [0.0, 1.0, 2.0], [0.0, 9.0, 18.0]
    student = column(*first, *second)
    teacher = column(0.0, 3.0, 6.0, 6.0, 3.0, 0.0)
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    loss = BoxRankLoss(min_std=min_std)
    value = loss(student, teacher, torch.ones(6).long(), groups=groups)
    # s = -1 / 1.5, 0, 1 / 1.5; then -1, 0, 1, as the teacher's.
    tanh = math.tanh
    near = 2 * tanh(1 / 1.5) * tanh(1) + tanh(2 / 1.5) * tanh(2)
    far = 2 * tanh(1) ** 2 + tanh(2) ** 2
    expected = -(near - far) / 3 / 2
    assert value['loss_box_rank'].item() == pytest.approx(expected, rel=1e-6)


def test_nearly_equal_scores_have_a_gradient_of_ordinary_size():
    student = column(1.0, 1.0 + 1e-5, 1.0 - 1e-5).requires_grad_()
    labels = torch.ones(3).long()
    loss = BoxRankLoss()
    loss(student, column(1.0, 2.0, 3.0), labels)['loss_box_rank'].backward()
    assert 0 < student.grad.abs().max() < 1
    # Where the teacher has no order nothing is pulled.
    student.grad = None
    loss(student, column(1.0, 1.0, 1.0), labels)['loss_box_rank'].backward()
    assert not student.grad.any()


def test_the_teachers_best_candidates_are_ranked():
    generator = torch.Generator().manual_seed(4)
    student, teacher = torch.randn(2, 8, 3, generator=generator).double()
    labels = torch.zeros(8).long()
    best = teacher[:, 0].topk(5).indices
    torch.testing.assert_close(
        BoxRankLoss(candidates=5)(student, teacher, labels),
        BoxRankLoss()(student[best], teacher[best], labels[best]),
    )


def test_one_candidate_has_no_order():
    student, teacher = column(1.0), column(2.0)
    student.requires_grad_()
    for loss in (BoxRankLoss(), RankMimicLoss()):
        (value,) = loss(student, teacher, torch.tensor([1])).values()
        assert value == 0
        (gradient,) = torch.autograd.grad(value, student)
        assert (gradient == 0).all()


def test_errors():
    with pytest.raises(ValueError, match='temperature must be'):
        RankMimicLoss(temperature=0)
    with pytest.raises(ValueError, match='candidates must be a number >= 2'):
        BoxRankLoss(candidates=1)
    with pytest.raises(ValueError, match='steepness must be'):
        BoxRankLoss(steepness=-1.0)
    with pytest.raises(ValueError, match='min_std must be'):
        BoxRankLoss(min_std=-1.0)
    with pytest.raises(ValueError, match='RankMimicLoss needs labels'):
        RankMimicLoss()(column(1.0), column(1.0))
