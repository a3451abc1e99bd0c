"""Checkpointed activations beside what is read inside the student."""

from functools import partial

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmengine.runner.activation_checkpointing import (
    turn_on_activation_checkpointing,
)
from small_classifiers import RKKD, batch, classifier, distilled
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmrkkd.distillers import gradient_share
from mmrkkd.distillers.readers.features import FeatureReader

CUT_OFF = (
    r"the student's layer {}\[0\] was run without gradient.*"
    r'inside a checkpointed block \(with_cp=True'
)


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    init_default_scope('mmpretrain')
    gradient_share._say_what_is_left_out.cache_clear()
    yield
    DefaultScope._instance_dict.clear()


def build(layer, with_cp=True, **changes):
    fitnet = dict(
        type='mmrkkd.FitNetLoss', student_layers=layer, loss_weight=1.0
    )
    student = classifier(with_cp=with_cp)
    # PyTorch's start: MMPretrain's linear layer passes hardly a gradient.
    student['head']['init_cfg'] = None
    torch.manual_seed(0)
    return MODELS.build(distilled([RKKD, fitnet], student, **changes))


def gradients(model, only=''):
    """The terms of a step, and every gradient of the student."""
    data = model.data_preprocessor(batch(), True)
    terms = model.train()(**data, mode='loss')
    learned = {only: terms[only]} if only else terms
    model.parse_losses(learned)[0].backward()
    return terms, [weight.grad for weight in model.student.parameters()]


# -- a loss inside of a checkpointed block ----------------------------------


@pytest.mark.parametrize(
    ('layer', 'number'),
    [
        ('backbone.layer3.1.conv2', ''),
        ('before backbone.layer3.1.relu', '[0]'),
    ],
)
def test_a_layer_inside_a_checkpointed_block_is_refused(layer, number):
    with pytest.raises(RuntimeError, match=CUT_OFF.format(layer)):
        gradients(build(layer + number))
    gradients(build(layer + number, with_cp=False))


def test_the_sum_behind_a_checkpointed_block_is_read():
    terms, _ = gradients(build('before backbone.layer3.1.relu[1]'))
    assert terms['loss_fitnet'].requires_grad


@pytest.mark.parametrize('part', ['backbone.layer3', 'backbone'])
def test_what_mmengine_checkpoints_is_refused(part):
    layer = 'backbone.layer3.1.bn2'
    model = build(layer, with_cp=False)
    turn_on_activation_checkpointing(model, [part])
    with pytest.raises(RuntimeError, match=CUT_OFF.format(layer)):
        gradients(model)


def test_a_frozen_norm_in_a_block_that_trains_is_refused():
    layer = 'backbone.layer3.1.bn2'
    model = build(layer)
    model.student.backbone.layer3[1].bn2.requires_grad_(False)
    with pytest.raises(RuntimeError, match=CUT_OFF.format(layer)):
        gradients(model)


def test_what_a_checkpointed_block_puts_out_learns_as_ever():
    layers = ['backbone.layer3.1', 'backbone[0]', 'before backbone.layer3.1']
    (_, expected), (_, found) = (
        gradients(build(layers, with_cp), only='loss_fitnet')
        for with_cp in (False, True)
    )
    assert any(value is not None and value.any() for value in expected)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)


class Staged(nn.Module):
    """Runs its first stage as it is told."""

    def __init__(self, run):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        self.last = nn.Linear(2, 2)
        self.run = run

    def forward(self, image):
        return self.last(self.run(self.first, image.mean((2, 3))[:, :2]))


class Net(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.backbone = Staged(run)

    def extract_feat(self, image):
        return self.backbone(image)


def read(model, layer):
    reader = FeatureReader(model, 'student', [layer], 32)
    with reader.tap(model) as taps:
        model.extract_feat(torch.rand(2, 3, 8, 8, requires_grad=True))
    return reader.read(taps)


def without_gradient(stage, features):
    with torch.no_grad():
        return stage(features)


@pytest.mark.parametrize(
    'run', [without_gradient, partial(checkpoint, use_reentrant=True)]
)
def test_only_what_trains_is_refused(run):
    model = Net(run)
    with pytest.raises(RuntimeError, match=CUT_OFF.format('backbone.first.0')):
        read(model, 'backbone.first.0')
    model.backbone.first.requires_grad_(False)
    (frozen,) = read(model, 'backbone.first.0')
    assert not frozen.requires_grad
    with torch.no_grad():  # Nobody wants a gradient.
        read(Net(run), 'backbone.first.0')


class Listed(nn.Module):
    """Its stages are in one list, as Swin's and ConvNeXt's."""

    def __init__(self, run):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(2)
        )
        self.run = run

    def forward(self, image):
        features = image.mean((2, 3))[:, :2]
        for stage in self.stages:
            features = self.run(stage, features)
        return features


def test_a_frozen_stage_of_a_list_is_read():
    model = Net(partial(checkpoint, use_reentrant=True))
    model.backbone = Listed(model.backbone.run)
    model.backbone.stages[0].requires_grad_(False)
    (frozen,) = read(model, 'backbone.stages.0.0')
    assert not frozen.requires_grad
    layer = 'backbone.stages.1.0'
    with pytest.raises(RuntimeError, match=CUT_OFF.format(layer)):
        read(model, layer)


def test_a_layer_without_weights_counts_with_its_part():
    model = Net(without_gradient)
    model.backbone.first = nn.Sequential(nn.ReLU(), nn.Tanh())
    with pytest.raises(RuntimeError, match=CUT_OFF.format('backbone.first.0')):
        read(model, 'backbone.first.0')
    model.backbone.requires_grad_(False)
    (features,) = read(model, 'backbone.first.0')
    assert not features.requires_grad


def test_the_last_layer_of_a_checkpointed_block_is_its_output():
    model = Net(partial(checkpoint, use_reentrant=True))
    (features,) = read(model, 'backbone.first.1')
    features.sum().backward()
    assert model.backbone.first[0].weight.grad is not None


def test_a_checkpoint_that_is_not_reentrant_is_read():
    model = Net(partial(checkpoint, use_reentrant=False))
    (features,) = read(model, 'backbone.first.0')
    assert features.requires_grad


def test_a_frozen_student_is_read():
    model = build('backbone.layer2.0.conv1')
    model.student.backbone.requires_grad_(False)
    terms, _ = gradients(model)
    assert terms['loss_fitnet'] > 0


def test_a_detectors_checkpointed_block_is_refused():
    from small_detectors import distilled as distilled_detector
    from small_detectors import sample

    init_default_scope('mmdet')
    layer = 'backbone.layer3.1.conv2'
    config = distilled_detector(
        losses=dict(
            type='mmrkkd.ATLoss', student_layers=layer, loss_weight=1.0
        ),
        backbone=dict(with_cp=True),
    )
    items = [sample(0), sample(2)]
    model = MODELS.build(config).train()
    data = model.data_preprocessor(
        {key: [item[key] for item in items] for key in items[0]}, True
    )
    with pytest.raises(RuntimeError, match=CUT_OFF.format(layer)):
        model(**data, mode='loss')


# -- how hard each term pulls ----------------------------------------------


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(
        gradient_share, 'print_log', lambda text, **_: said.append(text)
    )
    return said


def test_a_pull_through_checkpointed_blocks_is_left_out(warnings):
    model = build('backbone.layer2', gradient_interval=1)
    terms, found = gradients(model)
    pulls = {key for key in terms if key.startswith('kd/grad')}
    # The task's pull at the features comes through layer3 and layer4.
    assert pulls == {
        f'kd/grad_{kind}_{term}'
        for kind in ('norm', 'share')
        for term in ('kd', 'rank', 'task')
    } | {'kd/grad_norm_fitnet'}
    plain, expected = gradients(
        build('backbone.layer2', with_cp=False, gradient_interval=1)
    )
    for key in pulls:
        torch.testing.assert_close(terms[key], plain[key])
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
    gradients(model)
    (warning,) = warnings
    assert 'gradient_interval' in warning and 'with_cp=True' in warning


def test_another_error_of_a_gradient_is_not_swallowed():
    term = nn.Parameter(torch.ones(()))
    (term * term).backward()
    used = term.exp()
    used.backward()
    with pytest.raises(RuntimeError, match='a second time'):
        gradient_share.gradient_telemetry(dict(loss=used), [term])
