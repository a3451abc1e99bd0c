"""MMEngine's ``compile`` over the parts of a step that Dynamo cannot read."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from small_classifiers import RKKD, batch, distilled, train
from torch import nn

from mmrkkd.distillers import gradient_share
from mmrkkd.distillers.readers.features import FeatureReader

FITNET = dict(
    type='mmrkkd.FitNetLoss', student_layers='backbone[0]', loss_weight=1.0
)
BACKENDS = ('eager', 'aot_eager')


@pytest.fixture(autouse=True)
def scope_and_dynamo():
    init_default_scope('mmpretrain')
    gradient_share._say_what_is_left_out.cache_clear()
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    DefaultScope._instance_dict.clear()


def config(losses=RKKD, precision='float32', **changes):
    """The smallest of classifiers, whose teacher has a precision."""
    model = distilled(losses, **changes)
    for part in (model['student'], model['teacher']['config']):
        part['backbone'] = dict(type='mmrkkd.CIFARResNet', depth=8)
        part['head']['init_cfg'] = None
    model['teacher']['precision'] = precision
    return model


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


# -- the teacher's precision ------------------------------------------------


@pytest.mark.parametrize('backend', BACKENDS)
def test_dynamo_does_not_trace_how_a_teacher_settles(backend):
    """Its weights are replaced and its layers looked at on a first batch."""
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = MODELS.build(config(precision='bfloat16')).train()
        if compiled:
            model._settle = torch.compile(model._settle, backend=backend)
        data = model.data_preprocessor(batch(), True)
        found.append(model(**data, mode='loss'))
        assert model.teacher.engine.running == 'bfloat16'
    assert_same(*found)


@pytest.mark.slow
@pytest.mark.parametrize('backend', BACKENDS)
def test_a_compiled_run_beside_a_reduced_teacher_is_the_plain_one(
    tmp_path, backend
):
    model = config([RKKD, FITNET], precision='bfloat16')
    runner, expected, _ = train(model, tmp_path / 'plain', steps=2)
    assert runner.model.teacher.engine.running == 'bfloat16'
    runner, found, _ = train(
        model,
        tmp_path / 'run',
        steps=2,
        cfg=dict(compile=dict(backend=backend)),
    )
    assert runner.model.teacher.engine.running == 'bfloat16'
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=2**-8, abs=2**-8)


# -- features ---------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())

    def extract_feat(self, image):
        return self.backbone(image)


def test_code_of_a_model_without_taps_is_told_of():
    """Dynamo takes no notice of hooks when it looks for code it has."""
    model, image = Net(), torch.rand(2, 3, 8, 8)
    reader = FeatureReader(model, 'student', ['backbone.0'], 32)
    extract = torch.compile(model.extract_feat, backend='eager')
    extract(image)
    with reader.tap(model) as taps:
        extract(image)
    with pytest.raises(RuntimeError, match=r'call torch._dynamo.reset\(\)'):
        reader.read(taps)
    torch._dynamo.reset()
    with reader.tap(model) as taps:
        expected = extract(image)
    assert torch.equal(reader.read(taps)[0].relu(), expected)


# -- how hard each term pulls -----------------------------------------------


def pulls(weight, image):
    logits = image @ weight
    terms = dict(loss_kd=logits.square().sum(), task=logits.exp().sum())
    return gradient_share.gradient_telemetry(terms, [logits])


@pytest.mark.parametrize('backend', BACKENDS)
def test_a_pull_inside_a_compiled_graph_is_left_out(monkeypatch, backend):
    said = []
    monkeypatch.setattr(
        gradient_share, 'print_log', lambda text, **_: said.append(text)
    )
    weight = nn.Parameter(torch.ones(2, 3))
    image = torch.ones(4, 2)
    expected = pulls(weight, image)
    assert expected['kd/grad_norm_kd'] > 0 and not said
    compiled = torch.compile(pulls, backend=backend)
    for _ in range(2):
        found = compiled(weight, image)
        if backend == 'eager':
            assert_same(found, expected)
        else:
            assert found == {}
    assert len(said) == (backend != 'eager')


class Compiled(torch.autograd.Function):
    """What runs backwards once, as inductor's graphs do."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError(
            'This backward function was compiled with non-empty donated '
            'buffers which requires create_graph=False and retain_graph=False.'
        )


def test_a_pull_of_a_compiled_loss_is_left_out():
    logits = nn.Parameter(torch.ones(2, 3))
    terms = dict(loss=Compiled.apply(logits).sum(), task=logits.sum())
    found = gradient_share.gradient_telemetry(terms, [logits])
    assert found == {'kd/grad_norm_task': pytest.approx(6**0.5)}


@pytest.mark.slow
def test_a_compiled_run_logs_no_pull(tmp_path):
    _, steps, _ = train(
        config([RKKD, FITNET], gradient_interval=1),
        tmp_path / 'run',
        steps=2,
        cfg=dict(compile=dict(backend='aot_eager')),
    )
    for step in steps:
        assert step['loss_fitnet'] > 0
        assert not any(key.startswith('kd/grad') for key in step)
