"""Which of the student's queries answers which of the teacher's."""

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from mmrkkd.distillers.class_map import ClassMap
from mmrkkd.distillers.readers.base import Scores
from mmrkkd.distillers.readers.query_matching import (
    Predictions,
    box_cost,
    class_cost,
    dice,
    matched,
    pair_costs,
    surest,
)

SIGMOID = Scores(3, 'sigmoid')
SOFTMAX = Scores(4, 'softmax', background=True)


def random(queries, channels=3, images=2, seed=0):
    """Predictions with boxes inside the image, and small masks."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(images, queries, 4, generator=generator)
    return Predictions(
        torch.randn(images, queries, channels, generator=generator),
        boxes * 0.4 + 0.2,
        torch.randn(images, queries, 5, 7, generator=generator),
    )


def test_class_cost_of_a_sigmoid():
    # Teacher: probabilities 1/2 and 3/4; student: 1/4 and 1/2.
    teacher = torch.tensor([[[0.0, math.log(3)]]])
    student = torch.tensor([[[-math.log(3), 0.0]]])
    first = 0.5 * math.log(4) + 0.5 * math.log(4 / 3)
    second = math.log(2)
    cost = class_cost(student, teacher, 'sigmoid')
    torch.testing.assert_close(cost, torch.tensor([[[first + second]]]))


def test_class_cost_of_a_softmax():
    # Teacher: 1/2, 1/2; student: 1/4, 3/4.
    teacher = torch.zeros(1, 1, 2)
    student = torch.tensor([[[0.0, math.log(3)]]])
    expected = 0.5 * math.log(4) + 0.5 * math.log(4 / 3)
    cost = class_cost(student, teacher, 'softmax')
    torch.testing.assert_close(cost, torch.tensor([[[expected]]]))


def test_box_cost_of_boxes_apart():
    # Unit squares side by side with a gap of one: L1 = 2, no overlap, the
    # hull is 3, the union 2: GIoU = 0 - 1/3.
    teacher = torch.tensor([[[0.5, 0.5, 1.0, 1.0]]])
    student = torch.tensor([[[2.5, 0.5, 1.0, 1.0]]])
    expected = 5 * 2 + 2 * (1 + 1 / 3)
    torch.testing.assert_close(
        box_cost(student, teacher), torch.tensor([[[expected]]])
    )


def test_box_cost_of_a_box_inside():
    # A square of side 1 inside one of side 2: L1 = 1 + 1, GIoU = IoU = 1/4.
    teacher = torch.tensor([[[1.0, 1.0, 2.0, 2.0]]])
    student = torch.tensor([[[1.0, 1.0, 1.0, 1.0]]])
    expected = 5 * 2 + 2 * (1 - 1 / 4)
    torch.testing.assert_close(
        box_cost(student, teacher), torch.tensor([[[expected]]])
    )


def test_boxes_without_area_have_a_finite_cost():
    boxes = torch.tensor([[[0.5, 0.5, 0.0, 0.0]]])
    assert box_cost(boxes, boxes).isfinite().all()


def test_dice_of_masks_of_other_sizes():
    # The left half against the whole, and against the right half.
    left = torch.full((1, 1, 4, 4), -50.0)
    left[..., :2] = 50.0
    whole, right = torch.full((1, 1, 8, 8), 50.0), -left
    values = dice(left, torch.cat([whole[..., :4, :4], right], 1))
    # 2 (1/2) / (1/2 + 1) = 2/3; what is between the halves is interpolated.
    assert abs(values[0, 0, 0] - 2 / 3) < 1e-3
    assert values[0, 1, 0] < 0.05
    assert dice(left, whole).shape == (1, 1, 1)


@pytest.mark.parametrize('scores', [SIGMOID, SOFTMAX], ids=str)
def test_a_permuted_teacher_is_found_again(scores):
    student = random(12, scores.channels)
    orders = torch.stack([torch.randperm(12) for _ in range(2)])
    teacher = student.pick(orders)
    (found,) = matched([student], [teacher], scores)
    assert torch.equal(found, orders)


def test_the_assignment_has_the_least_sum_of_costs():
    student, teacher = random(9), random(4, seed=1)
    costs = pair_costs(student, teacher, SIGMOID)
    (found,) = matched([student], [teacher], SIGMOID)
    for image in range(2):
        _, columns = linear_sum_assignment(costs[image].numpy())
        assert found[image].tolist() == columns.tolist()
        assert sorted(set(found[image].tolist())) == sorted(found[image])
    # Each pair by itself.
    alone = pair_costs(
        Predictions(*(each[1:, 5:6] for each in student[:3])),
        Predictions(*(each[1:, 2:3] for each in teacher[:3])),
        SIGMOID,
    )
    torch.testing.assert_close(alone[0, 0, 0], costs[1, 2, 5])


def test_layers_are_assigned_one_by_one():
    students = [random(6, seed=seed) for seed in range(3)]
    teachers = [random(5, seed=seed + 9) for seed in range(3)]
    together = matched(students, teachers, SIGMOID)
    for found, student, teacher in zip(together, students, teachers):
        (alone,) = matched([student], [teacher], SIGMOID)
        assert torch.equal(found, alone)


def test_queries_that_do_not_count_answer_last():
    student = random(6)
    counts = torch.tensor([[True] * 3 + [False] * 3] * 2)
    teacher = student.pick(torch.tensor([[5, 0, 1]] * 2))
    (found,) = matched([student._replace(counts=counts)], [teacher], SIGMOID)
    assert (found < 3).all()
    assert found[:, 1:].tolist() == [[0, 1]] * 2


def test_a_diverged_student_is_still_assigned():
    student = random(6)
    student.scores[0, 0] = float('nan')
    student.boxes[1] = float('inf')
    (found,) = matched([student], [random(3, seed=1)], SIGMOID)
    assert all(len(set(row)) == 3 for row in found.tolist())
    assert 0 not in found[0]


def test_half_precision_is_assigned_in_float32():
    student, teacher = random(8), random(4, seed=1)
    half = [
        Predictions(*(each.bfloat16() for each in side[:3]))
        for side in (student, teacher)
    ]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = matched([half[0]], [half[1]], SIGMOID)
    wide = [Predictions(*(each.float() for each in side[:3])) for side in half]
    assert torch.equal(found[0], matched([wide[0]], [wide[1]], SIGMOID)[0])


def test_the_background_is_no_confidence():
    scores = torch.tensor([[[0.0, 0, 0, 9], [0, 2, 0, 0], [0, 0, 1, 0]]])
    assert surest(Predictions(scores), 2, SOFTMAX).tolist() == [[1, 2]]
    assert surest(Predictions(scores), 9, SOFTMAX).shape == (1, 3)


def test_a_class_that_the_student_has_not_is_no_confidence():
    scores = torch.tensor([[[9.0, 0], [8, 2], [-9, 1]]])
    found = surest(
        Predictions(scores), 2, Scores(1, 'sigmoid'), ClassMap((0,), (1,))
    )
    assert found.tolist() == [[1, 2]]


def test_no_gradient_goes_through_the_matching():
    student = random(4)
    student.scores.requires_grad_()
    (found,) = matched([student], [random(2, seed=1)], SIGMOID)
    assert not found.requires_grad
