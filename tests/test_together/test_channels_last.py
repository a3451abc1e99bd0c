"""Weights and maps whose channels lie side by side in memory."""

import copy
from types import SimpleNamespace

import pytest
import torch
from conftest import detector_config
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from small_classifiers import batch, distilled

from mmrkkd.engine import AutocastOptimWrapper
from mmrkkd.engine.hooks import ChannelsLastHook


@pytest.fixture(autouse=True)
def no_scope_is_left():
    yield
    DefaultScope._instance_dict.clear()


def built():
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(distilled())
    model.init_weights()
    return model.double().train()


def step(model):
    """The terms of a batch, and the student's gradients."""
    data = batch()
    data = model.data_preprocessor(data, True)
    data['inputs'] = data['inputs'].double()
    terms = model(**data, mode='loss')
    sum(v for k, v in terms.items() if 'loss' in k).backward()
    return terms, {
        name: parameter.grad for name, parameter in model.named_parameters()
    }


def lies_last(model):
    """Whether a 3 x 3 convolution has its channels last."""
    (weight, *_) = (
        part.weight
        for part in model.modules()
        if isinstance(part, torch.nn.Conv2d) and part.kernel_size == (3, 3)
    )
    return weight.is_contiguous(memory_format=torch.channels_last)


def test_both_models_have_the_layout_and_the_numbers_stay():
    usual, last = built(), built()
    ChannelsLastHook().before_train(SimpleNamespace(model=last))
    assert lies_last(last.student) and lies_last(last.teacher.model)
    assert not lies_last(usual.student)
    terms, slopes = step(last)
    exact, exact_slopes = step(usual)
    for name, value in exact.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-9, atol=1e-12)
    for name, value in exact_slopes.items():
        torch.testing.assert_close(slopes[name], value, rtol=1e-7, atol=1e-10)
    assert set(last.state_dict()) == set(usual.state_dict())


@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
def test_layers_of_mmcv_get_the_usual_layout(kind):
    """Which read the memory of their input and weights as it lies."""
    init_default_scope('mmdet')
    config = detector_config()
    config.backbone.update(
        depth=50,
        dcn=dict(type=kind, deform_groups=1),
        stage_with_dcn=(False, True, False, False),
    )
    config.neck.in_channels = [32, 64, 128, 256]
    torch.manual_seed(0)
    usual = MODELS.build(config).double().eval()
    for name, parameter in usual.named_parameters():
        if 'conv_offset' in name:
            # Drawn as 0, every place would be its own.
            torch.nn.init.normal_(parameter, std=0.1)
    last = copy.deepcopy(usual)
    ChannelsLastHook().before_train(SimpleNamespace(model=last))
    assert lies_last(last) and not lies_last(usual)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    boxes = torch.tensor(
        [[0.0, 4, 4, 40, 50], [1, 10, 0, 60, 30]], dtype=torch.float64
    )
    values, slopes = [], []
    for model in (usual, last):
        maps = model.extract_feat(images)
        extractor = model.roi_head.bbox_roi_extractor
        values.append(extractor(maps[: extractor.num_inputs], boxes))
        values[-1].square().sum().backward()
        slopes.append([each.grad for each in model.parameters()])
    torch.testing.assert_close(values[1], values[0], rtol=1e-9, atol=1e-12)
    assert values[0].abs().max() > 1e-3
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    'fast, dtype, kind',
    [
        (None, 'auto', torch.float32),
        (torch.bfloat16, 'auto', torch.bfloat16),
        (None, 'bfloat16', torch.bfloat16),
    ],
)
def test_bfloat16_where_the_device_is_fast_at_it(
    fast, dtype, kind, monkeypatch
):
    monkeypatch.setattr(
        'mmrkkd.engine.optim_wrapper.fast_dtype', lambda device: fast
    )
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    wrapper = AutocastOptimWrapper(dtype=dtype, optimizer=optimizer)
    with wrapper.optim_context(layer):
        assert layer(torch.ones(1, 2)).dtype == kind


def test_a_dtype_of_another_name_is_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(ValueError, match="dtype must be .*'float16'"):
        AutocastOptimWrapper(dtype='float16', optimizer=optimizer)
