"""MGD: the teacher's map, made from a part of the student's."""

import pytest
import torch
from torch import nn

from mmrkkd.losses import MGDLoss
from mmrkkd.losses.feature import FeaturePair

TEACHER = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2)
STUDENT = torch.tensor([1.0, -1.0, 2.0, 4.0]).view(1, 1, 2, 2)
MASK = torch.tensor([1.0, 1.0, 0.0, 1.0]).view(1, 1, 2, 2)


def made(monkeypatch, first, **options):
    """A loss with a fixed mask and a generator of a given first kernel."""
    loss = MGDLoss('a', **options)
    loss.connect([(1, 1, 2, 2)], [(1, 1, 2, 2)])
    one, _, two = loss.generators[0]
    for conv in (one, two):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    if first is not None:
        nn.init.constant_(one.weight, first)
    monkeypatch.setattr(loss, 'draw', lambda student: MASK)
    return loss


@pytest.mark.parametrize(
    ('first', 'expected'),
    [
        # ReLU of (1, -1; 0, 4): errors 0, 2, 3, 0.
        (None, 4 + 9),
        # All four cells see the same sum, 4: errors 3, 2, 1, 0.
        (1.0, 9 + 4 + 1),
    ],
)
def test_golden_value(monkeypatch, first, expected):
    loss = made(monkeypatch, first, loss_weight=2e-5)
    term = loss(FeaturePair([STUDENT], [TEACHER]))['loss_mgd']
    assert term.item() == pytest.approx(2e-5 * expected)


def test_sum_over_cells_and_mean_over_images(monkeypatch):
    loss = made(monkeypatch, None, loss_weight=1.0)
    twice = FeaturePair(
        [STUDENT.repeat(2, 1, 1, 1)], [TEACHER.repeat(2, 1, 1, 1)]
    )
    assert loss(twice)['loss_mgd'].item() == pytest.approx(13)


@pytest.mark.parametrize(
    ('mask', 'shape'), [('cells', (8, 1, 50, 50)), ('channels', (8, 40, 1, 1))]
)
def test_mask_hides_the_share_that_was_asked_for(mask, shape):
    torch.manual_seed(0)
    drawn = MGDLoss('a', masked=0.3, mask=mask).draw(torch.ones(8, 40, 50, 50))
    assert drawn.shape == shape
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    # Three deviations of a mean of 320 draws.
    assert drawn.mean().item() == pytest.approx(0.7, abs=0.08)


def test_every_step_draws_anew():
    loss = MGDLoss('a')
    some = torch.ones(1, 1, 50, 50)
    assert not torch.equal(loss.draw(some), loss.draw(some))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(masked=1.0), r'masked must be the share .* got 1.0'),
        (dict(mask='pixels'), 'mask must be one of'),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        MGDLoss('a', **options)
