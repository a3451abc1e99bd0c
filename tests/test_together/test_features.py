"""The seam for features: named layers of both models in their one forward."""

import copy
from unittest import mock

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmengine.runner import load_checkpoint
from small_classifiers import (
    RKKD,
    batch,
    classifier,
    distilled,
    make_runner,
)
from torch import nn

from mmrkkd.distillers import feature_seam
from mmrkkd.distillers.feature_seam import FeatureSeam
from mmrkkd.distillers.gradient_share import term_gradients
from mmrkkd.distillers.readers.features import FeatureReader, at_first_size
from mmrkkd.distillers.terms import common_name
from mmrkkd.losses import FitNetLoss

FITNET = dict(
    type='mmrkkd.FitNetLoss',
    student_layers=['backbone.layer2', 'backbone[0]'],
    loss_weight=1.0,
)


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()


class Tower(nn.Module):
    """Two maps, one of which an activation overwrites."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)

    def forward(self, image):
        first = self.relu(self.conv(image))
        return first, self.pool(first)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Tower()
        self.unused = nn.Linear(1, 1)

    def extract_feat(self, image):
        return self.backbone(image)

    def forward(self, image, data_samples=None, mode='tensor'):
        raise TypeError('a head that wants proposals')


def read(model, *layers):
    reader = FeatureReader(model, 'student', layers, 32)
    image = torch.randn(2, 3, 16, 16)
    with reader.tap(model) as taps:
        maps = model.extract_feat(image)
    return reader, reader.read(taps), maps


def test_outputs_by_number_and_all_of_them():
    model = Net()
    reader, features, maps = read(model, 'backbone[1]', 'backbone[*]')
    assert reader.shapes == [
        (1, 4, 16, 16),
        (1, 4, 32, 32),
        (1, 4, 16, 16),
    ]
    for found, wanted in zip(features, (maps[1], maps[0], maps[1])):
        assert torch.equal(found, wanted)


def test_a_map_is_noted_before_an_activation_overwrites_it():
    model = Net()
    _, (before, after), _ = read(model, 'backbone.conv', 'backbone.relu')
    assert before.min() < 0
    assert torch.equal(after, before.relu())


def test_what_goes_into_a_layer():
    model = Net()
    layers = 'before backbone.relu', 'before backbone.pool', 'backbone.conv'
    reader, (before, pooled, conv), maps = read(model, *layers)
    assert torch.equal(before, conv) and before.min() < 0
    assert torch.equal(pooled, maps[0])
    assert reader.shapes[1] == (1, 4, 32, 32)
    assert reader.paths == {'backbone.relu', 'backbone.pool', 'backbone.conv'}


def test_what_goes_in_at_each_call():
    model = Net()
    relu = model.backbone.relu
    model.backbone.pool = nn.Sequential(nn.BatchNorm2d(4), relu)
    _, (first, second), maps = read(model.eval(), 'before backbone.relu[*]')
    assert first.min() < 0
    assert torch.equal(first.relu(), maps[0])
    assert torch.equal(second.relu(), maps[1])


def test_the_probe_changes_nothing():
    model = Net().train()
    model.backbone.bn = nn.BatchNorm2d(4)
    state = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    FeatureReader(model, 'student', ['backbone[0]'], 32)
    assert torch.equal(torch.rand(3), expected)
    assert all(part.training for part in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])
    assert not model.backbone._forward_hooks


@pytest.mark.parametrize(
    ('layer', 'message'),
    [
        ('backbone.cnov', r"no layer 'backbone.cnov': did you mean 'backbone"),
        ('backbone', r"'backbone' has 2 outputs: say which, backbone\[0\]"),
        ('backbone[2]', r'has 2 outputs, counted from 0; got backbone\[2\]'),
        ('unused', r"'unused' is not run"),
        ('back bone', r'must be the path of a module'),
        ('before backbone.rule', r"no layer 'backbone.rule': did you mean"),
        ('before unused', r"'before unused' is not run"),
    ],
)
def test_layers_that_cannot_be_read(layer, message):
    with pytest.raises(ValueError, match=message):
        FeatureReader(Net(), 'student', [layer], 32)


def test_no_hook_stays_where_a_layer_is_missing():
    reader = FeatureReader(
        Net(), 'student', ['backbone.conv', 'backbone.pool'], 32
    )
    other = Net()
    del other.backbone.pool
    with pytest.raises(ValueError, match='no layer'), reader.tap(other):
        pass
    assert not other.backbone.conv._forward_hooks


class Headed(Net):
    """Its head takes maps of more than 16 rows."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, image, data_samples=None, mode='tensor'):
        first, _ = self.extract_feat(image)
        if len(first[0, 0]) <= 16:
            raise RuntimeError('too few rows')
        return self.head(first)


def test_what_the_head_says_of_an_image_is_told():
    message = "'head' is not run .* 16 pixels: too few rows. Set feature_size"
    with pytest.raises(ValueError, match=message):
        FeatureReader(Headed(), 'student', ['head'], 16)


def test_a_size_that_a_head_refuses_is_not_the_last():
    student, teacher = Headed(), Headed()
    found = at_first_size(
        lambda size: [
            FeatureReader(model, 'student', ['head'], size)
            for model in (student, teacher)
        ],
        [16, 24, 32],
    )
    assert [reader.size for reader in found] == [24, 24]


class Rearranged(Net):
    """As YOLOX: pixels of 2 x 2 blocks become channels first."""

    def __init__(self):
        super().__init__()
        self.backbone.conv = nn.Conv2d(12, 4, 1)

    def extract_feat(self, image):
        return self.backbone(nn.functional.pixel_unshuffle(image, 2))


@pytest.mark.parametrize(
    ('channels', 'mean'), [(3, [127.5]), (1, None), (1, [127.5]), (4, None)]
)
def test_images_have_the_channels_of_the_first_convolution(channels, mean):
    model = Net()
    model.backbone.conv = nn.Conv2d(channels, 4, 3, padding=1)
    model.data_preprocessor = nn.Module()
    model.data_preprocessor.mean = mean and torch.tensor(mean)
    reader = FeatureReader(model, 'student', ['before backbone.conv'], 32)
    assert reader.shapes == [(1, channels, 32, 32)]


def test_images_of_a_convolution_that_is_not_the_first_step():
    reader = FeatureReader(Rearranged(), 'student', ['backbone[1]'], 32)
    assert reader.shapes == [(1, 4, 8, 8)]


def test_connectors_take_no_numbers_from_a_gpu():
    with mock.patch('torch.cuda.manual_seed_all') as seeded:
        seam(Net(), Net())
    seeded.assert_not_called()


def test_a_model_that_takes_one_size_only():
    class Fixed(Net):
        def extract_feat(self, image):
            if image.shape[-1] != 48:
                raise ValueError('48 pixels only')
            return super().extract_feat(image)

    with pytest.raises(ValueError, match='Set feature_size to the side'):
        FeatureReader(Fixed(), 'teacher', ['backbone[0]'], 32)
    assert FeatureReader(Fixed(), 'teacher', ['backbone[0]'], 48).shapes


def build(losses, **changes):
    torch.manual_seed(0)
    return MODELS.build(distilled(losses, **changes))


def test_unlike_numbers_of_layers_are_refused():
    loss = dict(FITNET, teacher_layers='backbone[0]')
    with pytest.raises(ValueError, match=r'got 2 of the student .* and 1 of'):
        build(loss)


def test_layers_of_the_models_are_joined():
    wide = classifier(base_channels=16)
    wide['head']['in_channels'] = 128
    config = distilled([RKKD, FITNET])
    config['teacher']['config'] = wide
    model = MODELS.build(config)
    first, last = model.distiller[1].connectors
    assert first[0].weight.shape[:2] == (32, 16)
    assert last[0].weight.shape[:2] == (128, 64)


def step(model):
    data = model.data_preprocessor(batch(), True)
    return model.train()(**data, mode='loss')


class OneSize(Net):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def extract_feat(self, image):
        if image.shape[-1] != self.size:
            raise ValueError(f'{self.size} pixels only')
        return super().extract_feat(image)


def seam(student, teacher, *sizes):
    shapes = []

    class Loss(FitNetLoss):
        def connect(self, student_shapes, teacher_shapes):
            shapes.extend([student_shapes, teacher_shapes])

    FeatureSeam(student, teacher, [Loss('backbone[1]')], *sizes)
    return shapes


@pytest.mark.parametrize('fixed', ['student', 'teacher'])
def test_both_models_see_one_size_of_image(fixed):
    models = dict(student=Net(), teacher=Net())
    models[fixed] = OneSize(224)
    assert seam(**models) == [[(1, 4, 112, 112)]] * 2


def test_models_without_a_size_in_common():
    with pytest.raises(ValueError, match=r'student.*224.* teacher.*32 pixels'):
        seam(OneSize(224), OneSize(32))


@pytest.mark.parametrize('size', [0, 32.0, True])
def test_feature_size_is_a_number_of_pixels(size):
    with pytest.raises(ValueError, match='feature_size must be a number of'):
        build(FITNET, feature_size=size)


def test_a_teacher_whose_input_is_resized():
    shapes = seam(OneSize(224), OneSize(32), 224, 32)
    assert shapes == [[(1, 4, 112, 112)], [(1, 4, 16, 16)]]
    with pytest.raises(ValueError, match='teacher_size=32, .* feature_size'):
        seam(OneSize(224), OneSize(32), None, 32)
    with pytest.raises(ValueError, match='teacher_size=16, .* feature_size'):
        build([FITNET], teacher_size=16)
    build([RKKD], teacher_size=16)


@pytest.mark.parametrize(
    'name,fewest', [('RKDLoss', 3), ('SPLoss', 2), ('FitNetLoss', 1)]
)
def test_too_few_images_to_compare_are_told_once(monkeypatch, name, fewest):
    messages = []
    monkeypatch.setattr(
        feature_seam, 'print_log', lambda text, **_: messages.append(text)
    )
    losses = [dict(type=f'mmrkkd.{name}', student_layers='backbone[0]')]
    model = build(losses).train()

    def compared(images):
        data = model.data_preprocessor(batch(0, images), True)
        terms = model(**data, mode='loss')
        key = f'loss_{name[:-4].lower()}'
        return sum(v for k, v in terms.items() if key in k)

    assert compared(fewest) > 0 and not messages
    if fewest > 1:
        # But for the rounding of a mean.
        assert compared(fewest - 1) < 1e-9
        assert compared(fewest - 1) < 1e-9
        (message,) = messages
        assert f'fewer than {fewest}; this batch has {fewest - 1}' in message
        assert f'batch_size >= {fewest}' in message


def test_features_are_those_of_the_one_forward():
    model = build([RKKD, FITNET])
    calls = []
    model.student.backbone.register_forward_hook(lambda *a: calls.append(1))
    terms = step(model)
    assert len(calls) == 1
    assert {'loss_task', 'loss_kd', 'loss_rank', 'loss_fitnet'} <= set(terms)
    terms['loss_fitnet'].backward()
    assert model.student.backbone.conv1.weight.grad.abs().sum() > 0
    assert model.student.head.fc.weight.grad is None
    assert all(p.grad is None for p in model.teacher.model.parameters())
    connectors = list(model.distiller.parameters())
    assert connectors
    assert all(p.grad is not None for p in connectors)


def test_logit_terms_are_what_they_are_without_features():
    plain, terms = step(build(RKKD)), step(build([RKKD, FITNET]))
    for name, value in plain.items():
        assert torch.equal(
            torch.as_tensor(value), torch.as_tensor(terms[name])
        )


def test_students_start_from_the_same_weights():
    states = []
    for losses in (RKKD, [RKKD, FITNET]):
        model = build(losses)
        model.init_weights()
        states.append(model.state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_pull_at_the_features_is_logged():
    terms = step(build([RKKD, FITNET], gradient_interval=1))
    share, norm = terms['kd/grad_share_fitnet'], terms['kd/grad_norm_fitnet']
    assert 0 < share < 1 and norm > 0
    # The task's pull there has a name of its own.
    task = terms['kd/grad_norm_task_at_fitnet']
    assert task > 0 and task != terms['kd/grad_norm_task']
    torch.testing.assert_close(share, norm / (norm + task))


def test_what_the_terms_of_a_loss_are_called_together():
    for names, name in [
        (['loss_sp'], 'sp'),
        (['loss_fcfd', 'loss_fcfd_kl', 'kd/paths'], 'fcfd'),
        (['loss_fgd_foreground', 'loss_fgd_background'], 'fgd'),
        (['loss_one', 'loss_other'], 'one+other'),
    ]:
        assert common_name(names) == name


def test_the_pull_at_a_frozen_layer_is_left_out():
    model = build([RKKD, FITNET], gradient_interval=1)
    for name, parameter in model.student.backbone.named_parameters():
        parameter.requires_grad = name.startswith(('layer3', 'layer4'))
    terms = step(model)
    assert 0 < terms['kd/grad_share_fitnet'] < 1


def test_nothing_pulls_at_frozen_layers():
    term = nn.Parameter(torch.ones(())).square()
    found = term_gradients(dict(loss=term), [torch.ones(2)])
    assert found == dict(loss=0.0)


def test_several_views_are_averaged():
    from small_classifiers import batch

    model = build([FITNET])
    data = batch()
    one = model.data_preprocessor(data, True)
    terms = model.eval()(**one, mode='loss')
    data['inputs'] = [data['inputs'], data['inputs']]
    two = model.eval()(**model.data_preprocessor(data, True), mode='loss')
    torch.testing.assert_close(two['loss_fitnet'], terms['loss_fitnet'])


def run(work_dir, steps, **changes):
    runner = make_runner(
        distilled([RKKD, FITNET]),
        work_dir,
        steps,
        custom_hooks=[dict(type='mmrkkd.RunStateHook')],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        **changes,
    )
    runner.train()
    return runner


def test_connectors_survive_a_resume_bit_for_bit(tmp_path):
    whole = run(tmp_path / 'whole', 4)
    first = run(tmp_path / 'parts', 2)
    path = f'{first.work_dir}/iter_2.pth'
    saved = torch.load(path, weights_only=False)
    # A plain student, and the connectors beside it.
    assert set(saved['state_dict']) == set(first.model.student.state_dict())
    assert set(saved['distiller']) == set(first.model.distiller.state_dict())
    second = run(tmp_path / 'parts', 4, resume=True, load_from=path)
    assert second.recorder.steps == whole.recorder.steps[2:]
    for kind in ('student', 'distiller'):
        a, b = (getattr(r.model, kind) for r in (whole, second))
        for key, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[key]), key


@pytest.mark.parametrize('kind', ['FitNetLoss', 'NORMLoss'])
def test_a_plain_students_weights_are_whole(tmp_path, kind):
    """What the losses learn stands beside them, and is not missing."""
    options = dict(FITNET if kind == 'FitNetLoss' else dict(type=kind))
    path = tmp_path / 'student.pth'
    whole = build([RKKD, options]).state_dict()
    torch.save(dict(state_dict=whole, meta={}), path)
    model = build([RKKD, options])
    before = copy.deepcopy(model.learned_state())
    load_checkpoint(model, str(path), map_location='cpu', strict=True)
    model.load_state_dict(whole)
    for key, value in model.learned_state().items():
        if key in before and 'student' not in key:
            assert torch.equal(value, before[key]), key
    del whole['head.fc.weight']
    with pytest.raises(RuntimeError, match='head.fc.weight') as found:
        model.load_state_dict(whole)
    assert 'distiller' not in str(found.value)


def test_connectors_of_other_losses_are_refused(tmp_path):
    first = run(tmp_path / 'run', 2)
    path = f'{first.work_dir}/iter_2.pth'
    saved = torch.load(path, weights_only=False)
    saved['distiller'] = {
        key.replace('connectors.0', 'connectors.9'): value
        for key, value in saved['distiller'].items()
    }
    torch.save(saved, path)
    with pytest.raises(ValueError, match='written with other losses'):
        run(tmp_path / 'run', 3, resume=True, load_from=path)


def test_a_checkpoint_without_connectors_says_so(monkeypatch):
    told = []
    monkeypatch.setattr(
        'mmrkkd.distillers.student_state.print_log',
        lambda text, **options: told.append(text),
    )
    model = build([RKKD, FITNET])
    before = model.learned_state()
    model.load_learned_state({})
    (text,) = told
    assert "custom_hooks=[dict(type='mmrkkd.RunStateHook')]" in text
    after = model.learned_state()
    assert all(torch.equal(before[key], after[key]) for key in before)
    build(RKKD).load_learned_state({})
    assert len(told) == 1
