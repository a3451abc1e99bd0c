"""LRA against ranks by hand, and what it is where nothing is ranked."""

import pytest
import torch
from torch.autograd import gradcheck

from mmrkkd.losses import KDLoss, LRALoss, RankKDLoss
from mmrkkd.losses.lra import count_blocks
from mmrkkd.ops import soft_rank

DISTANCES = ('l2', 'l1', 'spearman')


def logits(samples, classes, deviation=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (2, samples, classes)
    values = torch.randn(size, generator=generator, dtype=torch.float64)
    return (deviation * values).unbind(0)


@pytest.mark.parametrize(
    'distance,expected',
    [
        # Ranks 1 3 2 4 and 2 1 4 3 differ by -1, 2, -2, 1.
        ('l2', (1 + 4 + 4 + 1) / 4),
        ('l1', (1 + 2 + 2 + 1) / 4),
        # Spearman's rho of untied ranks: 1 - 6 sum d^2 / (n (n^2 - 1)).
        ('spearman', 6 * 10 / (4 * 15)),
    ],
)
def test_ranks_by_hand_where_e_is_small(distance, expected):
    student = torch.tensor([[9.0, 2.0, 5.0, -1.0]], dtype=torch.float64)
    teacher = torch.tensor([[3.0, 7.0, 0.5, 2.0]], dtype=torch.float64)
    settings = dict(regularization=0.01, distance=distance)
    assert list(LRALoss(**settings)(student, teacher)) == ['loss_lra']
    loss = LRALoss(loss_weight=0.5, log_blocks=True, **settings)
    terms = loss(student, teacher)
    assert list(terms) == ['loss_lra', 'kd/lra_blocks']
    torch.testing.assert_close(terms['loss_lra'].item(), 0.5 * expected)
    assert terms['kd/lra_blocks'] == 4


def test_pooled_pair_by_hand():
    # e = 1: classes 0 and 1 are closer than 1 and pooled, class 2 is far.
    # Student ranks 1.25 1.75 3, teacher ranks 2 1 3.
    student = torch.tensor([[9.0, 8.5, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[5.0, 9.0, 0.0]], dtype=torch.float64)
    terms = LRALoss(loss_weight=1.0, log_blocks=True)(student, teacher)
    expected = (0.75**2 + 0.75**2) / 3
    torch.testing.assert_close(terms['loss_lra'].item(), expected)
    assert terms['kd/lra_blocks'] == 2


@pytest.mark.parametrize('classes', [100, 200, 1000])
@pytest.mark.parametrize('distance', DISTANCES)
def test_published_e_compares_centred_logits_only(classes, distance):
    student, teacher = logits(4, classes)
    terms = LRALoss(5.0, distance=distance, log_blocks=True)(student, teacher)
    s = student - student.mean(-1, keepdim=True)
    t = teacher - teacher.mean(-1, keepdim=True)
    expected = {
        'l2': (s - t).square().mean(),
        'l1': (s - t).abs().mean(),
        'spearman': 1 - torch.cosine_similarity(s, t).mean(),
    }
    torch.testing.assert_close(terms['loss_lra'], 5 * expected[distance])
    assert terms['kd/lra_blocks'] == 1


def test_published_e_has_the_gradient_of_a_mean_square_error():
    # (2 w / C) (centred difference), a mean over the samples.
    student, teacher = logits(4, 100)
    student.requires_grad_()
    LRALoss(5.0)(student, teacher)['loss_lra'].backward()
    difference = student.detach() - teacher
    centred = difference - difference.mean(-1, keepdim=True)
    torch.testing.assert_close(student.grad, 2 * 5 / 100 * centred / 4)


def test_published_e_is_distillation_at_infinite_temperature():
    # KL(T) T^2 -> |centred difference|^2 / (2 C), half of l2; the next term
    # is of order d / T = 3e-4.
    student, teacher = logits(4, 100)
    hot = KDLoss(temperature=1e4, loss_weight=10.0)(student, teacher)
    torch.testing.assert_close(
        LRALoss(5.0)(student, teacher)['loss_lra'],
        hot['loss_kd'],
        rtol=1e-3,
        atol=0,
    )


@pytest.mark.parametrize('distance', DISTANCES)
@pytest.mark.parametrize('e', [0.03, 0.1, 0.3])
def test_gradient_where_there_are_many_blocks(distance, e):
    student, teacher = logits(3, 20, deviation=1.0)
    student.requires_grad_()
    loss = LRALoss(0.1, regularization=e, distance=distance, log_blocks=True)
    assert 1 < loss(student, teacher)['kd/lra_blocks'] < 20
    assert gradcheck(
        lambda values: loss(values, teacher)['loss_lra'], (student,)
    )


def test_class_alone_in_its_block_gets_no_gradient():
    student = torch.tensor([[50.0, 1.2, 1.0, 0.9]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    LRALoss()(student, teacher)['loss_lra'].backward()
    assert student.grad[0, 0] == 0
    assert (student.grad[0, 1:] != 0).any()


@pytest.mark.parametrize('distance', DISTANCES)
@pytest.mark.parametrize('e', [0.05, 1.0])
def test_direction_of_the_ranks_does_not_matter(distance, e):
    # Ascending ranks are the descending ranks of the negated logits.
    student, teacher = logits(5, 30)
    loss = LRALoss(regularization=e, distance=distance)
    torch.testing.assert_close(
        loss(-student, -teacher), loss(student, teacher)
    )


@pytest.mark.parametrize('distance', DISTANCES)
def test_same_order_costs_nothing_where_e_is_small(distance):
    student, _ = logits(5, 10)
    teacher = student.argsort(-1).argsort(-1).double()
    loss = LRALoss(regularization=1e-6, distance=distance)
    assert loss(student, teacher)['loss_lra'].abs() < 1e-7


def test_reversed_order_is_the_largest_loss():
    # Ranks r and C + 1 - r: their mean square difference is (C^2 - 1) / 3,
    # the mean absolute one C / 2 for even C.
    student, _ = logits(5, 10)
    for distance, largest in (('l2', 33), ('l1', 5), ('spearman', 2)):
        loss = LRALoss(1.0, regularization=1e-6, distance=distance)
        value = loss(student, -student)['loss_lra'].item()
        torch.testing.assert_close(value, float(largest))


@pytest.mark.parametrize('distance', DISTANCES)
def test_standardised_scale_and_shift_do_not_matter(distance):
    student, teacher = logits(5, 100)
    loss = LRALoss(
        regularization=0.03,
        distance=distance,
        standardize=True,
        log_blocks=True,
    )
    terms = loss(student, teacher)
    assert 5 < terms['kd/lra_blocks'] < 50
    # 1e-7 is added to the deviation.
    torch.testing.assert_close(
        loss(7 * student + 3, 0.5 * teacher - 1), terms, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize('classes', [2, 10, 81, 1000])
@pytest.mark.parametrize('e', [0.003, 0.03, 0.3, 3.0])
def test_blocks_are_runs_of_equal_distance_to_the_ranks(classes, e):
    # Within a block z - rank is the same, z = -value / e. Rounding of z,
    # at most 15 / e, is far below 1e-9.
    values, _ = logits(16, classes)
    order = values.argsort(-1)
    distance = -values / e - soft_rank(values, regularization=e)
    steps = distance.gather(-1, order).diff(dim=-1).abs() > 1e-9
    assert torch.equal(count_blocks(values, e), 1.0 + steps.sum(-1).double())


def test_equal_logits_are_one_block():
    assert count_blocks(torch.full((2, 6), 0.1), 1.0).tolist() == [1, 1]


def test_blocks_of_nan_are_nan():
    values = torch.tensor([[1.0, torch.nan, 2.0], [1.0, 5.0, 9.0]])
    blocks = count_blocks(values, 1.0)
    assert blocks[0].isnan()
    assert blocks[1] == 3


def test_blocks_have_no_gradient():
    student, teacher = logits(2, 10)
    terms = LRALoss(log_blocks=True)(student.requires_grad_(), teacher)
    assert terms['loss_lra'].requires_grad
    assert not terms['kd/lra_blocks'].requires_grad


def test_kendalls_ranking_is_added_and_scales_no_diagnostic():
    student, teacher = logits(4, 20)
    loss = RankKDLoss(kd=dict(type='LRALoss', log_blocks=True), kd_weight=0.5)
    terms = loss(student, teacher)
    alone = LRALoss(log_blocks=True)(student, teacher)
    assert set(terms) == {'loss_lra', 'kd/lra_blocks', 'loss_rank'}
    torch.testing.assert_close(terms['loss_lra'], 0.5 * alone['loss_lra'])
    assert terms['kd/lra_blocks'] == alone['kd/lra_blocks']


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(loss_weight=-1), 'loss_weight must be .* >= 0, got -1'),
        (dict(regularization=0), 'regularization must be .* > 0, got 0'),
        (dict(distance='l3'), "distance must be one of .* got 'l3'"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        LRALoss(**change)
