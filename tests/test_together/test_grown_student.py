"""NORM: a student that trains with a residual and ends without it."""

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from small_classifiers import (
    RKKD,
    batch,
    classifier,
    distilled,
    make_runner,
)

NORM = dict(type='mmrkkd.NORMLoss', copies=3)
# Rounding of float32 in sums of a few hundred terms.
CLOSE = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()


def build(losses=NORM, **changes):
    torch.manual_seed(0)
    return MODELS.build(distilled(losses, **changes))


def trained(model, steps=2):
    """After some steps, so that nothing of the residual is as it began."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        terms = step(model)
        sum(v for k, v in terms.items() if 'loss' in k).backward()
        optimizer.step()
    return model.eval()


def step(model, **options):
    data = model.data_preprocessor(batch(**options), True)
    return model.train()(**data, mode='loss')


def logits(model):
    images = torch.randn(4, 3, 32, 32, generator=torch.manual_seed(3))
    with torch.no_grad():
        return model(images, mode='tensor')


def plain_student(state):
    student = MODELS.build(classifier()).eval()
    student.load_state_dict(state)
    return student


def test_the_task_sees_the_grown_student():
    model = build()
    plain = build(RKKD)
    state = plain.student.state_dict()
    model.student.load_state_dict(state)
    assert step(model)['loss_task'] != step(plain)['loss_task']
    step(model)['loss_task'].backward()
    for key, parameter in model.distiller.named_parameters():
        assert parameter.grad is not None, key
    assert model.student.head.fc.weight.grad is not None
    assert all(p.grad is None for p in model.teacher.model.parameters())


def test_features_that_are_compared_are_those_inside():
    model = build(gradient_interval=1)
    seen = []
    loss = model.distiller[0]
    loss.residual.expand.register_forward_hook(
        lambda module, args, output: seen.append(output)
    )
    term = step(model)
    # Once, inside the student.
    (expanded,) = seen
    with torch.no_grad():
        data = model.data_preprocessor(batch(), True)
        (teacher,) = model.teacher.model.backbone(data['inputs'])
    tiled = teacher.repeat(1, 3, 1, 1)
    expected = 3 * (expanded - tiled).square().mean()
    torch.testing.assert_close(term['loss_norm'], expected)
    assert 0 < term['kd/grad_share_norm'] < 1


def test_the_state_is_a_plain_student_merged():
    model = trained(build())
    state = model.state_dict()
    student = plain_student(state)
    own = model.student.state_dict()
    changed = [key for key in own if not torch.equal(own[key], state[key])]
    assert changed == ['head.fc.weight', 'head.fc.bias']
    grown, merged = logits(model), logits(student)
    torch.testing.assert_close(merged, grown, **CLOSE)
    # Without merging it would be another network.
    assert not torch.allclose(logits(plain_student(own)), grown, atol=1e-2)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(logits(plain_student(own)), grown, **CLOSE)


def test_loaded_weights_are_a_plain_students_bit_for_bit():
    state = trained(build()).state_dict()
    for model in (build().eval(), trained(build(), 1)):
        # As runners load: connectors are not in a student.
        model.load_state_dict(state, strict=False)
        assert torch.equal(logits(model), logits(plain_student(state)))
        again = model.state_dict()
        assert all(torch.equal(again[key], state[key]) for key in state)


def test_a_student_begins_as_any_other():
    states = []
    for losses in (RKKD, [RKKD, NORM]):
        model = build(losses)
        model.init_weights()
        states.append(model.state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_copy_grows_by_its_own_residual():
    model = trained(build())
    twin = copy.deepcopy(model)
    for parameter in twin.distiller.parameters():
        parameter.data.zero_()
    assert not torch.equal(logits(twin), logits(model))
    # A residual of zeros is none.
    own = plain_student(model.student.state_dict())
    torch.testing.assert_close(logits(twin), logits(own))


def test_another_student_grows_too():
    model, other = trained(build()), MODELS.build(classifier())
    other.load_state_dict(model.student.state_dict())
    expected = logits(model)
    model.student = other.eval()
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize('make', [lambda model: model, copy.deepcopy])
def test_the_same_student_again_grows_once(make):
    """As after its BatchNorms were converted, in a copy too."""
    model = trained(build([RKKD, dict(NORM, logit_scale=2.5)]))
    term = step(model)['loss_norm']
    expected = logits(model.eval())
    again = make(model).eval()
    again.student = again.student
    assert torch.equal(logits(again), expected)
    assert torch.equal(logits(model.eval()), expected)
    assert torch.equal(step(again)['loss_norm'], term)


def test_a_student_that_was_replaced_is_plain():
    model, other = trained(build()), MODELS.build(classifier())
    old = model.student
    model.student = other.eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = plain_student(old.state_dict())(images, mode='tensor')
        assert torch.equal(old(images, mode='tensor'), expected)


def test_connectors_have_their_own_group():
    model = build()
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='SGD', lr=0.1),
            paramwise_cfg=dict(custom_keys={'distiller': dict(lr_mult=0.5)}),
        ),
    )
    rates = {
        id(parameter): group['lr']
        for group in wrapper.param_groups
        for parameter in group['params']
    }
    assert {rates[id(p)] for p in model.distiller.parameters()} == {0.05}
    assert {rates[id(p)] for p in model.student.parameters()} == {0.1}


def test_mixed_precision():
    model = build()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = step(model)['loss_norm']
    assert half.dtype == torch.float32
    exact = step(build())['loss_norm']
    # Three digits of bfloat16, averaged over many.
    torch.testing.assert_close(half, exact, rtol=2e-2, atol=0)


def test_normalised_logits():
    seen = {}

    def look(model):
        for name in ('student', 'teacher'):
            part = getattr(model, name)
            part = part.model if name == 'teacher' else part
            # Logits beside whose deviation the epsilon is nothing.
            torch.nn.init.normal_(part.head.fc.weight)
            part.head.fc.register_forward_hook(
                lambda module, args, output, name=name: seen.update(
                    {name: (args[0], output)}
                )
            )

    model = build([RKKD, dict(NORM, logit_scale=2.5)])
    look(model)
    term = step(model)['loss_task']
    labels = torch.tensor([number % 5 for number in range(8)])
    for name, (pooled, output) in seen.items():
        part = getattr(model, name)
        part = part.model if name == 'teacher' else part
        raw = torch.nn.functional.linear(
            pooled, part.head.fc.weight, part.head.fc.bias
        )
        centered = raw - raw.mean(1, keepdim=True)
        deviation = centered.square().mean(1, keepdim=True).sqrt()
        torch.testing.assert_close(
            output, 2.5 * centered / deviation, rtol=1e-4, atol=1e-4
        )
        if name == 'student':
            expected = torch.nn.functional.cross_entropy(output, labels)
            torch.testing.assert_close(term, expected)
    assert set(seen) == {'student', 'teacher'}
    # Predictions and plain evaluation are of the logits as they are.
    model.eval()
    logits(model)
    assert seen['student'][1].square().mean(1).sub(6.25).abs().min() > 1e-3


def run(work_dir, steps, ema=None, **changes):
    hooks = [dict(type='mmrkkd.RunStateHook')]
    if ema is not None:
        hooks.append(
            dict(
                type='EMAHook',
                ema_type=ExponentialMovingAverage,
                momentum=0.4,
                **ema,
            )
        )
    runner = make_runner(
        distilled([RKKD, NORM]),
        work_dir,
        steps,
        custom_hooks=hooks,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        **changes,
    )
    runner.train()
    path = f'{runner.work_dir}/iter_{steps}.pth'
    return runner, torch.load(path, weights_only=False), path


@pytest.mark.slow
@pytest.mark.parametrize(
    'ema', [None, dict(), dict(update_buffers=True), dict(begin_iter=2)]
)
def test_resume_bit_for_bit(tmp_path, ema):
    whole, end, _ = run(tmp_path / 'whole', 4, ema)
    first, saved, path = run(tmp_path / 'parts', 2, ema)
    model = first.model
    assert set(saved['state_dict']) == set(model.student.state_dict())
    added = {'student.head.fc.weight', 'student.head.fc.bias'}
    assert set(saved['distiller']) == added | set(model.distiller.state_dict())
    assert ('distiller_ema' in saved) == (
        ema is not None and not ema.get('update_buffers')
    )
    second, again, _ = run(
        tmp_path / 'parts', 4, ema, resume=True, load_from=path
    )
    assert second.recorder.steps == whole.recorder.steps[2:]
    for kind in ('state_dict', 'distiller', 'ema_state_dict'):
        for key, value in end.get(kind, {}).items():
            assert torch.equal(value, again[kind][key]), (kind, key)
    student = plain_student(saved['state_dict'])
    if ema is None:
        grown = logits(first.model.eval())
    else:
        (average,) = [
            hook.ema_model
            for hook in first.hooks
            if hasattr(hook, 'ema_model')
        ]
        grown = logits(average.module.eval())
    torch.testing.assert_close(logits(student), grown, **CLOSE)


def unusual(**changes):
    student = classifier()
    for name, options in changes.items():
        student[name] = dict(student[name], **options)
    return student


@pytest.mark.parametrize(
    ('student', 'layer', 'message'),
    [
        (classifier(), 'backbone.layer2', 'takes 64 channels, and a layer'),
        (
            unusual(head=dict(type='StackedLinearClsHead', mid_channels=[8])),
            'backbone[0]',
            'has 2: use a loss that needs none',
        ),
        (
            unusual(
                neck=dict(type='GeneralizedMeanPooling', clamp=True, p=2.0)
            ),
            'backbone[0]',
            r"averages over the cells and nothing else, and 'head.fc' must",
        ),
        (
            classifier(),
            'before neck',
            "what a module puts out, without before, got 'before neck'",
        ),
        # A residual at both calls would not be that of the merged layer.
        (
            classifier(),
            'backbone.layer4.1.relu[1]',
            "'backbone.layer4.1.relu' is run several times: name the block",
        ),
    ],
)
def test_students_that_cannot_take_it_in(student, layer, message):
    with pytest.raises(ValueError, match=message):
        build(dict(NORM, student_layers=layer), student=student)


def test_a_linear_layer_without_bias():
    student = MODELS.build(classifier())
    student.head.fc = torch.nn.Linear(64, 5, bias=False)
    with pytest.raises(ValueError, match='must have a bias'):
        build(student=student)
