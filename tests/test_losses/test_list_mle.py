"""The likelihood of a ranking against arithmetic."""

import itertools
import math

import pytest
import torch

from mmrkkd.losses import ListMLELoss, PLDLoss, list_mle
from mmrkkd.losses.list_mle import ranking, surprise_of

# e^s = (2, 1, 4), e^t = (1, 2, 5)
STUDENT = torch.tensor([[2.0, 1.0, 4.0]]).double().log()
TEACHER = torch.tensor([[1.0, 2.0, 5.0]]).double().log()


def test_three_classes_by_hand():
    # Order (2, 1, 0): 4 of 7, 1 of 3, 2 of 2. Its probability is 4 / 21.
    student = STUDENT.clone().requires_grad_()
    loss = ListMLELoss()(student, TEACHER)
    assert list(loss) == ['loss_list_mle']
    assert loss['loss_list_mle'].item() == pytest.approx(math.log(21 / 4))
    loss['loss_list_mle'].backward()
    # [(2, 1, 4) / 7 - e_2] + [(2, 1, 0) / 3 - e_1]
    torch.testing.assert_close(
        student.grad,
        torch.tensor([[2 / 7 + 2 / 3, 1 / 7 + 1 / 3 - 1, 4 / 7 - 1]]).double(),
    )


def test_label_first_by_hand():
    # Order (1, 2, 0): 1 of 7, 4 of 6, 2 of 2.
    loss = ListMLELoss(label_first=True)
    value = loss(STUDENT, TEACHER, torch.tensor([1]))['loss_list_mle']
    assert value.item() == pytest.approx(math.log(7 * 6 / 4))
    with pytest.raises(ValueError, match='ListMLELoss needs labels, got None'):
        loss(STUDENT, TEACHER)


def test_probabilities_of_all_rankings_add_up_to_1():
    student = torch.randn(1, 4).double()
    total = 0.0
    for order in itertools.permutations(range(4)):
        teacher = torch.tensor([[-float(order.index(c)) for c in range(4)]])
        loss = ListMLELoss()(student, teacher.double())['loss_list_mle']
        total += math.exp(-loss.item())
    assert total == pytest.approx(1)


def test_only_the_order_of_the_teacher_counts():
    student, teacher = torch.randn(2, 5, 8).double()
    torch.testing.assert_close(
        ListMLELoss()(student, teacher.exp()),
        ListMLELoss()(student, teacher),
    )


def test_equal_students_give_log_factorial():
    loss = ListMLELoss()(
        torch.zeros(2, 6).double(), torch.randn(2, 6).double()
    )
    assert loss['loss_list_mle'].item() == pytest.approx(math.lgamma(7))


def test_ties_of_the_teacher_keep_the_order_of_the_classes():
    teacher = torch.tensor([[1.0, 2.0, 1.0, 2.0, -torch.inf]])
    assert ranking(teacher, None).tolist() == [[1, 3, 0, 2, 4]]
    assert ranking(teacher, torch.tensor([2])).tolist() == [[2, 1, 3, 0, 4]]
    assert ranking(teacher, torch.tensor([4])).tolist() == [[4, 1, 3, 0, 2]]
    # Before one of infinite worth too, though nothing is said for it.
    unbounded = torch.tensor([[torch.inf, 0, -torch.inf]])
    assert ranking(unbounded, torch.tensor([2])).tolist() == [[2, 0, 1]]


def test_a_uniform_teacher_makes_pld_of_it():
    """PLD with all places weighing 1 / C."""
    student = torch.randn(3, 5).double()
    labels = torch.tensor([4, 0, 2])
    teacher = torch.zeros(3, 5).double()
    torch.testing.assert_close(
        ListMLELoss(1 / 5, label_first=True)(student, teacher, labels)[
            'loss_list_mle'
        ],
        PLDLoss()(student, teacher, labels)['loss_pld'],
    )


def test_errors():
    with pytest.raises(ValueError, match='loss_weight must be .* got -1'):
        ListMLELoss(loss_weight=-1)
    with pytest.raises(ValueError, match='label_first must be True or False'):
        ListMLELoss(label_first='yes')


@pytest.mark.parametrize('added', [0.0, 1e3, 1e5])
@pytest.mark.parametrize('way', ['written', 'eager'])
def test_a_number_that_is_added_to_all_costs_no_digits(
    added, way, monkeypatch
):
    """Without C, as on a GPU."""
    monkeypatch.setattr(list_mle, '_narrow', lambda logits: None)
    logits = torch.tensor([[3.0, 1.0, 2.0, 5.0]]) + added
    order = torch.tensor([[2, 0, 3, 1]])
    slopes = []
    for kind in (torch.float32, torch.float64):
        leaf = logits.to(kind).requires_grad_()
        if way == 'written':
            value = surprise_of(leaf, order)
        else:
            value = list_mle._surprise(leaf, order, None)
        slopes.append(torch.autograd.grad(value.sum(), leaf)[0])
    torch.testing.assert_close(
        slopes[0].double(), slopes[1], rtol=1e-5, atol=1e-6
    )
