"""The ranking loss around the op."""

import pytest
import torch

from mmrkkd.losses import KendallLoss
from mmrkkd.ops import kendall_tau, standardize


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 8, 12, generator=generator).double().unbind(0)


def test_is_minus_tau_of_standardised_logits(logits):
    terms = KendallLoss(loss_weight=0.7, steepness=2.0, form=3)(*logits)
    assert list(terms) == ['loss_kendall']
    tau = kendall_tau(
        standardize(logits[0]), standardize(logits[1]), steepness=2.0, form=3
    )
    torch.testing.assert_close(terms['loss_kendall'], -0.7 * tau.mean())


def test_without_normalisation(logits):
    loss = KendallLoss(normalize=False)(*logits)['loss_kendall']
    torch.testing.assert_close(loss, -kendall_tau(*logits).mean())


def test_scale_of_either_side_does_not_matter(logits):
    loss = KendallLoss()(*logits)['loss_kendall']
    scaled = KendallLoss()(5 * logits[0] + 3, 0.1 * logits[1] - 2)
    torch.testing.assert_close(
        scaled['loss_kendall'], loss, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize('order', ['top', 'min'])
def test_teacher_chooses_the_ranked_share(logits, order):
    # 25 % of 12 classes are 3; normalisation is over all 12.
    student, teacher = logits
    loss = KendallLoss(channel_share=0.25, channel_order=order)
    chosen = teacher.argsort(-1, descending=order == 'top')[:, :3]
    tau = kendall_tau(
        standardize(student).gather(-1, chosen),
        standardize(teacher).gather(-1, chosen),
    )
    torch.testing.assert_close(
        loss(student, teacher)['loss_kendall'], -tau.mean()
    )


def test_share_keeps_at_least_one_pair(logits):
    loss = KendallLoss(channel_share=0.01)(*logits)['loss_kendall']
    assert loss != 0


def test_ignored_channels_do_not_exist(logits):
    student, teacher = logits
    loss = KendallLoss(ignore_channels=[-1, 0])(student, teacher)
    expected = KendallLoss()(student[:, 1:-1], teacher[:, 1:-1])
    torch.testing.assert_close(loss['loss_kendall'], expected['loss_kendall'])


def test_descent_reaches_the_teachers_order(logits):
    student = logits[0].clone().requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.05)
    loss_function = KendallLoss(steepness=2.0)
    for _ in range(200):
        optimizer.zero_grad()
        loss_function(student, logits[1])['loss_kendall'].backward()
        optimizer.step()
    order = student.argsort(-1) == logits[1].argsort(-1)
    assert order.double().mean() > 0.9


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(loss_weight=-0.1), 'loss_weight must be .* >= 0, got -0.1'),
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
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        KendallLoss(**change)


def test_ignored_channels_must_exist_and_leave_two():
    logits = torch.randn(2, 3)
    with pytest.raises(ValueError, match=r'lie in \[-3, 2\] .* got 3'):
        KendallLoss(ignore_channels=[3])(logits, logits)
    with pytest.raises(ValueError, match='leaves fewer than 2 of 3 classes'):
        KendallLoss(ignore_channels=[0, 1])(logits, logits)
