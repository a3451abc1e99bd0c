"""FCFD: classifiers that go on from each other's features."""

import copy

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from small_classifiers import CLASSES, RKKD, batch, distilled, make_runner
from small_classifiers import classifier as stock_classifier

from mmrkkd.backbones import CIFARVGG
from mmrkkd.distillers.readers.stages import MixedStages, StageReader
from mmrkkd.losses import build_schedule

STAGES = ['backbone.layer1', 'backbone.layer2', 'backbone[0]']
FCFD = dict(type='mmrkkd.FCFDLoss', student_layers=STAGES)


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()


def classifier(kind='CIFARResNet', channels=64, **options):
    """A classifier on a backbone that is run stage by stage."""
    if kind == 'CIFARResNet':
        options.setdefault('depth', 8)
    return dict(
        stock_classifier(),
        backbone=dict(type=f'mmrkkd.{kind}', **options),
        head=dict(stock_classifier()['head'], in_channels=channels),
    )


def config(losses=FCFD, student=None, teacher=None, **options):
    model = distilled(losses, student=student or classifier(), feature_size=32)
    model['teacher']['config'] = teacher or classifier(depth=14)
    model['teacher'].update(options)
    return model


def build(*args, **options):
    torch.manual_seed(0)
    return MODELS.build(config(*args, **options)).train()


def step(model, seed=1):
    """The terms of a step on six images; the paths of a seed."""
    data = model.data_preprocessor(batch(0, 6), True)
    torch.manual_seed(seed)
    return model.train()(**data, mode='loss')


def total(terms):
    return sum(value for key, value in terms.items() if 'fcfd' in key)


def both_ways(model):
    """A path from each network, changing after the first stage."""
    model.distiller[0].draw = lambda: [(0, 0), (1, 0)]
    return model


def test_gradients_reach_student_and_bridges_and_nothing_else():
    model = both_ways(build())
    total(step(model)).backward()
    for key, parameter in model.student.named_parameters():
        assert parameter.grad.abs().sum() > 0, key
    assert all(p.grad is None for p in model.teacher.model.parameters())
    for key, parameter in model.distiller.named_parameters():
        assert parameter.grad is not None, key


def test_mixed_paths_leave_the_running_statistics_alone():
    """Those of the student are what its own batch makes them."""
    plain, model = build(RKKD), both_ways(build([FCFD]))
    teacher = copy.deepcopy(model.teacher.model.state_dict())
    for each in (plain, model):
        step(each)
    states = plain.student.state_dict(), model.student.state_dict()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    for key, value in model.teacher.model.state_dict().items():
        assert torch.equal(value, teacher[key]), key
    assert not any(part.training for part in model.teacher.model.modules())
    assert all(part.training for part in model.student.modules())


def test_the_mixed_path_ends_with_the_teachers_head():
    model = both_ways(build())
    loss = model.distiller[0]
    loss.draw = lambda: [(0, 1)]
    term = step(model)['loss_fcfd_kl']
    with torch.no_grad():
        data = model.data_preprocessor(batch(0, 6), True)
        own = model.student.backbone
        features = own.layer1(own.forward_stem(data['inputs']))
        features = loss.to_teacher[1](own.layer2(features))
        teacher = model.teacher.model
        target = teacher(data['inputs'])
        # In training mode it takes the statistics of what it is given.
        rest = copy.deepcopy(teacher.backbone.layer3)
        for part in rest.modules():
            part.training = True
        logits = teacher.head((rest(features).mean((2, 3)),))
        divergence = torch.nn.functional.kl_div(
            (logits / 4).log_softmax(1),
            (target / 4).log_softmax(1),
            reduction='batchmean',
            log_target=True,
        )
    torch.testing.assert_close(term.detach(), 16 * divergence)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('student', 'student_layers', 'teacher', 'teacher_layers'),
    [
        (
            classifier('CIFARShuffleNetV2', 1024),
            ['backbone.layer1', 'backbone.layer2', 'backbone[0]'],
            classifier('CIFARWideResNet', 128, depth=10, widen_factor=2),
            ['backbone.block1', 'backbone.block2', 'backbone[0]'],
        ),
        (
            classifier('CIFARMobileNetV2', 1280),
            [f'backbone.stage{n}' for n in (1, 2, 3)] + ['backbone[0]'],
            classifier('CIFARVGG', 512, depth=8),
            [f'backbone.block{n}' for n in (1, 2, 3)] + ['backbone[0]'],
        ),
    ],
)
def test_pairs_of_the_tables(student, student_layers, teacher, teacher_layers):
    loss = dict(
        type='mmrkkd.FCFDLoss',
        student_layers=student_layers,
        teacher_layers=teacher_layers,
        paths=2 * len(student_layers) - 2,
    )
    model = build(loss, student, teacher)
    terms = step(model)
    total(terms).backward()
    assert all(value.isfinite() for value in terms.values())
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key


@pytest.mark.slow
def test_the_loss_falls_on_one_batch():
    model = build(dict(FCFD, paths=4))
    loss = model.distiller[0]
    loss.loss_weight = build_schedule('loss_weight', 1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        terms = step(model)
        total(terms).backward()
        optimizer.step()
        values.append({k: v.item() for k, v in terms.items() if 'fcfd' in k})
    for key, value in values[-1].items():
        assert value < values[0][key], key


def test_mixed_precision():
    exact = both_ways(build())
    model = both_ways(build())
    wanted = step(exact)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        terms = step(model)
    for key in ('loss_fcfd', 'loss_fcfd_kl'):
        assert terms[key].dtype == torch.float32
        # Features are bfloat16's, of three digits.
        torch.testing.assert_close(terms[key], wanted[key], rtol=5e-2, atol=0)


def run(work_dir, steps, **changes):
    runner = make_runner(
        config([RKKD, FCFD]),
        work_dir,
        steps,
        custom_hooks=[
            dict(type='mmrkkd.RunStateHook'),
            dict(type='EMAHook'),
        ],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        **changes,
    )
    runner.train()
    path = f'{runner.work_dir}/iter_{steps}.pth'
    return runner, torch.load(path, weights_only=False), path


@pytest.mark.slow
def test_resume_bit_for_bit(tmp_path):
    whole, end, _ = run(tmp_path / 'whole', 4)
    first, saved, path = run(tmp_path / 'parts', 2)
    assert set(saved['state_dict']) == set(first.model.student.state_dict())
    second, again, _ = run(tmp_path / 'parts', 4, resume=True, load_from=path)
    assert second.recorder.steps == whole.recorder.steps[2:]
    for kind in ('state_dict', 'distiller', 'ema_state_dict'):
        for key, value in end[kind].items():
            assert torch.equal(value, again[kind][key]), (kind, key)
    # A plain student is left.
    student = MODELS.build(classifier()).eval()
    student.load_state_dict(second.model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(student(images), second.model.eval()(images))


def test_classes_are_matched_by_name():
    """Student and teacher are one network but for the order of classes."""
    loss = dict(FCFD, paths=1)
    order = [3, 1, 0, 4, 2]
    model = build(
        loss,
        teacher=classifier(),
        classes=[CLASSES[number] for number in order],
    )
    state = copy.deepcopy(model.student.state_dict())
    for key in ('head.fc.weight', 'head.fc.bias'):
        state[key] = state[key][order]
    model.teacher.model.load_state_dict(state)
    for part in model.teacher.model.modules():
        # It sees the same statistics as the student.
        part.training = True
    (connect,) = model.distiller[0].to_student[:1]
    for module in connect:
        module.forward = lambda features: features
    model.distiller[0].draw = lambda: [(1, 0)]
    term = step(model)['loss_fcfd_kl']
    assert term.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ('student', 'layers', 'message'),
    [
        (
            stock_classifier(),
            ['backbone.layer1', 'backbone[0]'],
            'the backbone ResNet_CIFAR of the student cannot be run so: it',
        ),
        (classifier(), ['backbone.layer2', 'backbone.layer1'], 'in order, of'),
        (classifier(), ['backbone.layer1', 'backbone.layer2'], 'at the end'),
        (
            classifier('CIFARWideResNet', 64, depth=10),
            ['backbone.block1', 'backbone.block3'],
            r'at the end its last output, backbone\[0\]; got',
        ),
        (classifier(), ['backbone.conv1', 'backbone[0]'], r'got backbone.co'),
        (
            classifier(out_indices=(0, 2)),
            ['backbone[0]', 'backbone[1]'],
            r'got backbone\[0\], backbone\[1\]',
        ),
        (
            classifier(out_indices=(1,), channels=32),
            ['backbone.layer1', 'backbone[0]'],
            r'at the end its last output, backbone\[0\]; got',
        ),
    ],
)
def test_models_that_cannot_be_run_apart(student, layers, message):
    loss = dict(FCFD, student_layers=layers, teacher_layers=STAGES)
    with pytest.raises(ValueError, match=message):
        build(loss, student=student)


def test_a_network_without_a_classifiers_head():
    model = torch.nn.Module()
    model.backbone = CIFARVGG(8)
    with pytest.raises(ValueError, match='CIFARVGG of the student cannot'):
        StageReader(model, 'student', ['backbone[0]'], 32)


def test_stages_that_no_bridge_joins():
    teacher = classifier('MobileNetV1', 1024)
    loss = dict(
        FCFD,
        teacher_layers=['backbone.stage3', 'backbone.stage4', 'backbone[0]'],
    )
    with pytest.raises(ValueError, match='sides are equal, or twice'):
        build(loss, teacher=teacher)


@pytest.mark.parametrize(
    'options', [dict(precision='bfloat16'), dict(compile=True)]
)
def test_a_teacher_that_is_not_exact(options):
    with pytest.raises(ValueError, match="wants teacher.precision='float32'"):
        build(**options)


def test_an_automatic_teacher_stays_exact():
    engine = build(precision='auto').teacher.engine
    assert engine.precision == 'float32' and engine.settled


def test_the_last_stage_may_stand_for_the_output():
    model = MODELS.build(classifier())
    stops = [
        StageReader(model, 'student', ['backbone.layer1', last], 32).stops
        for last in ('backbone.layer3', 'backbone[0]')
    ]
    assert stops == [[0, 2]] * 2


@pytest.mark.parametrize('side', [32, 64])
def test_a_network_run_by_stages_is_the_network(side):
    model = MODELS.build(classifier('CIFARVGG', 512, depth=8)).eval()
    layers = ['backbone.block0', 'backbone.block3', 'backbone[0]']
    reader = StageReader(model, 'student', layers, side)
    assert reader.activated == [True] * 3
    images = torch.randn(2, 3, side, side)
    features = images
    for number in range(3):
        features = reader.run(model, number, features)
    assert torch.equal(features, model.backbone(images)[0])
    ends = MixedStages(reader, model, lambda logits: logits)
    assert torch.equal(ends.scores(features), model(images))


def test_linear_stages_are_told_from_activated_ones():
    model = MODELS.build(classifier('CIFARMobileNetV2', 1280))
    layers = ['backbone.stage1', 'backbone.stage4', 'backbone[0]']
    reader = StageReader(model, 'student', layers, 32)
    assert reader.activated == [False, False, True]


@pytest.mark.parametrize(
    ('side', 'sides'), [(32, (32, 16, 8, 4, 4)), (64, (64, 32, 16, 8, 4))]
)
def test_vgg_pools_large_inputs_once_more(side, sides):
    model = CIFARVGG(8, out_indices=range(5)).eval()
    maps = model(torch.randn(1, 3, side, side))
    assert tuple(each.shape[-1] for each in maps) == sides
