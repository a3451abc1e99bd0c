"""Two maps on one grid of cells: strides, padding and channels."""

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

from mmrkkd.losses import ATLoss, CWDLoss, PKDLoss
from mmrkkd.losses.feature import FeaturePair
from mmrkkd.losses.feature.base import common_area
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


@pytest.mark.parametrize('pools', [False, True])
@pytest.mark.parametrize('flipped', [False, True])
@pytest.mark.parametrize(('fine', 'coarse'), [(25, 13), (7, 4), (24, 12)])
def test_no_cell_moves_on_odd_maps(fine, coarse, flipped, pools):
    """Maps that hold the pixel of each row's middle, strides 8 and 16."""
    maps = [
        ((torch.arange(rows) + 0.5) * stride)[:, None].repeat(1, rows)
        for rows, stride in ((fine, 8), (coarse, 16))
    ]
    shapes = [shape(16), shape(8)]
    if flipped:
        maps, shapes = maps[::-1], shapes[::-1]
    a, b = joined(*(m[None, None] for m in maps), shapes, pools=pools)
    # The border of an interpolated map has one neighbour.
    inner = (..., slice(1, -1), slice(None))
    assert a.shape == b.shape and a.shape[-1] >= fine // 2
    assert torch.equal(a[inner], b[inner])


def test_even_maps_are_interpolated_as_by_torch():
    student, teacher = torch.randn(1, 1, 24, 36), torch.zeros(1, 1, 12, 18)
    a, _ = joined(student, teacher, [shape(16), shape(8)])
    assert torch.equal(a, interpolate(student, (12, 18), mode='bilinear'))


@pytest.mark.parametrize(
    ('sides', 'fits'),
    [
        ((25, 28), True),
        ((9, 12), True),
        ((1, 2), True),
        ((2, 3), True),
        ((2, 4), False),
        ((4, 8), False),
        ((13, 25), False),
    ],
)
@pytest.mark.parametrize('flipped', [False, True])
def test_a_stride_is_no_padding(sides, fits, flipped):
    maps = [torch.randn(2, 1, 8, side) for side in sides]
    if flipped:
        maps = maps[::-1]
    if fits:
        found = common_area(*maps)
        for mine, whole in zip(found, maps):
            assert torch.equal(mine, whole[..., : min(sides)])
        return
    with pytest.raises(
        ValueError,
        match=rf'got \(8, {maps[0].shape[3]}\) cells .* set feature_size',
    ):
        common_area(*maps)


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


@pytest.mark.parametrize('kind', [ATLoss, CWDLoss])
def test_a_map_of_one_cell_among_others_adds_nothing(kind):
    """Of small images the deepest level of a pyramid may be one."""
    maps = torch.randn(2, 2, 3, 4, 4).unbind()
    small = torch.randn(2, 2, 3, 1, 1).unbind()
    loss, alone = kind(['a', 'b']), kind('a')
    loss.connect([(1, 3, 4, 4), (1, 3, 1, 1)], [(1, 3, 4, 4), (1, 3, 1, 1)])
    alone.connect([(1, 3, 4, 4)], [(1, 3, 4, 4)])
    assert loss(
        FeaturePair([maps[0], small[0]], [maps[1], small[1]])
    ) == alone(FeaturePair([maps[0]], [maps[1]]))


def test_the_teachers_map_may_be_the_one_of_one_cell():
    loss = ATLoss('a', 'b')
    loss.connect([(1, 1, 2, 2)], [(1, 1, 1, 1)])
    pair = FeaturePair([torch.rand(1, 1, 2, 2)], [torch.rand(1, 1, 1, 1)])
    with pytest.raises(ValueError, match="'a' beside teacher_layers 'b' is a"):
        loss(pair)
