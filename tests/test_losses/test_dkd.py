"""DKD against arithmetic and a float64 oracle."""

import math

import pytest
import torch

from mmrkkd.losses import DKDLoss, NKDLoss, Progress, RankKDLoss, set_progress
from mmrkkd.ops import kl_divergence


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(
        2, 7, 12, generator=generator, dtype=torch.float64
    )
    return student, teacher, torch.randint(12, (7,), generator=generator)


def kl(teacher, student):
    return sum(p * math.log(p / q) for p, q in zip(teacher, student))


def softmax(logits):
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


def oracle(student, teacher, label, temperature):
    """The two divergences of one sample, from probabilities."""
    binary, others = [], []
    for logits in (student, teacher):
        logits = [value / temperature for value in logits]
        p = softmax(logits)[label]
        binary.append((p, 1 - p))
        others.append(softmax(logits[:label] + logits[label + 1 :]))
    return kl(binary[1], binary[0]), kl(others[1], others[0])


def test_three_classes_by_hand():
    # T = 1, label 0. Student (2, 1, 1) / 4 against teacher (5, 3, 1) / 9:
    # target 1/2 against 5/9, others (1/2, 1/2) against (3/4, 1/4).
    student = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64).log()
    teacher = torch.tensor([[5.0, 3.0, 1.0]], dtype=torch.float64).log()
    loss = DKDLoss(temperature=1.0, target_weight=1, non_target_weight=1)
    terms = loss(student, teacher, torch.tensor([0]))
    assert list(terms) == ['loss_dkd_target', 'loss_dkd_non_target']
    target = 5 / 9 * math.log(10 / 9) + 4 / 9 * math.log(8 / 9)
    non_target = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    torch.testing.assert_close(terms['loss_dkd_target'].item(), target)
    torch.testing.assert_close(terms['loss_dkd_non_target'].item(), non_target)


def test_equals_the_oracle(batch):
    student, teacher, labels = batch
    terms = DKDLoss(2.0, 0.25, temperature=3.0, loss_weight=0.5)(*batch)
    expected = [
        oracle(s.tolist(), t.tolist(), y.item(), 3.0)
        for s, t, y in zip(student, teacher, labels)
    ]
    target, non_target = (sum(term) / 7 for term in zip(*expected))
    torch.testing.assert_close(
        terms['loss_dkd_target'].item(), 0.5 * 2 * 9 * target
    )
    torch.testing.assert_close(
        terms['loss_dkd_non_target'].item(), 0.5 * 0.25 * 9 * non_target
    )


def test_parts_with_the_teachers_doubt_are_plain_distillation(batch):
    # KL = KL(b_t || b_s) + (1 - p_t(y)) KL(q_t || q_s)
    student, teacher, labels = batch
    loss = DKDLoss(1.0, 1.0, temperature=1.0)
    for index in range(len(labels)):
        sample = slice(index, index + 1)
        terms = loss(student[sample], teacher[sample], labels[sample])
        doubt = 1 - teacher[index].softmax(-1)[labels[index]]
        torch.testing.assert_close(
            terms['loss_dkd_target'] + doubt * terms['loss_dkd_non_target'],
            kl_divergence(student[index], teacher[index]),
        )


@pytest.mark.parametrize('margin', [40.0, 1e4, 1e30])
def test_confident_student_keeps_its_gradient(margin):
    # 1 - p_s is 0 in float32, its logarithm -margin is not. Against a
    # teacher of p = 1/2 of two classes: KL = margin / 2 - log 2.
    student = torch.tensor([[margin, 0.0]], requires_grad=True)
    loss = DKDLoss(1.0, 1.0, temperature=1.0)
    terms = loss(student, torch.zeros(1, 2), torch.tensor([0]))
    value = terms['loss_dkd_target']
    value.backward()
    torch.testing.assert_close(value.item(), margin / 2 - math.log(2))
    torch.testing.assert_close(student.grad, torch.tensor([[0.5, -0.5]]))


def test_half_precision_saturated_teacher_and_student_are_finite():
    student = torch.tensor([[6e4, -6e4, 0.0]]).half().requires_grad_()
    teacher = torch.tensor([[-6e4, 6e4, 0.0]]).half()
    terms = DKDLoss()(student, teacher, torch.tensor([1]))
    sum(terms.values()).backward()
    assert all(value.isfinite() for value in terms.values())
    assert student.grad.isfinite().all()


def test_two_classes_have_no_order_among_the_others(batch):
    student, teacher, labels = batch
    terms = DKDLoss()(student[:, :2], teacher[:, :2], labels % 2)
    assert terms['loss_dkd_non_target'] == 0
    assert terms['loss_dkd_target'] > 0


def test_moving_the_target_logit_leaves_the_other_term(batch):
    student, teacher, labels = batch
    moved = student.scatter_add(
        -1, labels[:, None], torch.full((7, 1), 5.0).double()
    )
    before, after = (DKDLoss()(s, teacher, labels) for s in (student, moved))
    assert before['loss_dkd_target'] != after['loss_dkd_target']
    torch.testing.assert_close(
        before['loss_dkd_non_target'], after['loss_dkd_non_target']
    )


def test_published_warm_up_is_a_twentieth_in_the_first_epoch(batch):
    loss = DKDLoss(loss_weight=dict(type='linear', end=20))
    full = DKDLoss()(*batch)
    for epoch, share in ((1, 1 / 20), (10, 1 / 2), (20, 1), (240, 1)):
        set_progress(loss, Progress(epoch=epoch))
        for name, value in loss(*batch).items():
            torch.testing.assert_close(value, share * full[name])


def test_ranking_is_added_to_it(batch):
    loss = RankKDLoss(
        kd=dict(type='DKDLoss', loss_weight=dict(type='linear', end=20)),
        kd_weight=0.5,
    )
    set_progress(loss, Progress(epoch=20))
    terms = loss(*batch)
    alone = DKDLoss(loss_weight=0.5)(*batch)
    assert set(terms) == {*alone, 'loss_rank'}
    for name, value in alone.items():
        torch.testing.assert_close(terms[name], value)


def test_labels_are_needed(batch):
    student, teacher, labels = batch
    with pytest.raises(ValueError, match='DKDLoss needs labels, got None'):
        DKDLoss()(student, teacher)
    with pytest.raises(ValueError, match=r'class indices in \[0, 11\]'):
        DKDLoss()(student, teacher, labels + 12)


@pytest.mark.parametrize(
    'name,value',
    [
        ('target_weight', -1),
        ('non_target_weight', -1),
        ('temperature', 0),
        ('loss_weight', -1),
    ],
)
def test_errors(name, value):
    with pytest.raises(ValueError, match=f'^{name} must be .* got {value}'):
        DKDLoss(**{name: value})


@pytest.mark.parametrize('loss', [DKDLoss, NKDLoss])
def test_a_teacher_that_leaves_the_label_alone_says_nothing_of_others(loss):
    teacher = torch.tensor([[1.0, -torch.inf, -torch.inf]]).double()
    student = torch.tensor([[0.5, 1.0, 2.0]]).double().requires_grad_()
    target, others = loss()(student, teacher, torch.tensor([0])).values()
    (target + others).backward()
    assert target > 0 and others == 0
    assert student.grad.isfinite().all() and student.grad.any()
    # Nor where the student leaves it alone too.
    same = teacher.clone().requires_grad_()
    sum(loss()(same, teacher, torch.tensor([0])).values()).backward()
    assert same.grad.tolist() == [[0, 0, 0]]
