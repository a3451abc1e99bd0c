"""DIST against arithmetic and NumPy's correlation."""

import numpy as np
import pytest
import torch

from mmrkkd.losses import DISTLoss, RankKDLoss


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 7, 12, generator=generator, dtype=torch.float64)
    return (3 * values).unbind(0)


def log(*rows):
    return torch.tensor(rows, dtype=torch.float64).log()


def test_two_samples_by_hand():
    # T = 1. Student (6, 3, 1) and (1, 3, 6) / 10, teacher (3, 6, 1) and
    # (1, 3, 6) / 10. Over the classes, in thirds around the mean 10/3:
    # (8, -1, -7) . (-1, 8, -7) / 114 = 33 / 114, and 1. Over two samples
    # a correlation is the sign: class 0 1, class 1 0 (the student's does
    # not vary), class 2 1.
    loss = DISTLoss(inter_weight=1.0, intra_weight=1.0, temperature=1.0)
    terms = loss(log([6, 3, 1], [1, 3, 6]), log([3, 6, 1], [1, 3, 6]))
    assert list(terms) == ['loss_dist_inter', 'loss_dist_intra']
    # 1e-8 is added to products of norms of about 0.1.
    torch.testing.assert_close(
        terms['loss_dist_inter'].item(), (1 - 33 / 114) / 2, rtol=1e-6, atol=0
    )
    torch.testing.assert_close(
        terms['loss_dist_intra'].item(), 1 / 3, rtol=1e-6, atol=0
    )


def test_equals_numpys_correlation(logits):
    student, teacher = ((z / 2).softmax(-1).numpy() for z in logits)
    inter = [np.corrcoef(s, t)[0, 1] for s, t in zip(student, teacher)]
    intra = [np.corrcoef(s, t)[0, 1] for s, t in zip(student.T, teacher.T)]
    terms = DISTLoss(3.0, 0.5, temperature=2.0, loss_weight=0.1)(*logits)
    # Norms of the classes' columns are above 0.01: eps adds up to 1e-4.
    torch.testing.assert_close(
        terms['loss_dist_inter'].item(),
        0.1 * 3 * 4 * (1 - np.mean(inter)),
        rtol=1e-6,
        atol=0,
    )
    torch.testing.assert_close(
        terms['loss_dist_intra'].item(),
        0.1 * 0.5 * 4 * (1 - np.mean(intra)),
        rtol=1e-4,
        atol=0,
    )


def test_student_equal_to_its_teacher_reaches_0(logits):
    terms = DISTLoss()(logits[0], logits[0])
    # 2 T^2 times eps over the square of the smallest norm.
    assert sum(terms.values()).abs() < 1e-3


def test_one_sample_has_nothing_to_compare_within_the_batch(logits):
    student, teacher = (z[:1] for z in logits)
    student.requires_grad_()
    terms = DISTLoss()(student, teacher)
    assert terms['loss_dist_intra'] == 0
    assert terms['loss_dist_inter'] > 0
    sum(terms.values()).backward()
    assert student.grad.abs().sum() > 0


def test_no_samples_give_0_with_a_graph(logits):
    student, teacher = (z[:0] for z in logits)
    student.requires_grad_()
    terms = DISTLoss()(student, teacher)
    assert [value.item() for value in terms.values()] == [0, 0]
    sum(terms.values()).backward()
    assert student.grad.shape == (0, 12)


def test_weights_select_samples_of_the_batch_term(logits):
    student, teacher = logits
    loss = DISTLoss()
    weight = torch.tensor([1.0, 1.0, 0.0, 3.0, 0.0, 0.0, 1.0])
    torch.testing.assert_close(
        loss(student, teacher, weight=weight)['loss_dist_intra'],
        loss(student[weight > 0], teacher[weight > 0])['loss_dist_intra'],
    )


def test_certain_predictions_of_one_class_have_no_gradient():
    # Every column is constant: eps alone would blow it up.
    student = torch.zeros(4, 3)
    student[:, 0] = 1e3
    student.requires_grad_()
    teacher = torch.randn(4, 3)
    terms = DISTLoss(2.0, 1.0)(student, teacher)
    torch.testing.assert_close(terms['loss_dist_intra'].item(), 16.0)
    terms['loss_dist_intra'].backward()
    assert (student.grad == 0).all()


def test_ranking_is_added_to_it(logits):
    terms = RankKDLoss(kd=dict(type='DISTLoss'), kd_weight=0.5)(*logits)
    alone = DISTLoss(loss_weight=0.5)(*logits)
    assert set(terms) == {*alone, 'loss_rank'}
    for name, value in alone.items():
        torch.testing.assert_close(terms[name], value)


@pytest.mark.parametrize(
    'name,value',
    [
        ('inter_weight', -1),
        ('intra_weight', -1),
        ('temperature', 0),
        ('loss_weight', -1),
    ],
)
def test_errors(name, value):
    with pytest.raises(ValueError, match=f'^{name} must be .* got {value}'):
        DISTLoss(**{name: value})


@pytest.mark.parametrize('samples', [0, 1])
def test_the_term_of_the_batch_is_connected_without_a_batch(samples):
    """Whoever sums the logged terms may differentiate each of them."""
    student = torch.randn(samples, 5, requires_grad=True)
    terms = DISTLoss()(student, torch.randn(samples, 5))
    terms['loss_dist_intra'].backward()
    assert terms['loss_dist_intra'] == 0
    assert (student.grad == 0).all()
