"""What a teacher's BatchNorms say of its layers."""

import pytest
import torch
from torch import nn

from mmrkkd.backbones import CIFARVGG, CIFARResNet, CIFARWideResNet
from mmrkkd.distillers.feature_seam import FeatureSeam
from mmrkkd.distillers.readers.norms import layer_statistics
from mmrkkd.losses import OFDLoss


class Net(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def extract_feat(self, image):
        return self.backbone(image)


def told(backbone, layer, channels):
    """Which BatchNorm of a network is meant."""
    norms = [
        (name, part)
        for name, part in backbone.named_modules()
        if isinstance(part, nn.BatchNorm2d)
    ]
    for number, (_, norm) in enumerate(norms):
        nn.init.constant_(norm.weight, -number)
        nn.init.constant_(norm.bias, number + 0.5)
    mean, deviation = layer_statistics(
        Net(backbone), 'teacher', layer, (1, channels, 8, 8)
    )
    assert mean.shape == deviation.shape == (channels,)
    assert torch.equal(mean, deviation + 0.5)
    return norms[int(deviation[0])][0]


@pytest.mark.parametrize(
    ('make', 'layer', 'channels', 'norm'),
    [
        # One block in a stage: its shortcut has a BatchNorm, too.
        (
            lambda: CIFARResNet(8, wide=True),
            'before backbone.layer2.0.relu[1]',
            128,
            'layer2.0.bn2',
        ),
        (
            lambda: CIFARWideResNet(10),
            'backbone.block2.0.bn1',
            16,
            'block2.0.bn1',
        ),
        (lambda: CIFARVGG(13), 'backbone.block0.1', 64, 'block0.1'),
        # In a row it is the one before.
        (lambda: CIFARVGG(13), 'before backbone.block0.2', 64, 'block0.1'),
    ],
)
def test_which_norm(make, layer, channels, norm):
    assert told(make(), layer, channels) == norm


def test_a_norm_that_learns_nothing():
    model = Net(nn.BatchNorm2d(3, affine=False))
    mean, deviation = layer_statistics(model, 'teacher', 'backbone', (1, 3))
    assert mean.tolist() == [0] * 3
    assert deviation.tolist() == [1] * 3


@pytest.mark.parametrize(
    ('layer', 'channels'),
    [
        ('backbone.layer1', 16),
        ('backbone.layer1.0.conv1', 16),
        ('before backbone.layer1', 16),
        ('before backbone.layer2.0.relu[1]', 16),
    ],
)
def test_layers_without_a_norm(layer, channels):
    with pytest.raises(
        ValueError, match=f'has {channels} channels, and no BatchNorm of as'
    ):
        layer_statistics(
            Net(CIFARResNet(8)), 'teacher', layer, (1, channels, 8, 8)
        )


def test_margins_are_those_of_the_teacher():
    student, teacher = Net(CIFARResNet(8)), Net(CIFARResNet(8, wide=True))
    nn.init.constant_(teacher.backbone.layer3[0].bn2.weight, -2.0)
    nn.init.constant_(teacher.backbone.layer3[0].bn2.bias, 20.0)
    loss = OFDLoss([f'before backbone.layer{n}.0.relu[1]' for n in (2, 3)])
    FeatureSeam(student, teacher, [loss])
    assert loss.margin0.shape == (128,)
    assert loss.margin1.tolist() == [-6] * 256
    assert loss.connectors[1].channels[0].weight.shape[:2] == (256, 64)


def test_the_first_call_of_an_activation_has_another_norm():
    """A block's ReLU runs after bn1 and, [1], after bn2 and the sum."""
    net = Net(CIFARResNet(8))
    loss = OFDLoss('before backbone.layer1.0.relu[0]')
    with pytest.raises(ValueError, match=r'is run 2 times, .* call .* \[1\]'):
        FeatureSeam(net, net, [loss])


def test_layers_are_named_one_by_one():
    net = Net(CIFARResNet(8))
    loss = OFDLoss('before backbone.layer1.0.relu[*]')
    with pytest.raises(ValueError, match=r'one by one, without \[\*\]'):
        FeatureSeam(net, net, [loss])
