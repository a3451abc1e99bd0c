"""The backbones are those of the published tables, at any input size."""

import copy
import math

import pytest
import torch
from torch import nn

from mmrkkd.registry import MODELS

# Parameters and millions of multiplications, from 32 x 32 and with a
# classifier for 100 classes.
ZOO = {
    'resnet20': (dict(type='CIFARResNet', depth=20), 278_324, 40.8),
    'resnet32': (dict(type='CIFARResNet', depth=32), 472_756, 69.1),
    'resnet56': (dict(type='CIFARResNet', depth=56), 861_620, 125.8),
    'resnet110': (dict(type='CIFARResNet', depth=110), 1_736_564, 253.2),
    'resnet8x4': (
        dict(type='CIFARResNet', depth=8, wide=True),
        1_233_540,
        177.1,
    ),
    'resnet32x4': (
        dict(type='CIFARResNet', depth=32, wide=True),
        7_433_860,
        1083.0,
    ),
    'wrn-16-1': (dict(type='CIFARWideResNet', depth=16), 180_916, None),
    'wrn-16-2': (
        dict(type='CIFARWideResNet', depth=16, widen_factor=2),
        703_284,
        101.1,
    ),
    'wrn-40-1': (dict(type='CIFARWideResNet', depth=40), 569_780, 83.3),
    'wrn-40-2': (
        dict(type='CIFARWideResNet', depth=40, widen_factor=2),
        2_255_156,
        327.6,
    ),
    'vgg8': (dict(type='CIFARVGG', depth=8), 3_965_028, 96.2),
    'vgg13': (dict(type='CIFARVGG', depth=13), 9_462_180, 284.9),
    'mobilenet-v2': (dict(type='CIFARMobileNetV2'), 812_836, 6.5),
    'shufflenet-v1': (dict(type='CIFARShuffleNetV1'), 949_258, 38.7),
    'shufflenet-v2': (dict(type='CIFARShuffleNetV2'), 1_355_528, 44.5),
    # 4,231,976 with 1000 classes and 2,497,480 with 200.
    'mobilenet-v1': (dict(type='MobileNetV1'), 4_231_976 - 900 * 1025, None),
    'mobilenet-v2-tin': (
        dict(type='TinyImageNetMobileNetV2'),
        2_497_480 - 100 * 1281,
        None,
    ),
}
# One of each kind, small: channels and sizes of the stages from 32 x 32.
KINDS = {
    'resnet20': ((16, 32, 64), (32, 16, 8)),
    'resnet8x4': ((64, 128, 256), (32, 16, 8)),
    'wrn-16-2': ((32, 64, 128), (32, 16, 8)),
    'vgg8': ((64, 128, 256, 512, 512), (32, 16, 8, 4, 4)),
    'mobilenet-v2': ((12, 16, 48, 160, 1280), (16, 8, 4, 2, 2)),
    'shufflenet-v1': ((240, 480, 960), (16, 8, 4)),
    'shufflenet-v2': ((116, 232, 464, 1024), (16, 8, 4, 4)),
    'mobilenet-v1': ((64, 128, 256, 512, 1024), (16, 8, 4, 2, 1)),
    # The stem's padding makes 34 x 34 of 32 x 32.
    'mobilenet-v2-tin': ((24, 32, 64, 320, 1280), (17, 9, 5, 5, 5)),
}


def images(size=32, count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, size, size, generator=generator)


def make(name, **changes):
    torch.manual_seed(0)
    backbone = MODELS.build({**ZOO[name][0], **changes})
    backbone.init_weights()
    return backbone


@pytest.mark.parametrize('name', ZOO)
def test_parameters_are_those_of_the_published_network(name):
    config, expected, _ = ZOO[name]
    backbone = MODELS.build(dict(config))
    count = sum(parameter.numel() for parameter in backbone.parameters())
    assert count + (backbone.channels[-1] + 1) * 100 == expected


@pytest.mark.parametrize('name', [name for name in ZOO if ZOO[name][2]])
def test_multiplications_are_those_of_the_published_network(name):
    # They tell strides apart, which the parameters do not.
    backbone = make(name).eval()
    total = backbone.channels[-1] * 100

    def see(module, args, output):
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(see)
    with torch.no_grad():
        backbone(images(count=1))
    assert round(total / 1e6, 1) == ZOO[name][2]


@pytest.mark.parametrize('name', KINDS)
def test_every_stage_can_be_returned(name):
    channels, sizes = KINDS[name]
    # In any order asked for, first stage first.
    wanted = tuple(reversed(range(len(channels))))
    backbone = make(name, out_indices=wanted).eval()
    assert backbone.channels == channels
    with torch.no_grad():
        outputs = backbone(images())
    assert isinstance(outputs, tuple)
    assert [output.shape for output in outputs] == [
        (2, width, size, size)
        for width, size in zip(channels, sizes, strict=True)
    ]


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('size', [32, 40, 64, 45])
def test_any_input_size_will_do(name, size):
    backbone = make(name).eval()
    with torch.no_grad():
        (output,) = backbone(images(size, count=1))
    assert output.shape[:2] == (1, backbone.channels[-1])
    # Convolutions of stride 2 round up, VGG's pooling rounds down.
    expected = {
        'resnet20': -(-size // 4),
        'resnet8x4': -(-size // 4),
        'wrn-16-2': -(-size // 4),
        'vgg8': size // 16 if size >= 64 else size // 8,
        'mobilenet-v2': -(-size // 16),
        'shufflenet-v1': -(-size // 8),
        'shufflenet-v2': -(-size // 8),
        'mobilenet-v1': -(-size // 32),
        'mobilenet-v2-tin': -(-(size + 2) // 8),
    }[name]
    assert output.shape[2:] == (expected, expected)
    assert output.isfinite().all()


def test_vgg_pools_a_fourth_time_from_64_pixels_on():
    backbone = make('vgg8').eval()
    with torch.no_grad():
        assert backbone(images(63))[0].shape[-1] == 7
        assert backbone(images(64))[0].shape[-1] == 4
        oblong = images(64)[..., :48]
        assert backbone(oblong)[0].shape[-2:] == (8, 6)


@pytest.mark.parametrize('name', KINDS)
def test_gradients_reach_every_parameter(name):
    # 64 pixels: BN needs more than one value at the end of MobileNetV1.
    backbone = make(name).train()
    (output,) = backbone(images(64))
    torch.manual_seed(1)
    (output * torch.randn_like(output)).sum().backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        if parameter.ndim == 4:
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize('name', KINDS)
def test_eval_depends_on_nothing_but_the_image(name):
    backbone = make(name).eval().double()
    batch = images(count=3).double()
    before = copy.deepcopy(backbone.state_dict())
    with torch.no_grad():
        (once,), (twice,) = backbone(batch), backbone(batch)
        (alone,) = backbone(batch[1:2])
    assert torch.equal(once, twice)
    torch.testing.assert_close(alone, once[1:2])
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize('name', KINDS)
def test_training_updates_the_statistics(name):
    backbone = make(name).train()
    backbone(images(64))
    for key, value in backbone.state_dict().items():
        if key.endswith('num_batches_tracked'):
            assert value == 1, key


@pytest.mark.parametrize('name', KINDS)
def test_channels_last_gives_the_same(name):
    backbone = make(name).eval().double()
    batch = images().double()
    last = copy.deepcopy(backbone).to(memory_format=torch.channels_last)
    with torch.no_grad():
        (expected,) = backbone(batch)
        (output,) = last(batch.to(memory_format=torch.channels_last))
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize('name', KINDS)
def test_later_stages_do_not_change_what_is_returned(name):
    # Activations work in place: one on a stage's output would be a mistake.
    stages = range(len(KINDS[name][0]))
    backbone, seen = make(name, out_indices=stages).eval(), []
    for stage in backbone.stage_names:
        getattr(backbone, stage).register_forward_hook(
            lambda module, args, output: seen.append(output.clone())
        )
    with torch.no_grad():
        outputs = backbone(images())
        # Wide ResNets have a BN and a ReLU after the last.
        seen[-1] = backbone.finish_stage(len(seen) - 1, seen[-1])
    for output, before in zip(outputs, seen, strict=True):
        assert torch.equal(output, before)


@pytest.mark.parametrize('name', ['resnet20', 'wrn-16-2', 'vgg13'])
def test_convolutions_start_as_kaiming_over_the_fan_out(name):
    for key, module in make(name).named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            count = module.weight.numel()
            # The deviation of n normal values is known to 1 / sqrt(2 n).
            torch.testing.assert_close(
                module.weight.std().item(),
                math.sqrt(2 / fan_out),
                rtol=6 / math.sqrt(2 * count),
                atol=0.0,
                msg=key,
            )


def test_shufflenets_start_as_pytorch_does():
    torch.manual_seed(0)
    backbone = MODELS.build(dict(type='CIFARShuffleNetV2'))
    before = copy.deepcopy(backbone.state_dict())
    backbone.init_weights()
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key])


def test_wide_resnet_ends_with_an_activation_and_earlier_stages_do_not():
    first, _, last = make('wrn-16-2', out_indices=(0, 1, 2)).eval()(images())
    assert first.min() < 0
    assert last.min() == 0
