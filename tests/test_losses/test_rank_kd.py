"""The combination, its configs and MMRazor's way of calling."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrkkd.losses import (
    DKDLoss,
    KDLoss,
    KendallLoss,
    MLKDLoss,
    RankKDLoss,
    build_loss,
)
from mmrkkd.registry import MODELS


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 8, 12, generator=generator).double().unbind(0)


def test_is_the_weighted_sum_of_its_parts(logits):
    terms = RankKDLoss(
        temperature=2.0, kd_weight=0.5, rank_weight=0.25, steepness=3.0
    )(*logits)
    assert list(terms) == ['loss_kd', 'loss_rank']
    kd = KDLoss(temperature=2.0)(*logits)['loss_kd']
    rank = KendallLoss(steepness=3.0)(*logits)['loss_rank']
    torch.testing.assert_close(terms['loss_kd'], 0.5 * kd)
    torch.testing.assert_close(terms['loss_rank'], 0.25 * rank)


def test_published_defaults():
    loss = RankKDLoss()
    assert loss.kd.temperature == 4 and loss.now(loss.kd_weight) == 0.9
    assert loss.now(loss.rank.rank_weight) == 0.9 and loss.rank.steepness == 1
    assert loss.rank.form == 1 and loss.rank.normalize


@pytest.mark.parametrize(
    'kd',
    [
        dict(type='KDLoss', temperature=3.0),
        dict(type='mmrkkd.KDLoss', temperature=3.0),
        KDLoss(temperature=3.0),
    ],
)
def test_any_logit_loss_can_be_enhanced(logits, kd):
    terms = RankKDLoss(kd=kd, kd_weight=1.0)(*logits)
    torch.testing.assert_close(
        terms['loss_kd'], KDLoss(temperature=3.0)(*logits)['loss_kd']
    )


def test_works_in_a_plain_training_loop():
    torch.manual_seed(0)
    student, teacher = nn.Linear(6, 10), nn.Linear(6, 10)
    loss_function = RankKDLoss()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.5)
    values = []
    for _ in range(60):
        inputs = torch.randn(64, 6)
        with torch.no_grad():
            targets = teacher(inputs)
        loss = sum(loss_function(student(inputs), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < values[0] - 0.5


def test_mmrazor_call_gives_the_scalar_sum(logits):
    loss_function = RankKDLoss()
    total = loss_function(preds_S=logits[0], preds_T=logits[1])
    assert total.shape == ()
    torch.testing.assert_close(total, sum(loss_function(*logits).values()))


@pytest.mark.parametrize('positions', [(), (3,), (3, 1), (2, 3, 4)])
def test_mmrazor_call_has_the_classes_in_dimension_1(positions):
    student, teacher = torch.randn(2, 5, 7, *positions).double()
    # As its KLDivergence is written, reduction='batchmean'.
    expected = 3.0**2 * F.kl_div(
        F.log_softmax(student / 3.0, dim=1),
        F.softmax(teacher / 3.0, dim=1),
        reduction='batchmean',
    )
    total = KDLoss(temperature=3.0)(preds_S=student, preds_T=teacher)
    torch.testing.assert_close(total, expected)


def test_mmrazor_call_with_labels_of_positions():
    student, teacher = torch.randn(2, 5, 7, 3, 2).double()
    labels = torch.randint(7, (5, 3, 2))
    terms = DKDLoss()(
        student.movedim(1, -1).reshape(-1, 7),
        teacher.movedim(1, -1).reshape(-1, 7),
        labels.flatten(),
    )
    total = DKDLoss()(preds_S=student, preds_T=teacher, labels=labels)
    torch.testing.assert_close(total, 6 * sum(terms.values()))


def test_mmrazor_call_of_two_views_is_ours():
    student, teacher = torch.randn(2, 2, 5, 7)
    total = MLKDLoss()(preds_S=student, preds_T=teacher)
    torch.testing.assert_close(
        total, sum(MLKDLoss()(student, teacher).values())
    )


@pytest.mark.parametrize('missing', ['preds_S', 'preds_T'])
def test_mmrazor_call_needs_both(missing):
    preds = dict(preds_S=torch.randn(2, 3, 4), preds_T=torch.randn(2, 3, 4))
    preds[missing] = None
    with pytest.raises(TypeError, match='logits must be a floating point'):
        KDLoss()(**preds)


def test_names_of_both_callers_do_not_mix(logits):
    with pytest.raises(TypeError, match='either student_logits .* preds_S'):
        RankKDLoss()(logits[0], preds_T=logits[1])


def test_temperature_beside_kd_is_refused():
    with pytest.raises(ValueError, match='temperature belongs to the default'):
        RankKDLoss(temperature=2.0, kd=dict(type='KDLoss'))


@pytest.mark.parametrize(
    'kd',
    [
        dict(type='RankKDLoss'),
        dict(type='KendallLoss'),
        dict(type='LSKDLoss', kd=dict(type='KendallLoss', normalize=False)),
    ],
)
def test_ranking_twice_is_refused(kd):
    with pytest.raises(ValueError, match='kd ranks already'):
        RankKDLoss(kd=kd)


def test_only_losses_are_built():
    with pytest.raises(
        TypeError, match='must be a DistillationLoss .* got MSELoss'
    ):
        build_loss(nn.MSELoss())


def test_only_logit_losses_are_enhanced():
    with pytest.raises(TypeError, match='must be a LogitLoss .* got MSELoss'):
        RankKDLoss(kd=nn.MSELoss())


def test_every_option_of_the_ranking_term_can_be_set():
    own = inspect.signature(RankKDLoss).parameters
    term = inspect.signature(KendallLoss).parameters
    assert set(term) - {'loss_weight'} <= set(own)


def test_options_of_the_ranking_term_reach_it(logits):
    options = dict(
        steepness=2.0,
        form=3,
        eps=0.5,
        channel_share=0.5,
        channel_order='min',
        ignore_channels=[0],
        min_std=dict(absolute=2.0),
        impl='eager',
    )
    expected = KendallLoss(**options)
    assert repr(RankKDLoss(rank_weight=1.0, **options).rank) == repr(expected)
    torch.testing.assert_close(
        RankKDLoss(rank_weight=1.0, **options)(*logits)['loss_rank'],
        expected(*logits)['loss_rank'],
    )


def test_builds_from_the_registry():
    loss = MODELS.build(dict(type='RankKDLoss', rank_weight=2.0))
    assert loss.now(loss.rank.rank_weight) == 2.0
