"""Two views, within and across, against arithmetic."""

import math

import pytest
import torch

from mmrkkd.losses import CRLDLoss, Progress, set_progress

HALF = (0.0, 0.0)
SURE = (math.log(19), 0.0)  # (0.95, 0.05)
UNSURE = (math.log(3), 0.0)  # (0.75, 0.25)


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        2 * torch.randn(2, 2, 12, 5, generator=generator).double()
    ).unbind(0)
    return student.requires_grad_(), teacher


def views(weak, strong):
    return torch.tensor([[weak], [strong]], dtype=torch.float64)


def kl(teacher, student):
    return sum(p * math.log(p / q) for p, q in zip(teacher, student))


def softmax(values, temperature=1.0):
    exponentials = [math.exp(value / temperature) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def expected_terms(student, teacher, within, cross, weak, strong, t):
    """The definition, sample by sample, in pure Python."""

    def kd(s, z):
        return t * t * kl(softmax(z, t), softmax(s, t))

    sums = [0.0, 0.0]
    samples = list(zip(*student.tolist(), *teacher.tolist()))
    for s_w, s_s, t_w, t_s in samples:
        if max(softmax(t_w)) >= weak:
            sums[0] += within * (kd(s_w, t_w) + kd(s_s, t_s))
        if max(softmax(t_s)) >= strong:
            sums[1] += cross * (kd(s_s, t_w) + kd(s_w, t_s))
    return [value / len(samples) for value in sums]


def test_one_sample_by_hand():
    loss = CRLDLoss(temperature=1.0)
    terms = loss(views(HALF, UNSURE), views(SURE, UNSURE))
    assert list(terms) == ['loss_crld_within', 'loss_crld_cross']
    half, sure, unsure = (0.5, 0.5), (0.95, 0.05), (0.75, 0.25)
    within = 2 * (kl(sure, half) + kl(unsure, unsure))
    cross = 0.5 * (kl(sure, unsure) + kl(unsure, half))
    assert terms['loss_crld_within'].item() == pytest.approx(within)
    assert terms['loss_crld_cross'].item() == pytest.approx(cross)


def test_defaults_are_those_for_cifar_100(logits):
    terms = CRLDLoss()(*logits)
    expected = expected_terms(*logits, 2.0, 0.5, 0.9, 0.2, t=4.0)
    assert [value.item() for value in terms.values()] == pytest.approx(
        expected
    )


@pytest.mark.parametrize('weak,strong', [(0.5, 0.6), (0.0, 0.9), (0.8, 0.0)])
def test_every_setting_enters_as_in_the_definition(logits, weak, strong):
    loss = CRLDLoss(2.0, 4.0, 1.0, weak, strong)
    expected = expected_terms(*logits, 4.0, 1.0, weak, strong, t=2.0)
    terms = loss(*logits)
    assert [value.item() for value in terms.values()] == pytest.approx(
        expected
    )


def test_the_weak_view_decides_within_and_the_strong_view_across():
    student = views(HALF, HALF)
    loss = CRLDLoss(weak_threshold=0.9, strong_threshold=0.9)
    for teacher, within, cross in [
        (views(SURE, UNSURE), True, False),
        (views(UNSURE, SURE), False, True),
        (views(SURE, SURE), True, True),
        (views(UNSURE, UNSURE), False, False),
    ]:
        terms = loss(student, teacher)
        assert (terms['loss_crld_within'] > 0) == within
        assert (terms['loss_crld_cross'] > 0) == cross


def test_confidence_is_taken_at_temperature_1():
    # At T = 4 the same teacher's largest probability is below 0.7.
    assert max(softmax(SURE, 4.0)) < 0.7
    terms = CRLDLoss(temperature=4.0)(views(HALF, HALF), views(SURE, SURE))
    assert terms['loss_crld_within'] > 0


def test_a_confidence_equal_to_the_threshold_is_enough():
    # softmax([0, 0]) is 1/2 exactly
    loss = CRLDLoss(weak_threshold=0.5, strong_threshold=0.5)
    terms = loss(views(SURE, SURE), views(HALF, HALF))
    assert terms['loss_crld_within'] > 0
    assert terms['loss_crld_cross'] > 0


def test_samples_that_do_not_count_stay_in_the_mean():
    student = torch.cat([views(HALF, HALF)] * 2, dim=1)
    teacher = torch.cat([views(SURE, SURE), views(UNSURE, SURE)], dim=1)
    both = CRLDLoss()(student, teacher)['loss_crld_within']
    one = CRLDLoss()(student[:, :1], teacher[:, :1])['loss_crld_within']
    torch.testing.assert_close(both, one / 2)


def test_no_gradient_for_samples_that_do_not_count():
    student = torch.cat([views(HALF, HALF)] * 2, dim=1).requires_grad_()
    teacher = torch.cat([views(SURE, SURE), views(UNSURE, SURE)], dim=1)
    CRLDLoss()(student, teacher)['loss_crld_within'].backward()
    assert (student.grad[:, 0] != 0).all()
    assert (student.grad[:, 1] == 0).all()


def test_weights_of_samples_enter_the_mean(logits):
    student, teacher = logits
    weight = torch.zeros(2, 12)
    weight[:, 3], weight[:, 7] = 3.0, 1.0
    loss = CRLDLoss()
    third, seventh = (
        loss(student[:, [index]], teacher[:, [index]]) for index in (3, 7)
    )
    for name, value in loss(student, teacher, None, weight).items():
        expected = (3 * third[name] + seventh[name]) / 4
        torch.testing.assert_close(value, expected)


def test_weights_may_be_schedules(logits):
    loss = CRLDLoss(within_weight=dict(type='linear', end=4))
    full = CRLDLoss(within_weight=1.0)(*logits)
    set_progress(loss, Progress(epoch=3))
    terms = loss(*logits)
    torch.testing.assert_close(
        terms['loss_crld_within'], 0.75 * full['loss_crld_within']
    )
    torch.testing.assert_close(
        terms['loss_crld_cross'], full['loss_crld_cross']
    )


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(temperature=0), 'temperature must be .* > 0, got 0'),
        (dict(within_weight=-1), 'within_weight must be .* got -1'),
        (dict(cross_weight=-1), 'cross_weight must be .* got -1'),
        (dict(weak_threshold=1.1), r'weak_threshold must be in \[0, 1\]'),
        (dict(strong_threshold=-0.1), 'strong_threshold must be .* got -0.1'),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        CRLDLoss(**change)
