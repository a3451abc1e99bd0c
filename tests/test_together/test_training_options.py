"""What else a run may switch on, each together with distillation."""

import pytest
import torch
from conftest import CLASSES as BOXES
from conftest import detector_config
from mmengine.hooks import EMAHook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from small_classifiers import (
    assert_same_terms,
    batch,
    classifier,
    distilled,
    train,
    trained_beside_ema,
)

from mmrkkd.distillers import KDDetector

KD_TERMS = ('loss_kd', 'loss_rank', 'kd/tau', 'kd/top1_agreement', 'kd/kl')


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """Logs and weights of a distilled run with nothing switched on."""
    return run(tmp_path_factory.mktemp('plain') / 'run')


def run(work_dir, steps=3, **changes):
    model = distilled(student=classifier(**changes.pop('backbone', {})))
    return train(model, work_dir, steps=steps, **changes)


def is_plain_students(state, **backbone):
    """Loads a state dict into a student that was built without us."""
    student = MODELS.build(classifier(**backbone))
    student.load_state_dict(state, strict=True)
    return set(state) == set(student.state_dict())


def test_a_plain_run_distils(plain):
    _, steps, saved = plain
    assert is_plain_students(saved['state_dict'])
    for step in steps:
        assert set(step) >= set(KD_TERMS)
        assert step['loss_kd'] > 0


def test_ema_is_the_average_of_plain_students(plain, tmp_path):
    ema = EMAHook(momentum=0.5)
    _, steps, saved = run(tmp_path / 'run', custom_hooks=[ema])
    assert steps == plain[1]  # An average beside the run changes nothing.
    # A checkpoint has the average where the weights were, and them beside.
    averaged = saved['state_dict']
    trained = trained_beside_ema(saved)
    assert is_plain_students(averaged) and is_plain_students(trained)
    key = 'head.fc.weight'
    assert torch.equal(trained[key], plain[2]['state_dict'][key])
    assert not torch.equal(averaged[key], trained[key])


def test_checkpointed_activations_change_no_term(plain, tmp_path):
    _, steps, saved = run(tmp_path / 'run', backbone=dict(with_cp=True))
    assert_same_terms(steps, plain[1], rtol=0)
    state, expected = saved['state_dict'], plain[2]['state_dict']
    assert is_plain_students(state, with_cp=True)
    assert is_plain_students(state)
    for key, value in expected.items():
        # The second forward pass counts in BatchNorm's statistics; with
        # and without distillation.
        if 'running' not in key and 'num_batches' not in key:
            assert torch.equal(state[key], value), key


@pytest.mark.slow
def test_compiled_steps_keep_every_term(plain, tmp_path):
    """The taps are forward hooks: Dynamo runs them, or breaks the graph.

    The backend aot_eager takes the graphs that eager would be given.
    """
    torch._dynamo.reset()
    runner, steps, saved = run(
        tmp_path / 'run', cfg=dict(compile=dict(backend='aot_eager'))
    )
    assert hasattr(runner.model.train_step, '_torchdynamo_orig_callable')
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] > 0
    assert_same_terms(steps, plain[1], rtol=2**-14)
    assert is_plain_students(saved['state_dict'])
    torch._dynamo.reset()


def test_channels_last_changes_rounding_only(plain):
    model = MODELS.build(distilled())
    state = plain[2]['state_dict']
    model.load_state_dict(state, strict=True)
    data = model.data_preprocessor(batch(), True)
    expected = model.eval()(**data, mode='loss')
    model.to(memory_format=torch.channels_last)
    data['inputs'] = data['inputs'].to(memory_format=torch.channels_last)
    for owner in (model.student, model.teacher.model):
        weight = owner.backbone.layer1[0].conv1.weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
    terms = model(**data, mode='loss')
    assert set(terms) == set(expected)
    for name in expected:
        torch.testing.assert_close(terms[name], expected[name])
    model.parse_losses(terms)[0].backward()
    assert is_plain_students(model.state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])


def test_frozen_stages_stay_and_the_rest_is_distilled(plain, tmp_path):
    frozen = dict(frozen_stages=2, norm_eval=True)
    _, steps, saved = run(tmp_path / 'run', backbone=frozen)
    assert steps[0]['loss_kd'] > 0 and set(steps[0]) == set(plain[1][0])
    state = saved['state_dict']
    assert is_plain_students(state)
    initial = run(
        tmp_path / 'initial',
        steps=1,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        backbone=frozen,
    )[2]['state_dict']
    for key, value in initial.items():
        if key.startswith(('backbone.layer1', 'backbone.layer2')):
            assert torch.equal(state[key], value), key
    for key in ('backbone.layer3.0.conv1.weight', 'head.fc.weight'):
        assert not torch.equal(state[key], initial[key])


# -- DistributedDataParallel and detectors ---------------------------------


SETTINGS = [{}, dict(frozen_stages=2), dict(with_cp=True)]
SETTING_NAMES = ['plain', 'frozen_stages', 'with_cp']


@pytest.mark.parametrize('backbone', SETTINGS, ids=SETTING_NAMES)
def test_no_classifiers_parameter_is_unused(one_process, backbone):
    """DDP raises in the second step where one was, without the search."""
    model = MODELS.build(distilled(student=classifier(**backbone)))
    steps_in_parallel(model, batch)


@pytest.mark.usefixtures('mmdet_scope')
@pytest.mark.parametrize('backbone', SETTINGS, ids=SETTING_NAMES)
def test_no_detectors_parameter_is_unused(one_process, backbone, request):
    init_default_scope('mmdet')
    model = KDDetector(
        student=detector_config(backbone=backbone),
        teacher=dict(
            config=detector_config(), allow_random_weights=True, classes=BOXES
        ),
        losses=dict(type='mmrkkd.RankKDLoss', temperature=1.0),
        class_names=BOXES,
    )
    steps_in_parallel(model, request.getfixturevalue('batch'))
    plain = MODELS.build(detector_config())
    plain.load_state_dict(model.state_dict(), strict=True)


def steps_in_parallel(model, batches):
    model = MMDistributedDataParallel(model, find_unused_parameters=False)
    optimizer = build_optim_wrapper(
        model, dict(optimizer=dict(type='SGD', lr=0.01))
    )
    for _ in range(3):
        terms = model.train_step(batches(), optimizer)
        assert set(terms) >= set(KD_TERMS)
        assert all(value.isfinite() for value in terms.values())
