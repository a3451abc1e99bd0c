"""Where a loss applies, what it is divided by, and which scores it is for."""

import pytest
import torch

from mmrkkd.losses import (
    LOSSES,
    BinaryKDLoss,
    KDLoss,
    KendallLoss,
    LogitLoss,
    RankKDLoss,
    build_loss,
)
from mmrkkd.losses.placement import Placement

LOSSES = {
    name: kind for name, kind in LOSSES.items() if issubclass(kind, LogitLoss)
}
RANKING = ('KendallLoss', 'LRALoss', 'ListMLELoss', 'RankKDLoss')
BINARY = ('BinaryKDLoss', 'BinaryKLLoss')


class Selector:
    """Notes the placements that it is asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, placement):
        self.asked.append(placement)
        student, teacher = torch.randn(2, 4, 5)
        if placement.locations == 'top':
            return student[:1], teacher[:1], None, None, None
        normalizer = 8.0 if placement.normalizer == 'positives' else None
        return student, teacher, None, None, normalizer


def asked(loss):
    select = Selector()
    loss.located(select)
    return [(each.locations, each.normalizer) for each in select.asked]


@pytest.mark.parametrize('name', sorted(LOSSES))
def test_every_loss_may_say_where_it_applies(name):
    loss = build_loss(
        dict(type=name, locations='top', top=0.25, normalizer='positives')
    )
    assert loss.placement == Placement('top', 0.25, 'positives')
    assert 'at top 25.00%, divided by positives' in repr(loss)
    assert LOSSES[name]().placement == Placement()


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(locations='some'), "locations must be one of .* got 'some'"),
        (dict(top=0), 'top must be a finite number > 0, got 0'),
        (dict(top=1.5), r'top must be in \(0, 1\], got 1.5'),
        (dict(normalizer='mean'), "normalizer must be one of .* got 'mean'"),
    ],
)
def test_wrong_places_are_refused_when_built(options, message):
    with pytest.raises(ValueError, match=message):
        build_loss(dict(type='KDLoss', **options))


def test_a_key_of_kendall_loss_stays_what_it_was():
    loss = build_loss(dict(type='KendallLoss', normalize=False))
    assert loss.normalize is False
    assert loss.placement == Placement()


def test_by_default_a_loss_is_where_the_reader_says():
    assert asked(KDLoss()) == [(None, 'weight')]
    assert asked(KendallLoss()) == [(None, 'weight')]
    assert asked(BinaryKDLoss()) == [(None, 'positives')]


def test_the_parts_of_rkkd_may_be_in_two_places():
    loss = RankKDLoss(kd=dict(type='BinaryKDLoss'), rank_locations='top')
    assert asked(loss) == [(None, 'positives'), ('top', 'weight')]


@pytest.mark.parametrize('name', [*BINARY, 'KDLoss'])
def test_a_loss_inside_rkkd_is_divided_as_by_itself(name):
    """Whether or not its reader has a place of its own for the ranking."""
    (alone,) = asked(LOSSES[name]())
    parts = asked(RankKDLoss(kd=dict(type=name)))
    assert (
        parts == [alone] if name not in BINARY else [alone, (None, 'weight')]
    )
    stated = build_loss(
        dict(type='RankKDLoss', kd=dict(type=name), normalizer='positives')
    )
    assert asked(stated) == [(None, 'positives')]


def test_the_parts_of_rkkd_keep_their_weights_in_two_places():
    student, teacher = torch.randn(2, 6, 5).double()

    def select(placement):
        rows = slice(2) if placement.locations == 'top' else slice(None)
        return student[rows], teacher[rows], None, None, None

    loss = RankKDLoss(
        temperature=2.0,
        kd_weight=0.5,
        rank_weight=0.25,
        steepness=3.0,
        rank_locations='top',
    )
    terms = loss.located(select)
    kd = KDLoss(temperature=2.0)(student, teacher)['loss_kd']
    rank = KendallLoss(steepness=3.0)(student[:2], teacher[:2])['loss_rank']
    assert list(terms) == ['loss_kd', 'loss_rank']
    torch.testing.assert_close(terms['loss_kd'], 0.5 * kd)
    torch.testing.assert_close(terms['loss_rank'], 0.25 * rank)


def test_a_place_for_rkkd_is_that_of_its_parts():
    loss = build_loss(
        dict(
            type='RankKDLoss',
            kd=dict(type='BinaryKDLoss', locations='all'),
            locations='confidence',
        )
    )
    assert asked(loss) == [('all', 'positives'), ('confidence', 'weight')]


@pytest.mark.parametrize('name', sorted(set(LOSSES) - set(BINARY)))
def test_losses_of_before_are_for_a_softmax(name):
    LOSSES[name]().suit('softmax')


@pytest.mark.parametrize('name', BINARY)
def test_binary_losses_are_refused_on_a_softmax(name):
    loss = LOSSES[name]()
    loss.suit('sigmoid')
    with pytest.raises(TypeError, match=f'{name} is for .* use KDLoss'):
        loss.suit('softmax')
    with pytest.raises(TypeError, match=f'{name} is for .* use KDLoss'):
        RankKDLoss(kd=dict(type=name)).suit('softmax')


@pytest.mark.parametrize('name', ['KDLoss', 'DKDLoss', 'DISTLoss', 'CTKDLoss'])
def test_softmax_losses_are_refused_on_a_sigmoid(name):
    message = f'{name} compares .* use BinaryKDLoss or BinaryKLLoss'
    with pytest.raises(TypeError, match=message):
        LOSSES[name]().suit('sigmoid')
    with pytest.raises(TypeError, match=message):
        RankKDLoss(kd=dict(type=name)).suit('sigmoid')
    # LD's form.
    build_loss(dict(type=name, locations='foreground')).suit('sigmoid')


@pytest.mark.parametrize('name', RANKING)
def test_an_order_is_one_of_any_scores(name):
    LOSSES[name]().suit('sigmoid')


def test_rkkd_chooses_its_kd_loss_by_the_scores():
    loss = RankKDLoss()
    loss.suit('softmax')
    assert isinstance(loss.kd, KDLoss)
    loss.suit('sigmoid')
    assert isinstance(loss.kd, BinaryKDLoss)
    with pytest.raises(TypeError, match='KDLoss compares'):
        RankKDLoss(temperature=2.0).suit('sigmoid')


def test_labels_matter_only_where_the_loss_applies():
    """A sigmoid head's background is no class."""
    loss = LOSSES['DKDLoss']()
    student, teacher = torch.randn(2, 4, 5)
    labels = torch.tensor([0, 5, 4, -1])
    weight = torch.tensor([1.0, 0, 1, 0])
    kept = weight > 0
    assert loss(student, teacher, labels, weight) == loss(
        student[kept], teacher[kept], labels[kept]
    )
    with pytest.raises(ValueError, match=r'labels must be .* in \[0, 4\]'):
        loss(student, teacher, labels)
