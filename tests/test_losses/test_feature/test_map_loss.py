"""Two maps on one grid of cells: strides, padding and channels."""

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from mmrkkd.losses import PKDLoss
from mmrkkd.losses.feature import FeaturePair
from mmrkkd.losses.feature.map_loss import MapConnector


def joined(student, teacher, shapes, **options):
    connector = MapConnector(*shapes, **options)
    return connector(student, teacher)


def shape(size):
    return (1, 1, size, size)


def test_one_stride_cuts_what_only_one_has():
    student, teacher = torch.randn(2, 1, 5, 4), torch.randn(2, 1, 4, 6)
    a, b = joined(student, teacher, [shape(4), shape(4)])
    assert torch.equal(a, student[..., :4, :])
    assert torch.equal(b, teacher[..., :4])


def test_a_learned_convolution_joins_channels():
    connector = MapConnector((1, 3, 4, 4), (1, 5, 4, 4))
    assert connector.channels.weight.shape == (5, 3, 1, 1)
    assert isinstance(MapConnector(shape(4), shape(4)).channels, nn.Identity)
    without = MapConnector((1, 3, 4, 4), (1, 5, 4, 4), joins_channels=False)
    assert not list(without.parameters())


@pytest.mark.parametrize(('one', 'other'), [(8, 4), (4, 8), (7, 14)])
def test_the_student_goes_to_the_teachers_grid(one, other):
    # A plane is what bilinear interpolation keeps, but for the border.
    def plane(size):
        middles = (torch.arange(size) + 0.5) / size
        return (middles[:, None] + 2 * middles)[None, None]

    a, b = joined(plane(one), plane(other), [shape(one), shape(other)])
    assert a.shape == b.shape == (1, 1, other, other)
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(a[inner], b[inner])


def test_padding_moves_nothing_where_strides_differ():
    # The student has padding: 10 cells, of which 8 are the teacher's 4.
    student = torch.arange(10.0).expand(1, 1, 8, 10)
    teacher = torch.zeros(1, 1, 4, 4)
    a, _ = joined(student, teacher, [shape(8), shape(4)])
    assert a[0, 0, 0].tolist() == [0.5, 2.5, 4.5, 6.5]


@pytest.mark.parametrize('flipped', [False, True])
def test_pooling_averages_the_finer_map(flipped):
    fine, coarse = torch.randn(1, 1, 8, 10), torch.randn(1, 1, 4, 5)
    maps, shapes = [fine, coarse], [shape(8), shape(4)]
    if flipped:
        maps, shapes = maps[::-1], shapes[::-1]
    found = joined(*maps, shapes, pools=True)
    torch.testing.assert_close(found[flipped], avg_pool2d(fine, 2))
    assert torch.equal(found[not flipped], coarse)


def test_vectors_are_no_maps():
    with pytest.raises(ValueError, match=r'shapes \(1, 3\) of the student'):
        MapConnector((1, 3), (1, 3))


def test_a_loss_must_be_connected_first():
    some = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r'PKDLoss has .* 0 layers, got 1'):
        PKDLoss('a')(FeaturePair([some], [some]))
