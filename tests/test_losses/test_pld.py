"""Plackett-Luce distillation against arithmetic."""

import math

import pytest
import torch

from mmrkkd.losses import PLDLoss, RankKDLoss

# e^s = (2, 1, 4), e^t = (1, 2, 5), label 1: pi = (1, 2, 0)
STUDENT = torch.tensor([[2.0, 1.0, 4.0]]).double().log()
TEACHER = torch.tensor([[1.0, 2.0, 5.0]]).double().log()
LABEL = torch.tensor([1])


def by_definition(student, teacher, label, temperature):
    """One sample, place by place."""
    rest = sorted(
        (c for c in range(len(teacher)) if c != label),
        key=lambda c: -teacher[c],
    )
    order = [label, *rest]
    weights = (torch.tensor(teacher) / temperature).softmax(-1).tolist()
    total = 0.0
    for place, chosen in enumerate(order):
        left = sum(math.exp(student[c]) for c in order[place:])
        total += weights[chosen] * (math.log(left) - student[chosen])
    return total


def test_three_classes_by_hand():
    # p_t = (1, 2, 5) / 8. Places: 1 of (1 + 4 + 2), 4 of (4 + 2), 2 of 2
    student = STUDENT.clone().requires_grad_()
    loss = PLDLoss()(student, TEACHER, LABEL)
    assert list(loss) == ['loss_pld']
    expected = 0.25 * math.log(7) + 0.625 * math.log(3 / 2)
    assert loss['loss_pld'].item() == pytest.approx(expected, 1e-12)
    loss['loss_pld'].backward()
    # 1/4 [(2, 1, 4) / 7 - e_1] + 5/8 [(2, 0, 4) / 6 - e_2]
    torch.testing.assert_close(
        student.grad,
        torch.tensor(
            [[1 / 14 + 5 / 24, 1 / 28 - 1 / 4, 1 / 7 + 5 / 12 - 5 / 8]]
        ).double(),
    )


def test_temperature_softens_the_weights_only():
    # p_t ~ (1, sqrt 2, sqrt 5)
    total = 1 + math.sqrt(2) + math.sqrt(5)
    expected = math.sqrt(2) * math.log(7) + math.sqrt(5) * math.log(3 / 2)
    loss = PLDLoss(temperature=2.0)(STUDENT, TEACHER, LABEL)['loss_pld']
    assert loss.item() == pytest.approx(expected / total, 1e-12)
    assert loss.item() == pytest.approx(0.7867438, abs=1e-7)


def test_places_are_added_up_and_samples_averaged():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 9, generator=generator).double()
    labels = torch.randint(9, (6,), generator=generator)
    expected = [
        by_definition(s, t, y, 4.0)
        for s, t, y in zip(student.tolist(), teacher.tolist(), labels.tolist())
    ]
    loss = PLDLoss(temperature=4.0, loss_weight=0.5)(student, teacher, labels)
    assert loss['loss_pld'].item() == pytest.approx(0.5 * sum(expected) / 6)


def test_a_sure_and_right_teacher_leaves_cross_entropy():
    teacher = torch.tensor([[0.0, 1e4, 0.0]]).double()
    loss = PLDLoss()(STUDENT, teacher, LABEL)['loss_pld']
    torch.testing.assert_close(
        loss, torch.nn.functional.cross_entropy(STUDENT, LABEL)
    )


def test_a_number_added_to_all_logits_changes_nothing():
    torch.testing.assert_close(
        PLDLoss()(STUDENT + 50, TEACHER - 3, LABEL),
        PLDLoss()(STUDENT, TEACHER, LABEL),
    )


def test_ranking_can_be_put_on_top():
    loss = RankKDLoss(kd=dict(type='PLDLoss'), kd_weight=1.0)
    terms = loss(STUDENT, TEACHER, LABEL)
    assert list(terms) == ['loss_pld', 'loss_rank']
    torch.testing.assert_close(
        terms['loss_pld'], PLDLoss()(STUDENT, TEACHER, LABEL)['loss_pld']
    )


@pytest.mark.parametrize(
    'name, value', [('temperature', 0), ('loss_weight', -1)]
)
def test_errors(name, value):
    with pytest.raises(ValueError, match=f'{name} must be .* got {value}'):
        PLDLoss(**{name: value})
