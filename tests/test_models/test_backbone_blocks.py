"""The blocks of the backbones are their equations; wrong calls are refused."""

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import nn

from mmrkkd import backbones
from mmrkkd.backbones import (
    CIFARVGG,
    CIFARResNet,
    CIFARShuffleNetV2,
    CIFARWideResNet,
    TupleOutput,
)
from mmrkkd.backbones.cifar_mobilenet_v2 import InvertedResidual
from mmrkkd.backbones.cifar_resnet import BasicBlock
from mmrkkd.backbones.cifar_shufflenet import (
    ShuffleUnit,
    SplitUnit,
    channel_shuffle,
)
from mmrkkd.backbones.cifar_wide_resnet import PreActivationBlock
from mmrkkd.registry import MODELS


def test_residual_block_is_its_equation():
    block = BasicBlock(4, 6, 2).double().eval()
    x = torch.randn(2, 4, 7, 7).double()
    inner = F.relu(block.bn1(F.conv2d(x, block.conv1.weight, None, 2, 1)))
    inner = block.bn2(F.conv2d(inner, block.conv2.weight, None, 1, 1))
    conv, bn = block.downsample
    shortcut = bn(F.conv2d(x, conv.weight, None, 2))
    torch.testing.assert_close(block(x), F.relu(inner + shortcut))
    assert isinstance(BasicBlock(4, 4, 1).downsample, nn.Identity)


def test_wide_block_shares_its_activation_only_where_channels_change():
    block = PreActivationBlock(4, 6, 2).double().eval()
    x = torch.randn(2, 4, 7, 7).double()
    active = F.relu(block.bn1(x))
    inner = F.relu(block.bn2(F.conv2d(active, block.conv1.weight, None, 2, 1)))
    inner = F.conv2d(inner, block.conv2.weight, None, 1, 1)
    shortcut = F.conv2d(active, block.shortcut.weight, None, 2)
    torch.testing.assert_close(block(x), inner + shortcut)

    same = PreActivationBlock(4, 4, 1).double().eval()
    nn.init.zeros_(same.conv2.weight)
    torch.testing.assert_close(same(x), x)


def test_channel_shuffle_deals_the_groups_round():
    # Groups (0, 1), (2, 3), (4, 5): the first of each, then the second.
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    shuffled = channel_shuffle(channels, 3).flatten().tolist()
    assert shuffled == [0, 2, 4, 1, 3, 5]
    assert torch.equal(channel_shuffle(channels, 1), channels)


def test_shuffle_unit_appends_its_pooled_input():
    unit = ShuffleUnit(24, 60, 2, 3, first_groups=1).eval()
    x = torch.randn(2, 24, 7, 7)
    output = unit(x)
    assert output.shape == (2, 60, 4, 4)
    pooled = F.avg_pool2d(x, 3, 2, 1)
    torch.testing.assert_close(output[:, 36:], F.relu(pooled))


def test_split_unit_keeps_the_first_half():
    unit = SplitUnit(8).eval()
    x = torch.randn(2, 8, 5, 5)
    # The shuffle of two halves puts the kept channels on even places.
    torch.testing.assert_close(unit(x)[:, ::2], x[:, :4])


def test_inverted_residual_expands_even_by_one():
    block = InvertedResidual(8, 8, 1, 1).eval()
    convs = [m for m in block.conv if isinstance(m, nn.Conv2d)]
    assert [conv.kernel_size[0] for conv in convs] == [1, 3, 1]
    assert [conv.groups for conv in convs] == [1, 8, 1]
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(block(x), x + block.conv(x))
    assert isinstance(block.conv[-1], nn.BatchNorm2d), 'linear bottleneck'


def test_a_list_of_feature_maps_becomes_a_tuple():
    class Lister(nn.Module):
        def forward(self, images):
            return [images, -images]

    MODELS.register_module('ListerOfTests', module=Lister, force=True)
    backbone = TupleOutput(dict(type='mmrkkd.ListerOfTests'))
    MODELS.module_dict.pop('ListerOfTests')
    x = torch.ones(1, 3, 2, 2)
    first, second = backbone(x)
    assert isinstance(backbone(x), tuple)
    assert torch.equal(first, -second)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: CIFARResNet(18), 'depth must be 6n \\+ 2.*got 18'),
        (lambda: CIFARResNet(2), '8, 14, 20, 32, 44, 56, 110, got 2'),
        (lambda: CIFARWideResNet(18), 'depth must be 6n \\+ 4.*got 18'),
        (lambda: CIFARWideResNet(4), '10, 16, 22, 28, 40, got 4'),
        (lambda: CIFARWideResNet(16, 0), 'widen_factor must be at least 1'),
        (lambda: CIFARVGG(16), r'depth must be one of \[8, 13\], got 16'),
        (
            lambda: CIFARResNet(20, out_indices=(3,)),
            r'out_indices must name stages from 0 to 2 .*got \(3,\)',
        ),
        (
            lambda: CIFARShuffleNetV2(out_indices=()),
            r'out_indices must name stages from 0 to 3 .*got \(\)',
        ),
    ],
)
def test_wrong_arguments_are_refused_with_the_choices(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize('name', backbones.__all__)
def test_backbones_are_registered(name):
    assert MODELS.get(name) is getattr(backbones, name)
    assert MMPRETRAIN_MODELS.get(f'mmrkkd.{name}') is MODELS.get(name)
