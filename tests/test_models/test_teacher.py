"""A teacher loads completely, or the run stops and says why."""

import copy
import random

import numpy as np
import pytest
import torch
from conftest import detector_config
from mmengine.registry import MODELS
from small_dense_heads import dense_config
from torch import nn

from mmrkkd.checkpoint.random_state import (
    cpu_random_state_kept,
    random_state_kept,
)
from mmrkkd.distillers import teacher as teacher_module
from mmrkkd.distillers.teacher import FrozenTeacher, build_teacher

pytestmark = pytest.mark.usefixtures('mmdet_scope')


@pytest.fixture
def config():
    return detector_config()


@pytest.fixture
def checkpoint(tmp_path, config):
    model = MODELS.build(copy.deepcopy(config))
    path = tmp_path / 'teacher.pth'
    torch.save(
        dict(
            state_dict=model.state_dict(),
            meta=dict(dataset_meta=dict(classes=('cat', 'dog', 'bird'))),
        ),
        path,
    )
    return path


def change(path, function):
    content = torch.load(path)
    function(content['state_dict'])
    torch.save(content, path)


def test_every_weight_is_loaded(config, checkpoint):
    teacher = build_teacher(config, checkpoint)
    saved = torch.load(checkpoint)['state_dict']
    for key, value in teacher.model.state_dict().items():
        assert torch.equal(value, saved[key])
    assert teacher.classes == ('cat', 'dog', 'bird')
    assert str(checkpoint) in teacher.source


@pytest.mark.parametrize('form', ['model', 'whole', 'file', 'scope name'])
def test_forms_of_config(form, config, tmp_path):
    if form == 'whole':
        config = dict(model=config, default_scope='mmdet')
    elif form == 'file':
        path = tmp_path / 'teacher.py'
        path.write_text("_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'")
        config = str(path)
    elif form == 'scope name':
        config = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    teacher = build_teacher(config, allow_random_weights=True)
    is_own = form in ('model', 'whole')
    expected = 'FasterRCNN' if is_own else 'RetinaNet'
    assert type(teacher.model).__name__ == expected


def test_a_distilled_student_can_teach(config, checkpoint):
    distilled = dict(type='mmrkkd.KDDetector', student=config, teacher={})
    teacher = build_teacher(distilled, checkpoint)
    assert type(teacher.model).__name__ == 'FasterRCNN'


def test_config_is_not_changed(config):
    before = copy.deepcopy(config)
    build_teacher(config, allow_random_weights=True)
    assert config == before


def test_frozen_for_good(config):
    model = build_teacher(config, allow_random_weights=True).model
    assert not any(p.requires_grad for p in model.parameters())
    model.train()
    assert not any(module.training for module in model.modules())


def test_copies_of_a_detector_are_its_equals(config):
    teacher = build_teacher(config, allow_random_weights=True)
    twin = copy.deepcopy(dict(x=teacher))['x']
    own = teacher.model.state_dict()
    for key, value in twin.model.state_dict().items():
        assert torch.equal(value, own[key])
    assert not twin.model.train().training


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_random_state_is_left_alone(config):
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draw()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    build_teacher(config, allow_random_weights=True)
    assert draw() == expected


@pytest.mark.parametrize('kept', [cpu_random_state_kept, random_state_kept])
def test_random_state_is_left_alone_by_a_model_that_fails(kept):
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draw()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    with pytest.raises(ZeroDivisionError), kept():
        draw()
        raise ZeroDivisionError
    assert draw() == expected


def test_no_checkpoint_stops(config):
    with pytest.raises(
        ValueError, match='(?s)checkpoint is missing.*allow_random_weig'
    ):
        build_teacher(config)


def test_all_that_does_not_fit_is_listed(config, checkpoint):

    def damage(weights):
        del weights['backbone.conv1.weight']
        del weights['rpn_head.rpn_cls.bias']
        weights['roi_head.bbox_head.fc_cls.bias'] = torch.ones(81)
        weights['extra.weight'] = torch.ones(1)

    change(checkpoint, damage)
    with pytest.raises(ValueError) as error:
        build_teacher(config, checkpoint)
    message = str(error.value)
    assert 'Missing keys (2):\n  backbone.conv1.weight\n  rpn_head' in message
    assert 'fc_cls.bias: the model has (4,), the checkpoint (81,)' in message
    assert 'does not have (1):\n  extra.weight' in message


def test_extra_keys_alone_are_named_in_the_log(
    config, checkpoint, monkeypatch
):
    messages = []
    monkeypatch.setattr(
        teacher_module, 'print_log', lambda text, **_: messages.append(text)
    )
    change(checkpoint, lambda weights: weights.update(extra=torch.ones(1)))
    build_teacher(config, checkpoint)
    assert 'not used (1):\n  extra' in ''.join(messages)


@pytest.mark.parametrize('stated', [True, False])
def test_unknown_names_are_told_in_the_log(
    stated, config, checkpoint, monkeypatch
):
    messages = []
    monkeypatch.setattr(
        teacher_module, 'print_log', lambda text, **_: messages.append(text)
    )
    if not stated:
        content = torch.load(checkpoint)
        torch.save(dict(content, meta={}), checkpoint)
    teacher = build_teacher(config, checkpoint)
    assert ('states no class names' in ''.join(messages)) is not stated
    assert (teacher.classes is None) is not stated
    messages.clear()
    names = ['dog', 'cat', 'bird']
    assert build_teacher(config, checkpoint, classes=names).classes == (
        'dog',
        'cat',
        'bird',
    )
    assert not messages


@pytest.mark.parametrize('key', ['classes', 'CLASSES'])
def test_names_in_capitals_are_names(key, config, checkpoint):
    content = torch.load(checkpoint)
    content['meta'] = dict(dataset_meta={key: ['cat', 'dog', 'bird']})
    torch.save(content, checkpoint)
    teacher = build_teacher(config, checkpoint)
    assert teacher.classes == ('cat', 'dog', 'bird')


def test_one_name_without_a_comma(config):
    with pytest.raises(ValueError, match=r"teacher.classes .*\('person',\)"):
        build_teacher(config, classes='person', allow_random_weights=True)


def test_count_of_batches_may_be_missing(config, checkpoint):

    def old(weights):
        for key in list(weights):
            if key.endswith('num_batches_tracked'):
                del weights[key]

    change(checkpoint, old)
    teacher = build_teacher(config, checkpoint)
    saved = torch.load(checkpoint)['state_dict']
    state = teacher.model.state_dict()
    assert len(saved) < len(state)
    assert all(torch.equal(state[key], saved[key]) for key in saved)


def test_errors_of_config(tmp_path):
    with pytest.raises(FileNotFoundError, match='no.py.* does not exist'):
        build_teacher(str(tmp_path / 'no.py'), allow_random_weights=True)
    with pytest.raises(ValueError, match=r"it has the keys \['a'\]"):
        build_teacher(dict(a=1), allow_random_weights=True)


def test_follows_a_dtype():
    teacher = FrozenTeacher(nn.Linear(2, 2))
    teacher.apply(lambda tensor: tensor.double())
    assert teacher.model.weight.dtype == torch.float64


def test_old_names_that_a_head_knows_are_loaded(tmp_path):
    """As MMDetection itself loads them."""
    config = dense_config('fcos')
    torch.manual_seed(0)
    weights = MODELS.build(copy.deepcopy(config)).state_dict()
    old = {
        key.replace('conv_cls', 'fcos_cls').replace('conv_reg', 'fcos_reg'): v
        for key, v in weights.items()
    }
    assert set(old) != set(weights)
    path = tmp_path / 'old.pth'
    torch.save(dict(state_dict=old), path)
    loaded = build_teacher(config, path).model.state_dict()
    for key, value in weights.items():
        assert torch.equal(loaded[key], value), key
    # One key less, and nothing is loaded.
    del old['bbox_head.fcos_reg.bias']
    model = MODELS.build(copy.deepcopy(config))
    before = {key: v.clone() for key, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r'bbox_head\.conv_reg\.bias'):
        teacher_module.load_strictly(model, old, 'old.pth')
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
