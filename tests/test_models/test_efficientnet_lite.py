"""EfficientNet-Lite: published sizes, SAME padding, real weights."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrkkd.backbones import EfficientNetLite
from mmrkkd.backbones.efficientnet_lite import SameConv, scaled_width

WEIGHTS = Path(os.environ.get('MMRKKD_DATA', ''), 'weights').absolute()
FILES = {
    0: 'efficientnet-lite0-57934424.pth',
    2: 'efficientnet-lite2-9656183e.pth',
}
HEAD = ('_conv_head', '_bn1', '_fc')


def shapes(backbone, height, width):
    with torch.no_grad():
        outputs = backbone(torch.zeros(1, 3, height, width))
    return [tuple(output.shape[1:]) for output in outputs]


@pytest.mark.parametrize(
    ('variant', 'millions'), [(0, 4.7), (1, 5.4), (2, 6.1), (3, 8.2), (4, 13)]
)
@pytest.mark.usefixtures('undrawn_weights')
def test_parameters_are_those_of_the_published_network(variant, millions):
    backbone = EfficientNetLite(variant)
    count = sum(p.numel() for p in backbone.parameters())
    # A 1 x 1 convolution to 1280 channels, its BN, and 1000 classes.
    count += backbone.channels[-1] * 1280 + 2 * 1280 + 1281 * 1000
    assert round(count / 1e6, 1) == millions


def test_widths_are_multiples_of_8_not_much_below():
    # 24 * 1.1 = 26.4 -> 24; 40 * 1.1 = 44 -> 48; 16 * 0.5 = 8.
    assert [scaled_width(*p) for p in ((24, 1.1), (40, 1.1))] == [24, 48]
    assert scaled_width(16, 0.5) == 8
    # 10.8 would be 8, less than nine tenths of it.
    assert scaled_width(12, 0.9) == 16


def test_outputs_have_strides_4_to_32_rounded_up():
    assert shapes(EfficientNetLite(0), 64, 90) == [
        (24, 16, 23),
        (40, 8, 12),
        (112, 4, 6),
        (320, 2, 3),
    ]
    assert EfficientNetLite(2).channels == (16, 24, 48, 88, 120, 208, 352)


def test_cut_network_is_the_start_of_the_whole_one():
    torch.manual_seed(0)
    whole = EfficientNetLite(0, out_indices=(2, 4)).eval()
    cut = EfficientNetLite(0, num_stages=5, out_indices=(-3, -1)).eval()
    extra = cut.load_state_dict(whole.state_dict(), strict=False)
    assert not extra.missing_keys and extra.unexpected_keys
    images = torch.rand(1, 3, 33, 40)
    with torch.no_grad():
        for one, other in zip(whole(images), cut(images), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert EfficientNetLite(0, num_stages=5).out_indices == (1, 2, 4)


@pytest.mark.parametrize('size', [7, 8])
@pytest.mark.parametrize('kernel', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
def test_padding_is_tensorflows(size, kernel, stride):
    conv = SameConv(1, 1, kernel, stride).double()
    image = torch.rand(1, 1, size, size, dtype=torch.double)
    # ceil(size / stride) outputs; what is missing is put before and after,
    # the odd one after.
    count = -(-size // stride)
    missing = (count - 1) * stride + kernel - size
    before, after = missing // 2, missing - missing // 2
    padded = F.pad(image, (before, after) * 2)
    expected = F.conv2d(padded, conv.weight, stride=stride)
    assert expected.shape[-1] == count
    torch.testing.assert_close(conv(image), expected)


def test_kept_statistics_and_frozen_stages():
    backbone = EfficientNetLite(0, frozen_stages=1, norm_eval=True).train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(module.training for module in norms)
    frozen = {
        name
        for name, parameter in backbone.named_parameters()
        if not parameter.requires_grad
    }
    # The stem and stage 1, which has one block.
    assert {name.split('.')[0] for name in frozen} == {
        '_conv_stem',
        '_bn0',
        '_blocks',
    }
    assert {n.split('.')[1] for n in frozen if '_blocks' in n} == {'0'}
    backbone = EfficientNetLite(0).train()
    assert backbone._bn0.training
    assert all(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(variant=5), r'variant must be one of \[0, 1, 2, 3, 4\], got 5'),
        (dict(num_stages=8), 'num_stages must be 1 to 7, got 8'),
        (dict(num_stages=3, frozen_stages=4), r'num_stages \(3\), got 4'),
        (dict(num_stages=3, out_indices=(4,)), 'out_indices must name'),
    ],
)
def test_arguments_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EfficientNetLite(**changes)


def test_pretrained_file_must_have_every_weight(tmp_path):
    path = str(tmp_path / 'weights.pth')
    config = dict(type='Pretrained', checkpoint=path)
    torch.manual_seed(0)
    weights = EfficientNetLite(0, num_stages=2).half().state_dict()
    torch.save(dict(weights, _fc=torch.zeros(3)), path)
    backbone = EfficientNetLite(0, num_stages=2, init_cfg=config)
    backbone.init_weights()
    stem = backbone._conv_stem.weight
    assert stem.dtype == torch.float32
    assert torch.equal(stem, weights['_conv_stem.weight'].float())
    deeper = EfficientNetLite(0, num_stages=3, init_cfg=config)
    with pytest.raises(ValueError, match='does not fit.*weights are missing'):
        deeper.init_weights()


@pytest.mark.skipif(
    'MMRKKD_DATA' not in os.environ,
    reason='the environment variable MMRKKD_DATA names no folder of data',
)
@pytest.mark.parametrize('variant', FILES)
def test_published_weights_are_read_whole(variant):
    path = WEIGHTS / FILES[variant]
    config = dict(type='Pretrained', checkpoint=str(path))
    backbone = EfficientNetLite(variant, init_cfg=config)
    backbone.init_weights()
    given = torch.load(path, weights_only=True)
    own = backbone.state_dict()
    assert set(own) == {k for k in given if k.split('.')[0] not in HEAD}
    assert all(torch.equal(value, given[key]) for key, value in own.items())
