"""ReviewKD: each teacher level learned from all deeper student levels."""

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from mmrkkd.losses import ReviewKDLoss
from mmrkkd.losses.feature import FeaturePair
from mmrkkd.losses.feature.reviewkd import _distance

SHAPES = [(1, 4, 8, 8), (1, 6, 4, 4), (1, 6)]
OTHERS = [(1, 5, 8, 8), (1, 7, 4, 4), (1, 9)]


def maps(shapes, images=2):
    return [torch.randn(images, *shape[1:]) for shape in shapes]


def test_distance_of_a_map_and_of_its_means():
    student = torch.zeros(1, 1, 2, 2)
    teacher = torch.tensor([1.0, 2.0, 3.0, 6.0]).view(1, 1, 2, 2)
    # 2 rows have the mean over the whole alone: weights 1 and 1/2.
    expected = ((1 + 4 + 9 + 36) / 4 + 3**2 / 2) / 1.5
    assert _distance(student, teacher).item() == pytest.approx(expected)


def test_distance_of_8_rows_has_three_pyramids():
    teacher = torch.zeros(1, 1, 8, 8)
    teacher[..., 0, 0] = 16.0
    # Means of 2 x 2, 4 x 4 and 8 x 8 cells: 4, 1 and 1/4 in one of 16, 4
    # and 1 regions.
    expected = 256 / 64 + (16 / 16) / 2 + (1 / 4) / 4 + (1 / 16) / 8
    value = _distance(torch.zeros_like(teacher), teacher)
    assert value.item() == pytest.approx(
        expected / (1 + 1 / 2 + 1 / 4 + 1 / 8)
    )


def test_one_cell_has_no_pyramid():
    value = _distance(torch.zeros(1, 2, 1, 1), torch.full((1, 2, 1, 1), 3.0))
    assert value.item() == pytest.approx(9)


def test_golden_value_of_two_levels():
    """Convolutions that hand on, an attention of 1/2 and 1/4, no norm."""
    loss = ReviewKDLoss(['a', 'b'], loss_weight=2.0)
    loss.connect([(1, 1, 2, 2), (1, 1, 1, 1)], [(1, 1, 2, 2), (1, 1, 1, 1)])
    for fusion in loss.fusions:
        for conv, _ in (fusion.enter, fusion.leave):
            nn.init.dirac_(conv.weight)
        fusion.enter[1] = fusion.leave[1] = nn.Identity()
    conv = loss.fusions[0].attention[0]
    nn.init.zeros_(conv.weight)
    # The sigmoids of 0 and of -ln 3.
    conv.bias.data = torch.tensor([0.0, -(torch.tensor(3.0).log())])
    fine = torch.tensor([2.0, 4.0, 6.0, 8.0]).view(1, 1, 2, 2)
    deep = torch.full((1, 1, 1, 1), 4.0)
    teacher = [torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 1, 1)]
    # The fine level is f / 2 + 4 / 4: 2, 3, 4, 5 of mean 3.5.
    expected = ((4 + 9 + 16 + 25) / 4 + 3.5**2 / 2) / 1.5 + (4 - 1) ** 2
    term = loss(FeaturePair([fine, deep], teacher))['loss_reviewkd']
    assert term.item() == pytest.approx(2 * expected)


def test_stages_and_the_pooled_vector():
    loss = ReviewKDLoss(['a', 'b', 'c'])
    loss.connect(SHAPES, OTHERS)
    student, teacher = maps(SHAPES), maps(OTHERS)
    for value in student:
        value.requires_grad_()
    loss(FeaturePair(student, teacher))['loss_reviewkd'].backward()
    assert all(value.grad.abs().sum() > 0 for value in student)
    assert all(p.grad is not None for p in loss.parameters())


def test_middle_channels():
    loss = ReviewKDLoss(['a', 'b', 'c'])
    loss.connect(SHAPES, OTHERS)
    assert loss.fusions[0].enter[0].weight.shape == (6, 4, 1, 1)
    assert loss.fusions[-1].attention is None
    loss = ReviewKDLoss('a')
    loss.connect([(1, 600, 4, 4)], [(1, 5, 4, 4)])
    assert loss.fusions[0].enter[0].weight.shape[0] == 512
    loss = ReviewKDLoss('a', mid_channels=3)
    loss.connect([(1, 600, 4, 4)], [(1, 5, 4, 4)])
    assert loss.fusions[0].enter[0].weight.shape[0] == 3


@pytest.mark.parametrize('value', [0, 0.5, 2.7, True])
def test_middle_channels_are_a_count(value):
    with pytest.raises(ValueError, match='mid_channels must be an integer'):
        ReviewKDLoss('a', mid_channels=value)


def test_other_strides_go_to_the_teachers():
    loss = ReviewKDLoss(['a', 'b']).eval()
    loss.connect([(1, 2, 8, 8), (1, 2, 4, 4)], [(1, 2, 4, 4), (1, 2, 4, 4)])
    features = torch.randn(1, 2, 8, 8)
    made, fused = loss.fusions[0].eval()(features, torch.zeros(1, 2, 4, 4))
    assert made.shape == fused.shape == (1, 2, 4, 4)
    # Nearest neighbour: the upper left of each 2 x 2.
    entered = loss.fusions[0].enter(features)
    share = loss.fusions[0].attention(
        torch.cat([entered, torch.zeros_like(entered)], 1)
    )
    torch.testing.assert_close(
        fused, interpolate(entered * share[:, :1], (4, 4), mode='nearest')
    )


@pytest.mark.parametrize(
    ('student', 'message'),
    [
        (
            [(1, 2, 4, 4), (1, 2, 8, 8)],
            r'finest to the deepest, got .*\[4, 8\]',
        ),
        ([(1, 2, 4), (1, 2, 4)], r'maps .* and vectors .* shape \(1, 2, 4\)'),
    ],
)
def test_what_cannot_be_fused(student, message):
    with pytest.raises(ValueError, match=message):
        ReviewKDLoss(['a', 'b']).connect(student, student)
