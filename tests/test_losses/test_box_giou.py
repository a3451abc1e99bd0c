"""BoxGIoULoss: boxes of the same cells."""

import pytest
import torch
from torchvision.ops import generalized_box_iou

from mmrkkd.losses import BoxGIoULoss
from mmrkkd.losses.box_giou import giou, greatest_difference
from mmrkkd.losses.placement import Placement


def boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    sides = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return torch.cat([first, first + sides], 1)


def test_giou_by_hand():
    # A square of 4 in one of 16: 1/4. Squares of 1 with a gap of one: the
    # hull is 3, the union 2: -1/3. A box without area in the hull of 4.
    one = torch.tensor([[1.0, 1, 3, 3], [0, 0, 1, 1], [2, 2, 2, 2]])
    other = torch.tensor([[0.0, 0, 4, 4], [2, 0, 3, 1], [0, 0, 1, 1]])
    expected = torch.tensor([1 / 4, -1 / 3, -3 / 4])
    torch.testing.assert_close(giou(one, other), expected)
    torch.testing.assert_close(giou(other, one), expected)


def test_giou_is_torchvisions():
    one, other = boxes(20, 0), boxes(20, 1)
    expected = generalized_box_iou(one, other).diagonal()
    torch.testing.assert_close(giou(one, other), expected)


def test_equal_boxes_cost_nothing_whatever_their_area():
    flat = torch.tensor(
        [[1.0, 2, 1, 5], [3, 3, 3, 3], [4, 4, 2, 2], [0, 0, 2, 3]]
    )
    student = flat.clone().requires_grad_()
    values = giou(student, flat)
    assert (values == 1).all()
    values.sum().backward()
    assert not student.grad.any()


def test_boxes_turned_inside_out_stay_in_the_range():
    one, other = boxes(50, 0), boxes(50, 1)
    values = giou(one[:, [2, 3, 0, 1]], other)
    assert (values >= -1).all() and (values <= 1).all()


def placed(student, teacher, pair, weight=None, total=None, **options):
    seen = []

    def select(placement, more=None):
        seen.append(placement)
        weights = weight
        if more is not None:
            factor = more(student, teacher)
            weights = factor if weight is None else weight * factor
        return student, teacher, None, weights, total

    loss = BoxGIoULoss(loss_weight=1.0, **options)
    return loss.located(select, pair)['loss_box_giou'], seen[0]


def test_cells_are_weighed_by_the_greatest_difference():
    student, teacher = torch.randn(2, 5, 3, dtype=torch.float64)
    pair = boxes(5, 0).requires_grad_(), boxes(5, 1)
    apart = (student.sigmoid() - teacher.sigmoid()).abs().amax(1)
    each = 1 - giou(*pair)
    value, placement = placed(
        student, teacher, pair, total=torch.tensor(4.0).double()
    )
    torch.testing.assert_close(
        value, (apart * each).sum() / 4, rtol=1e-6, atol=0
    )
    assert placement == Placement(normalizer='positives')
    weight = torch.tensor([1.0, 0, 0.5, 0, 0], dtype=torch.float64)
    value, _ = placed(
        student, teacher, pair, weight, torch.tensor(1.0), difference=False
    )
    torch.testing.assert_close(value, each[0] + each[2] / 2)


def test_the_difference_has_no_gradient():
    student = torch.randn(3, 2, requires_grad=True)
    pair = boxes(3, 0).requires_grad_(), boxes(3, 1)
    value, _ = placed(student, torch.randn(3, 2), pair)
    value.backward()
    assert student.grad is None and pair[0].grad.any()


def test_differences_of_a_softmax():
    student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, 1.0]])
    expected = teacher.softmax(1)[0, 1] - 0.5
    found = greatest_difference(student, teacher, 'softmax')
    assert found.item() == pytest.approx(expected.item())


def test_scores_of_few_classes_are_no_boxes():
    with pytest.raises(ValueError, match='boxes of four numbers.* got 3'):
        BoxGIoULoss()(torch.randn(2, 3), torch.randn(2, 3))
