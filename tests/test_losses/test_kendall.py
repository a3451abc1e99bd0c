"""The ranking loss around the op."""

import pytest
import torch

from mmrkkd.losses import KendallLoss, RankKDLoss, build_loss
from mmrkkd.ops import kendall_tau, standardize


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 8, 12, generator=generator).double().unbind(0)


def test_is_minus_tau_of_standardised_logits(logits):
    terms = KendallLoss(rank_weight=0.7, steepness=2.0, form=3, min_std=0)(
        *logits
    )
    assert list(terms) == ['loss_rank']
    tau = kendall_tau(
        standardize(logits[0]), standardize(logits[1]), steepness=2.0, form=3
    )
    torch.testing.assert_close(terms['loss_rank'], -0.7 * tau.mean())


def test_without_normalisation(logits):
    loss = KendallLoss(normalize=False)(*logits)['loss_rank']
    torch.testing.assert_close(loss, -kendall_tau(*logits).mean())


def test_scale_of_either_side_does_not_matter(logits):
    loss_function = KendallLoss(min_std=0)
    loss = loss_function(*logits)['loss_rank']
    scaled = loss_function(5 * logits[0] + 3, 0.1 * logits[1] - 2)
    torch.testing.assert_close(scaled['loss_rank'], loss, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('order', ['top', 'min'])
def test_teacher_chooses_the_ranked_share(logits, order):
    # 25 % of 12 classes are 3; normalisation is over all 12.
    student, teacher = logits
    loss = KendallLoss(min_std=0, channel_share=0.25, channel_order=order)
    chosen = teacher.argsort(-1, descending=order == 'top')[:, :3]
    tau = kendall_tau(
        standardize(student).gather(-1, chosen),
        standardize(teacher).gather(-1, chosen),
    )
    torch.testing.assert_close(
        loss(student, teacher)['loss_rank'], -tau.mean()
    )


def test_share_keeps_at_least_one_pair(logits):
    loss = KendallLoss(channel_share=0.01)(*logits)['loss_rank']
    assert loss != 0


def test_ignored_channels_do_not_exist(logits):
    student, teacher = logits
    loss = KendallLoss(ignore_channels=[-1, 0])(student, teacher)
    expected = KendallLoss()(student[:, 1:-1], teacher[:, 1:-1])
    torch.testing.assert_close(loss['loss_rank'], expected['loss_rank'])


def test_descent_reaches_the_teachers_order(logits):
    student = logits[0].clone().requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.05)
    loss_function = KendallLoss(steepness=2.0)
    for _ in range(200):
        optimizer.zero_grad()
        loss_function(student, logits[1])['loss_rank'].backward()
        optimizer.step()
    order = student.argsort(-1) == logits[1].argsort(-1)
    assert order.double().mean() > 0.9


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(rank_weight=-0.1), 'rank_weight must be .* >= 0, got -0.1'),
        (dict(steepness=0), 'steepness must be .* > 0, got 0'),
        (dict(form=0), 'form must be one of .* got 0'),
        (dict(eps=0.0), 'eps must be .* > 0, got 0.0'),
        (dict(channel_share=0), 'channel_share must be .* > 0, got 0'),
        (
            dict(channel_share=1.5),
            r'channel_share must be in \(0, 1\], got 1.5',
        ),
        (
            dict(channel_order='max'),
            "channel_order must be one of .* got 'max'",
        ),
        (dict(impl='magic'), "impl must be one of .* got 'magic'"),
        (
            dict(impl='approx', form=2),
            "impl='approx' knows forms 1 and 3, got form=2",
        ),
        (dict(normalize='no'), "normalize must be True or False, got 'no'"),
        (dict(ignore_channels=-1), 'must be a list of indices .* got -1'),
        (dict(ignore_channels='12'), "must be a list of indices .* got '12'"),
        (dict(ignore_channels=[1.0]), r'must be a list .* got \[1.0\]'),
    ],
)
@pytest.mark.parametrize('kind', [KendallLoss, RankKDLoss])
def test_errors(kind, change, message):
    with pytest.raises(ValueError, match=message):
        kind(**change)


def test_the_old_name_of_the_weight_warns(logits):
    with pytest.warns(FutureWarning, match='is called rank_weight now'):
        loss = build_loss(dict(type='KendallLoss', loss_weight=0.5))
    torch.testing.assert_close(
        loss(*logits), KendallLoss(rank_weight=0.5)(*logits)
    )


def test_the_old_name_takes_schedules_and_is_checked():
    ramp = dict(type='linear', end=4)
    with pytest.warns(FutureWarning):
        assert 'linear 0 to 1' in repr(KendallLoss(loss_weight=ramp))
    with (
        pytest.warns(FutureWarning),
        pytest.raises(ValueError, match='rank_weight must be .* got -1'),
    ):
        KendallLoss(loss_weight=-1)


def test_a_class_ruled_out_for_all_samples_can_be_ignored(logits):
    student, teacher = (value.clone() for value in logits)
    expected = KendallLoss()(student[:, :-1], teacher[:, :-1])
    teacher[:, -1] = -torch.inf
    loss = KendallLoss(ignore_channels=[-1])(student, teacher)
    torch.testing.assert_close(loss, expected)
    assert KendallLoss()(student, teacher)['loss_rank'].isnan()


def test_ignored_channels_must_exist_and_leave_two():
    logits = torch.randn(2, 3)
    with pytest.raises(ValueError, match=r'lie in \[-3, 2\] .* got 3'):
        KendallLoss(ignore_channels=[3])(logits, logits)
    with pytest.raises(ValueError, match='leaves fewer than 2 of 3 classes'):
        KendallLoss(ignore_channels=[0, 1])(logits, logits)
