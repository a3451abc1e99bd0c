"""Distillers trained by DOT: alone, resumed, accumulated, in bfloat16."""

import contextlib
import copy
import functools

import pytest
import small_detectors
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from small_classifiers import (
    batch,
    classifier,
    distilled,
    make_runner,
    train,
)

from mmrkkd.distillers.terms import LossParts, loss_parts

LR, MOMENTUM, DELTA, DECAY = 0.05, 0.9, 0.09, 5e-4
DOT = dict(
    type='mmrkkd.DOT',
    lr=LR,
    momentum=MOMENTUM,
    delta=DELTA,
    weight_decay=DECAY,
)
# A learned temperature and a connector, which distillation alone reaches.
LOSSES = [
    dict(type='mmrkkd.CTKDLoss', ramp=1.0),
    dict(
        type='mmrkkd.FitNetLoss',
        student_layers='backbone.layer2',
        loss_weight=1.0,
    ),
]


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()


def wrapper(kind='mmrkkd.DOTOptimWrapper', **changes):
    return dict(type=kind, optimizer=dict(DOT), **changes)


def model_of(losses=LOSSES):
    torch.manual_seed(0)
    model = MODELS.build(distilled(losses, student=classifier(norm_eval=True)))
    model.init_weights()
    # A student without a signal would teach nothing about gradients.
    for parameter in model.teacher.model.parameters():
        parameter.mul_(1.5)
    return model


def named(model):
    return dict(model.named_parameters())


def gradients(model, *batches):
    """Of the task and of distillation, means over the batches; by name."""
    names, parameters = zip(*model.named_parameters())
    found = []
    for data in batches:
        terms = model(**model.data_preprocessor(data, True), mode='loss')
        parts = loss_parts(terms, model.task_names)
        found.append(
            [
                torch.autograd.grad(
                    part, parameters, retain_graph=True, allow_unused=True
                )
                for part in parts
            ]
        )
    means = (
        [
            None if each[0] is None else sum(each) / len(batches)
            for each in zip(*kind)
        ]
        for kind in zip(*found)
    )
    return [dict(zip(names, kind)) for kind in means]


class ByHand:
    """A copy of a model that takes DOT's steps as its equations have them."""

    def __init__(self, model):
        self.model = copy.deepcopy(model).train()
        self.momenta = {}

    @torch.no_grad()
    def step(self, *batches, clip=None, lr=LR, share=1.0):
        with torch.enable_grad():
            task, distillation = gradients(self.model, *batches)
        sums = [
            sum(g for g in both if g is not None).flatten()
            for both in zip(task.values(), distillation.values())
        ]
        norm = torch.cat(sums).norm()
        factor = min(1.0, clip / (norm + 1e-6)) if clip else share
        assert clip is None or factor < 1
        for name, p in self.model.named_parameters():
            g, d = task[name], distillation[name]
            delta = 0.0 if g is None or d is None else DELTA
            v = self.momenta.setdefault(name, [0.0, 0.0])
            v[0] = (MOMENTUM - delta) * v[0] + DECAY * p
            v[0] += 0.0 if g is None else factor * g
            v[1] = (MOMENTUM + delta) * v[1]
            v[1] += 0.0 if d is None else factor * d
            p -= lr * (v[0] + v[1])


def assert_alike(ours, theirs):
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        # Weights of about 1 are rounded once in each of the steps.
        torch.testing.assert_close(
            ours[name].detach(), value.detach(), rtol=2**-18, atol=2**-20
        )


def test_five_steps_by_hand(tmp_path):
    model = model_of()
    hand = ByHand(model)
    kinds = gradients(hand.model, batch(0, 8))
    reached = {
        tuple(gradient is not None for gradient in both)
        for both in zip(*(kind.values() for kind in kinds))
    }
    assert reached == {(True, True), (False, True)}
    runner, steps, _ = train(
        model, tmp_path / 'run', steps=5, optim_wrapper=wrapper()
    )
    for start in (0, 8, 0, 8, 0):
        hand.step(batch(start, start + 8))
    assert_alike(named(runner.model), named(hand.model))
    # What is logged is what it is with any wrapper.
    first = steps[0]
    assert first['loss'] == pytest.approx(
        sum(v for k, v in first.items() if k.startswith('loss_'))
    )


def test_accumulated_and_clipped_gradients(tmp_path):
    model = model_of()
    hand = ByHand(model)
    runner, _, _ = train(
        model,
        tmp_path / 'run',
        steps=4,
        batch_size=4,
        optim_wrapper=wrapper(
            accumulative_counts=2, clip_grad=dict(max_norm=0.5)
        ),
    )
    for start in (0, 8):
        hand.step(
            batch(start, start + 4), batch(start + 4, start + 8), clip=0.5
        )
    assert_alike(named(runner.model), named(hand.model))


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    save = dict(checkpoint=dict(type='CheckpointHook', interval=2))
    save['checkpoint']['by_epoch'] = False
    rates = dict(
        type='MultiStepLR', by_epoch=False, milestones=[1, 3], gamma=0.5
    )
    changes = dict(
        steps=4,
        optim_wrapper=wrapper(),
        param_scheduler=rates,
        default_hooks=save,
        custom_hooks=[dict(type='mmrkkd.RunStateHook')],
    )
    whole, steps, _ = train(model_of(), tmp_path / 'whole', **changes)
    resumed = make_runner(
        model_of(),
        tmp_path / 'resumed',
        load_from=f'{whole.work_dir}/iter_2.pth',
        resume=True,
        **changes,
    )
    resumed.train()
    assert resumed.recorder.steps == steps[2:]
    for name, value in named(whole.model).items():
        assert torch.equal(named(resumed.model)[name], value), name
    states = [
        runner.optim_wrapper.state_dict()['state']
        for runner in (whole, resumed)
    ]
    for key, state in states[0].items():
        kinds = set(state) - {'by_both'}
        assert kinds == {'momentum_task', 'momentum_distillation'}
        assert all(torch.equal(v, states[1][key][k]) for k, v in state.items())


def test_the_schedule_sets_the_rate(tmp_path):
    model = model_of()
    hand = ByHand(model)
    rates = dict(type='MultiStepLR', by_epoch=False, milestones=[1], gamma=0.5)
    runner, _, _ = train(
        model,
        tmp_path / 'run',
        steps=2,
        optim_wrapper=wrapper(),
        param_scheduler=rates,
    )
    hand.step(batch(0, 8))
    hand.step(batch(8, 16), lr=LR / 2)
    assert_alike(named(runner.model), named(hand.model))


class Spoil(Hook):
    """Makes the images of one step infinite."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1:
            data_batch['inputs'] = data_batch['inputs'].float() * float('inf')


class Infinite(Hook):
    """Adds infinity to a loss, whose gradient stays what it is."""

    # Before the guard looks.
    priority = 'HIGHEST'

    def before_train(self, runner):
        runner.model.register_forward_hook(self.see)

    def see(self, model, args, terms):
        return dict(terms, loss_task=terms['loss_task'] + float('inf'))


@pytest.mark.parametrize('counts', [1, 2])
def test_a_step_that_is_not_finite_leaves_no_trace(tmp_path, counts):
    """Of the accumulated two, the first counts alone, at half its weight."""
    model = model_of()
    hand = ByHand(model)
    runner, _, _ = train(
        model,
        tmp_path / 'run',
        steps=2,
        optim_wrapper=wrapper(accumulative_counts=counts),
        custom_hooks=[
            Spoil(),
            dict(type='mmrkkd.NonFiniteHook', action='skip'),
        ],
    )
    hand.step(batch(0, 8), share=1 / counts)
    assert_alike(named(runner.model), named(hand.model))
    assert not runner.optim_wrapper.optimizer.distilled
    for state in runner.optim_wrapper.optimizer.state.values():
        assert all(v.isfinite().all() for v in state.values())


def test_a_step_in_bfloat16(tmp_path):
    model = model_of()
    hand = ByHand(model)
    runner, _, _ = train(
        model,
        tmp_path / 'run',
        steps=1,
        batch_size=4,
        optim_wrapper=wrapper(
            'mmrkkd.DOTAutocastOptimWrapper', dtype='bfloat16'
        ),
    )
    hand.step(batch(0, 4))
    state = runner.optim_wrapper.optimizer.state
    names = named(runner.model)
    assert {v.dtype for p in names.values() for v in state[p].values()} == {
        torch.float32
    }
    kinds = ('momentum_task', 'momentum_distillation')
    found = [
        torch.cat([state[p][kind].flatten() for p in names.values()])
        for kind in kinds
    ]
    exact = [
        torch.cat(
            [
                torch.as_tensor(hand.momenta[name][kind])
                .expand_as(p)
                .flatten()
                for name, p in names.items()
            ]
        )
        for kind in (0, 1)
    ]
    for kind in (0, 1):
        # Eight bits in each of some ten layers; the other kind's is as far
        # as it is long.
        size = exact[kind].norm()
        assert (found[kind] - exact[kind]).norm() < 0.1 * size
        assert (found[kind] - exact[1 - kind]).norm() > size / 2


@pytest.fixture
def scaler_on_a_cpu(monkeypatch):
    """MMEngine's loss scaler, which it keeps to GPUs; nothing is cast."""
    if not hasattr(torch.amp, 'GradScaler'):
        pytest.skip('older loss scalers want CUDA')
    place = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
    monkeypatch.setattr(f'{place}.is_cuda_available', lambda: True)
    scaler = functools.partial(torch.amp.GradScaler, 'cpu')
    monkeypatch.setattr(f'{place}.GradScaler', scaler)
    monkeypatch.setattr(
        'mmengine.runner.amp.autocast', lambda **_: contextlib.nullcontext()
    )


@pytest.mark.parametrize('clip', [None, 0.5])
def test_scaled_losses_step_as_they_would(scaler_on_a_cpu, clip):
    model = model_of().train()
    hand = ByHand(model)
    changes = {} if clip is None else dict(clip_grad=dict(max_norm=clip))
    scaled = build_optim_wrapper(
        model,
        wrapper(
            'mmrkkd.DOTAmpOptimWrapper',
            loss_scale=dict(init_scale=256.0),
            **changes,
        ),
    )
    for start in (0, 8):
        model.train_step(batch(start, start + 4), scaled)
        hand.step(batch(start, start + 4), clip=clip)
    assert_alike(named(model), named(hand.model))
    assert scaled.loss_scaler.get_scale() == 256


def test_a_step_whose_gradients_overflow_is_skipped(scaler_on_a_cpu):
    model = model_of().train()
    before = copy.deepcopy(named(model))
    scaled = build_optim_wrapper(
        model,
        wrapper(
            'mmrkkd.DOTAmpOptimWrapper', loss_scale=dict(init_scale=2.0**127)
        ),
    )
    model.train_step(batch(0, 4), scaled)
    assert scaled.loss_scaler.get_scale() == 2.0**126
    for name, value in named(model).items():
        assert torch.equal(value, before[name]), name
    assert not scaled.optimizer.distilled


def test_after_dot_another_wrapper_gets_one_loss():
    model = model_of()
    dot = build_optim_wrapper(model, wrapper())
    plain = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    )
    model.train_step(batch(), dot)
    before = copy.deepcopy(model.state_dict())
    model.train_step(batch(), plain)
    weight = 'head.fc.weight'
    assert not torch.equal(model.state_dict()[weight], before[weight])


def test_the_two_sums_of_a_detector_make_its_loss():
    init_default_scope('mmdet')
    model = MODELS.build(small_detectors.distilled()).train()
    items = [small_detectors.sample(number) for number in (1, 2)]
    data = {key: [item[key] for item in items] for key in items[0]}
    terms = model(**model.data_preprocessor(data, True), mode='loss')
    total, log = model.parse_losses(terms)
    model.splits_losses = True
    parts, same_log = model.parse_losses(terms)
    assert same_log == log
    torch.testing.assert_close(parts.task + parts.distillation, total)
    ours = log['loss_kd'] + log['loss_rank']
    torch.testing.assert_close(parts.distillation, ours)
    # Once asked, once given.
    assert torch.is_tensor(model.parse_losses(terms)[0])


def test_another_optimizer_is_refused():
    changed = wrapper()
    changed['optimizer'] = dict(type='SGD', lr=0.1)
    with pytest.raises(TypeError, match="type='mmrkkd.DOT', got SGD"):
        build_optim_wrapper(model_of(), changed)


@pytest.mark.parametrize(
    ('clip', 'message'),
    [
        (dict(type='value', clip_value=1.0), 'norm_type, got type=value'),
        (dict(max_norm=1.0, foreach=True), 'norm_type, got foreach'),
    ],
)
def test_other_clipping_is_refused(clip, message):
    with pytest.raises(ValueError, match=message):
        build_optim_wrapper(model_of(), wrapper(clip_grad=clip))


def test_a_model_without_a_teacher_is_refused():
    model = MODELS.build(classifier())
    optim_wrapper = build_optim_wrapper(model, wrapper())
    assert isinstance(model, BaseModel)
    with pytest.raises(TypeError, match='trains distillers.*ImageClassifier'):
        model.train_step(batch(), optim_wrapper)


@pytest.mark.parametrize('counts', [1, 2])
def test_a_step_without_distillation_is_the_tasks(counts):
    """As where no box was sampled: the sum is a constant then."""
    weight = torch.nn.Parameter(torch.ones(2))
    model = torch.nn.Module()
    model.weight = weight
    dot = build_optim_wrapper(model, wrapper(accumulative_counts=counts))
    dot.initialize_count_status(model, 0, 4)
    for _ in range(counts):
        loss = LossParts(weight.square().sum(), torch.zeros(()))
        dot.update_params(loss)
    assert dot.inner_count == counts
    state = dot.optimizer.state[weight]
    # The gradient and the decay.
    torch.testing.assert_close(
        state['momentum_task'], torch.full((2,), 2 + 5e-4)
    )
    assert not state['momentum_distillation'].any()


def test_an_error_in_the_forward_pass_leaves_one_loss():
    model = model_of()
    dot = build_optim_wrapper(model, wrapper())
    with pytest.raises(KeyError), dot.optim_context(model):
        raise KeyError
    total, _ = model.parse_losses(dict(loss_kd=torch.ones(())))
    assert total == 1


def test_a_loss_that_is_not_finite_is_left_out_of_scaled_steps_too(
    scaler_on_a_cpu, tmp_path
):
    """Infinite with a finite gradient, which the scaler would step along."""
    model = model_of()
    before = copy.deepcopy(model.state_dict())
    runner, _, _ = train(
        model,
        tmp_path / 'run',
        steps=1,
        optim_wrapper=wrapper(
            'mmrkkd.DOTAmpOptimWrapper', loss_scale=dict(init_scale=256.0)
        ),
        custom_hooks=[
            Infinite(),
            dict(type='mmrkkd.NonFiniteHook', action='skip'),
        ],
    )
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert runner.optim_wrapper.loss_scaler.get_scale() == 256


@pytest.mark.parametrize(
    'kind', ['AmpOptimWrapper', 'mmrkkd.DOTAmpOptimWrapper']
)
def test_scaled_steps_of_nothing_but_bad_batches_are_left_out(
    scaler_on_a_cpu, tmp_path, kind
):
    model = model_of()
    before = copy.deepcopy(model.state_dict())
    optimizer = DOT if 'DOT' in kind else dict(type='SGD', lr=0.05)
    runner, _, _ = train(
        model,
        tmp_path / 'run',
        steps=2,
        optim_wrapper=dict(
            type=kind,
            optimizer=dict(optimizer),
            loss_scale=dict(init_scale=256.0),
            accumulative_counts=2,
        ),
        custom_hooks=[
            Infinite(),
            dict(type='mmrkkd.NonFiniteHook', action='skip'),
        ],
    )
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, before[key]), key
