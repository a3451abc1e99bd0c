"""Every model base for classification builds and scores images."""

import importlib.util
import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

BASES = Path(__file__).parents[2] / 'configs' / '_base_' / 'models'
CONVNETS = sorted((BASES / 'cifar').glob('*.py'))
CONVNETS += sorted(BASES.glob('*_imagenet.py'))
VITS = sorted((BASES / 'vit').glob('*.py'))


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()


def images(size=32, count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, size, size, generator=generator)


def read(path):
    return Config.fromfile(path).model


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_bases_are_found():
    assert len(CONVNETS) == 20
    assert len(VITS) == 4


@pytest.mark.parametrize(
    ('depth', 'expected'), [(18, 11_220_132), (50, 23_705_252)]
)
def test_mmpretrains_cifar_resnets_are_the_published_ones(depth, expected):
    backbone = MODELS.build(dict(type='ResNet_CIFAR', depth=depth))
    width = 512 if depth == 18 else 2048
    assert count(backbone) + (width + 1) * 100 == expected


@pytest.mark.parametrize(
    'path',
    CONVNETS,
    ids=lambda path: path.stem,
)
def test_base_has_the_parameters_it_states_and_scores(path):
    stated = re.search(r'([\d,]+)\s+parameters', path.read_text()).group(1)
    config = read(path)
    model = MODELS.build(config).eval()
    assert count(model) == int(stated.replace(',', ''))
    with torch.no_grad():
        logits = model.head(model.extract_feat(images()))
    assert logits.shape == (2, config.head.num_classes)


@pytest.mark.parametrize('depth', [18, 50])
def test_cifar_resnets_do_not_start_as_the_identity(depth):
    model = MODELS.build(read(BASES / f'cifar/resnet{depth}.py'))
    model.init_weights()
    for key, parameter in model.backbone.named_parameters():
        if re.search(r'bn\d\.weight$', key):
            assert (parameter == 1).all(), key


def test_base_gives_a_loss_and_learns():
    torch.manual_seed(0)
    config = read(BASES / 'cifar' / 'resnet8.py')
    model = MODELS.build(config).train()
    model.init_weights()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    samples = [DataSample().set_gt_label(label) for label in range(8)]
    batch, losses = images(count=8), []
    for _ in range(12):
        loss = model(batch, samples, mode='loss')['loss']
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(100), rel=0.2)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize('path', VITS, ids=lambda path: path.stem)
def test_transformer_base_scores_an_image(path):
    config = read(path)
    if config.type == 'TimmClassifier' and not importlib.util.find_spec(
        'timm'
    ):
        pytest.skip('PiT comes from timm, which is not installed')
    model = MODELS.build(config).eval()
    if path.stem == 'deit-tiny_cifar100':
        assert count(model) == 5_543_716
    with torch.no_grad():
        if config.type == 'TimmClassifier':
            logits = model(images(224, count=1))
        else:
            logits = model.head(model.extract_feat(images(224, count=1)))
    assert logits.shape == (1, 100)
    assert logits.isfinite().all()
