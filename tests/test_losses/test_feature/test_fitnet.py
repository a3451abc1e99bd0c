"""FitNet: the student's maps, regressed onto the teacher's."""

import pytest
import torch
from torch import nn

from mmrkkd.losses import FitNetLoss, build_loss
from mmrkkd.losses.feature import FeatureLoss, FeaturePair
from mmrkkd.losses.feature.fitnet import join_maps


def identity(loss):
    """Connectors that hand the student's map on."""
    for connector in loss.connectors:
        nn.init.eye_(connector.weight.data[:, :, 0, 0])
        nn.init.zeros_(connector.bias)


def test_golden_value():
    loss = FitNetLoss('a', loss_weight=2.0, connector='conv')
    loss.connect([(1, 2, 1, 2)], [(1, 2, 1, 2)])
    identity(loss)
    student = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    teacher = torch.tensor([[[[0.0, 2.0]], [[5.0, 1.0]]]])
    term = loss(FeaturePair([student], [teacher]))['loss_fitnet']
    # 2 ((1 - 0)^2 + 0 + (3 - 5)^2 + (4 - 1)^2) / 4
    assert term.item() == pytest.approx(2 * (1 + 4 + 9) / 4)


def test_layers_are_added_up():
    loss = FitNetLoss(['a', 'b'], loss_weight=1.0, connector='conv')
    loss.connect([(1, 1, 1, 1)] * 2, [(1, 1, 1, 1)] * 2)
    identity(loss)
    maps = [torch.full((1, 1, 1, 1), value) for value in (1.0, 3.0)]
    zeros = [torch.zeros(1, 1, 1, 1)] * 2
    term = loss(FeaturePair(maps, zeros))['loss_fitnet']
    assert term.item() == pytest.approx(1 + 9)


@pytest.mark.parametrize(
    ('student', 'teacher'),
    [
        ((1, 3, 8, 8), (1, 5, 8, 8)),
        ((1, 3, 8, 8), (1, 5, 4, 4)),
        ((1, 3, 4, 4), (1, 5, 8, 8)),
        ((1, 3, 7, 7), (1, 5, 4, 4)),
        ((1, 3, 6, 4), (1, 5, 6, 4)),
    ],
)
def test_connector_gives_the_teachers_shape(student, teacher):
    assert join_maps(student, teacher)(torch.zeros(student)).shape == teacher


@pytest.mark.parametrize(
    ('student', 'teacher', 'message'),
    [
        ((1, 3, 4, 4), (1, 5, 7, 7), r'4 x 4 cells cannot be joined .* 7 x 7'),
        ((1, 3), (1, 5), r'joins maps \(B, C, H, W\), got shapes \(1, 3\)'),
        ((1, 3, 8, 4), (1, 5, 4, 2), 'cannot be joined'),
    ],
)
def test_what_cannot_be_joined(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        join_maps(student, teacher)


def test_maps_of_other_padding_are_compared_where_both_are():
    loss = FitNetLoss('a', loss_weight=1.0, connector='conv')
    loss.connect([(1, 1, 4, 4)], [(1, 1, 4, 4)])
    identity(loss)
    student = torch.ones(1, 1, 4, 5)
    teacher = torch.ones(1, 1, 6, 4)
    teacher[..., 4:, :] = 100
    assert loss(FeaturePair([student], [teacher]))['loss_fitnet'] == 0


def test_gradients_reach_student_and_connector_and_not_the_teacher():
    loss = FitNetLoss('a')
    loss.connect([(1, 2, 4, 4)], [(1, 3, 4, 4)])
    student = torch.randn(2, 2, 4, 4, requires_grad=True)
    teacher = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss(FeaturePair([student], [teacher]))['loss_fitnet'].backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert all(p.grad is not None for p in loss.parameters())


def test_half_precision_is_computed_in_float32():
    loss = FitNetLoss('a', connector='conv')
    loss.connect([(1, 2, 4, 4)], [(1, 2, 4, 4)])
    half = torch.randn(1, 2, 4, 4).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        term = loss(FeaturePair([half], [half]))['loss_fitnet']
    assert term.dtype == torch.float32


def test_layers_must_be_connected():
    some = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match='FitNetLoss has .* 0 layers, got 1'):
        FitNetLoss('a')(FeaturePair([some], [some]))


@pytest.mark.parametrize('connector', ['conv', 'conv_bn_relu'])
def test_maps_of_another_image_than_the_kernel_was_made_for(connector):
    """Strides 2 and 3: sides of 48 and 32 on one image, of 12 and 8."""
    loss = FitNetLoss('a', connector=connector)
    loss.connect([(1, 1, 48, 48)], [(1, 1, 32, 32)])
    pair = FeaturePair([torch.ones(2, 1, 12, 12)], [torch.ones(2, 1, 8, 8)])
    with pytest.raises(ValueError, match='differ by 16 cells .* feature_size'):
        loss(pair)
    student, teacher = torch.ones(2, 1, 50, 64), torch.ones(2, 1, 34, 48)
    assert loss(FeaturePair([student], [teacher]))['loss_fitnet'].isfinite()


def test_unlike_numbers_of_layers():
    loss = FitNetLoss('a')
    some = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match=r'got 2 of the student and 1 of'):
        loss(FeaturePair([some, some], [some]))


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(student_layers=3), TypeError, "must be a layer such as 'neck"),
        (dict(student_layers=[]), ValueError, 'name at least one layer'),
        (
            dict(student_layers='a', connector='linear'),
            ValueError,
            'connector must be one of',
        ),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        FitNetLoss(**options)


def test_configs_know_it_by_name():
    loss = build_loss(dict(type='mmrkkd.FitNetLoss', student_layers='neck[0]'))
    assert isinstance(loss, FeatureLoss)
    assert 'neck[0] <- neck[0], loss_weight=100' in repr(loss)
