"""The classification configs say what their names promise, and build."""

import copy
import functools
import re
import socket
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope, init_default_scope
from torch import nn

from mmrkkd.distillers import KDClassifier
from mmrkkd.engine import DOTOptimWrapper
from mmrkkd.losses import build_loss
from mmrkkd.losses.feature import FeatureLoss
from mmrkkd.registry import MODELS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / 'configs' / 'classification'
PATHS = sorted(
    path
    for path in FOLDER.rglob('*.py')
    if '_base_' not in path.parts and 'image_folder' not in path.parts
)
CELLS = [path for path in PATHS if path.parent.parent != FOLDER]
PAIRS = sorted({path.parent for path in CELLS if path.parent.name != 'takd'})
KEYS = {
    'kd': {'loss_kd'},
    'takd': {'loss_kd'},
    'rkkd': {'loss_kd', 'loss_rank'},
    'ctkd': {'loss_ctkd'},
    'ctkd-rk': {'loss_ctkd', 'loss_rank'},
    'dkd': {'loss_dkd_target', 'loss_dkd_non_target'},
    'dkd-rk': {'loss_dkd_target', 'loss_dkd_non_target', 'loss_rank'},
    'mlkd': {'loss_mlkd_instance', 'loss_mlkd_batch', 'loss_mlkd_class'},
    'mlkd-rk': {
        'loss_mlkd_instance',
        'loss_mlkd_batch',
        'loss_mlkd_class',
        'loss_rank',
    },
    'lskd': {'loss_kd'},
    'dist': {'loss_dist_inter', 'loss_dist_intra'},
    'lra': {'loss_lra'},
    'nkd': {'loss_nkd_target', 'loss_nkd_non_target'},
    'ttm': {'loss_ttm'},
    'wttm': {'loss_wttm'},
    'crld': {'loss_crld_within', 'loss_crld_cross'},
    'dot': {'loss_kd'},
}
MAIN = set(KEYS) - {'takd', 'nkd', 'ttm', 'wttm', 'crld', 'dot'}
# Of features: what they log is asked for in test_feature_configs.py.
FEATURES = {
    'fitnet': 'FitNetLoss',
    'at': 'ATLoss',
    'vid': 'VIDLoss',
    'rkd': 'RKDLoss',
    'sp': 'SPLoss',
    'ickd': 'ICKDLoss',
    'crd': 'CRDLoss',
    'ofd': 'OFDLoss',
    'reviewkd': 'ReviewKDLoss',
    'catkd': 'CATKDLoss',
    'norm': 'NORMLoss',
    'fcfd': 'FCFDLoss',
}
TWO_VIEWS = {'mlkd', 'mlkd-rk', 'lra', 'crld'}
NAME = re.compile(r'(.+)_(\d+)xb(\d+)-(\d+)e_.+')


@functools.cache
def _read(path):
    return Config.fromfile(path)


def read(path):
    return copy.deepcopy(_read(path))


def cell(pair, method, folder='cifar100'):
    (path,) = (FOLDER / folder / pair).glob(f'{method}_*.py')
    return read(path)


def identify(path):
    return path.stem


@pytest.fixture(autouse=True)
def offline_mmpretrain(monkeypatch, undrawn_weights):
    """Names mean MMPretrain's, nothing is fetched, weights are not drawn."""

    def refuse(*args, **kwargs):
        raise AssertionError('a config reaches for the network')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()


def test_every_pair_of_the_tables_has_every_method():
    places = {
        'cifar100': (16, MAIN | set(FEATURES) - {'fcfd'}),
        'tiny_imagenet': (2, MAIN | {'at', 'crd', 'dot'}),
        'imagenet': (
            2,
            MAIN | {'at', 'crd', 'ofd', 'reviewkd', 'catkd', 'dot'},
        ),
        'cifar100_vit': (4, {'kd', 'rkkd', 'lskd'}),
    }
    for folder, (count, methods) in places.items():
        pairs = [pair for pair in PAIRS if pair.parent.name == folder]
        assert len(pairs) == count
        for pair in pairs:
            there = [path.stem.split('_')[0] for path in pair.glob('*.py')]
            assert len(there) == len(set(there))
            assert methods <= set(there) <= {*KEYS, *FEATURES}


def test_names_are_unique():
    names = [path.stem for path in PATHS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize('path', PATHS, ids=identify)
def test_config_is_what_its_name_says(path):
    config = read(path)
    check_batch_and_epochs(path, config)
    if path in CELLS:
        check_losses(path, config.model, config.train_dataloader)
        check_teacher(path, config.model.teacher)
    else:
        assert 'Pretrained' not in str(config.model), 'weights are downloaded'


def check_batch_and_epochs(path, config):
    what, gpus, batch, epochs = NAME.fullmatch(path.stem).groups()
    assert config.train_dataloader.batch_size == int(batch)
    assert config.train_cfg.max_epochs == int(epochs)
    assert config.auto_scale_lr.base_batch_size == int(gpus) * int(batch)
    if path.parent in PAIRS:
        teacher, student = path.parent.name.split('_')
        assert what.split('_')[1] == f'{teacher}-{student}'


def check_losses(path, model, loader):
    method = path.stem.split('_')[0]
    losses = model.losses
    *others, last = losses if isinstance(losses, list) else [losses]
    loss = build_loss(last)
    if isinstance(loss, FeatureLoss):
        assert type(loss).__name__ == FEATURES[method]
        # The rows of these two have KD too.
        assert [each.type for each in others] == ['mmrkkd.KDLoss'] * (
            method in {'norm', 'fcfd'}
        )
        assert model.task_weight == (0.1 if method == 'norm' else 1)
        return
    views = 2 if method in TWO_VIEWS else 1
    assert loss.views in {1, views}
    pipeline = loader.dataset.pipeline
    has_views = any('MultiView' in step.type for step in pipeline)
    assert has_views == (views == 2)
    generator = torch.Generator().manual_seed(0)
    shape = (2, 4, 10) if loss.views == 2 else (4, 10)
    student, teacher = torch.randn(2, *shape, generator=generator)
    labels = torch.zeros(shape[:-1], dtype=torch.int64)
    terms = loss(student, teacher, labels)
    assert {name for name in terms if 'loss' in name} == KEYS[method]


def check_teacher(path, teacher):
    """It is the pair's, and is found from any folder."""
    name = re.split(r'[_-]', path.stem.split('_', 1)[1])[0]
    if path.parent.name == 'takd' and 'resnet20' in path.stem:
        assert Path(teacher.config).stem in teacher.checkpoint
        name = 'takd'
    if teacher.config.startswith('mmpretrain::'):
        assert teacher.checkpoint.startswith('https://')
        assert name in teacher.checkpoint
        return
    config = Path(teacher.config)
    assert config.is_absolute() and config.is_file()
    assert config.stem.startswith(name)
    assert '://' not in teacher.checkpoint


def without_weights(config):
    """The model of a cell, its teacher without its checkpoint."""
    model = config.model
    del model.teacher['checkpoint']
    model.teacher.allow_random_weights = True
    return model


@pytest.mark.parametrize('pair', PAIRS, ids=lambda pair: pair.name)
def test_pair_builds_and_saves_the_plain_student(pair):
    if 'pit-tiny' in pair.name and find_spec('timm') is None:
        pytest.skip('PiT is a network of timm, which is not installed')
    (path,) = pair.glob('kd_*.py')
    config = read(path)
    model = without_weights(config)
    # As MMEngine's runner does.
    model.data_preprocessor = config.data_preprocessor
    distilled = MODELS.build(model)
    assert isinstance(distilled, KDClassifier)
    # All see the same images but the teacher of the transformers, which
    # was trained on images normalised otherwise.
    same = str(distilled.bridge) == 'same input for both'
    assert same == (pair.parent.name != 'cifar100_vit')
    student = pair.name.split('_')[1]
    (alone,) = pair.parent.glob(f'{student}_*.py')
    plain = MODELS.build(read(alone).model)
    shapes = {key: value.shape for key, value in plain.state_dict().items()}
    saved = {key: value.shape for key, value in distilled.state_dict().items()}
    assert saved == shapes


@pytest.mark.parametrize(
    'path',
    [path for path in CELLS if path.parent.name == 'takd'],
    ids=identify,
)
def test_takd_chain_builds(path):
    assert isinstance(MODELS.build(without_weights(read(path))), KDClassifier)


def test_takd_assistant_is_the_student_of_the_first_link():
    second = cell('takd', 'takd_resnet110-resnet56-resnet20')
    first = Config.fromfile(second.model.teacher.config)
    assert first.model.student.backbone.depth == 56
    assert first.model.teacher.config.endswith(
        'resnet110_1xb64-240e_cifar100.py'
    )


def test_published_rankings_have_no_floor():
    """min_std is ours, and the tables were made without it."""
    ranked = [
        path
        for path in (ROOT / 'configs' / 'classification').rglob('*.py')
        if 'RankKDLoss' in path.read_text()
    ]
    assert len(ranked) > 50
    for path in ranked:
        assert 'min_std=0,' in path.read_text(), path
    for name in ('rkkd', 'imagenet_rkkd', 'vit_rkkd'):
        path = ROOT / 'configs' / '_base_' / 'methods' / f'{name}.py'
        assert Config.fromfile(path).distillation.losses.min_std == 0


def test_weights_of_kd_and_rkkd():
    kd = cell('resnet32x4_resnet8x4', 'kd').model
    assert (kd.task_weight, kd.losses.loss_weight) == (0.1, 0.9)
    assert kd.losses.temperature == 4
    rkkd = cell('resnet32x4_resnet8x4', 'rkkd').model
    assert rkkd.task_weight == 0.1
    assert (rkkd.losses.kd_weight, rkkd.losses.rank_weight) == (0.9, 0.9)
    rkkd = cell('resnet50_mobilenetv1', 'rkkd', 'imagenet').model
    weights = rkkd.losses.kd_weight, rkkd.losses.rank_weight
    assert (rkkd.task_weight, *weights) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ('pair', 'beta'),
    [
        ('resnet56_resnet20', 2),
        ('resnet110_resnet32', 2),
        ('wrn40-2_wrn16-2', 6),
        ('vgg13_vgg8', 6),
        ('vgg13_mobilenetv2', 6),
        ('resnet32x4_resnet8x4', 8),
        ('resnet32x4_shufflenetv1', 8),
    ],
)
def test_dkd_has_the_weight_of_its_pair(pair, beta):
    plain, ranked = cell(pair, 'dkd').model, cell(pair, 'dkd-rk').model
    assert plain.losses.non_target_weight == beta
    assert plain.losses.loss_weight == dict(type='linear', end=20)
    assert plain.task_weight == ranked.task_weight == 1
    assert ranked.losses.kd == plain.losses
    assert ranked.losses.rank_weight == plain.losses.target_weight == 1


@pytest.mark.parametrize(
    ('pair', 'temperature', 'weight'),
    [
        ('resnet110_resnet20', 4, 12),
        ('vgg13_vgg8', 3, 9),
        ('resnet50_mobilenetv2', 3, 1),
        ('resnet32x4_resnet8x4', 2, 9),
    ],
)
def test_lskd_has_the_temperature_of_its_pair(pair, temperature, weight):
    kd = cell(pair, 'lskd').model.losses.kd
    assert (kd.temperature, kd.loss_weight) == (temperature, weight)


def test_lra_counts_each_view_with_the_published_weight():
    # The loss is a mean over both views, the task losses a sum of both.
    for folder, pair, weight in (
        ('cifar100', 'resnet32x4_resnet8x4', 5.0),
        ('tiny_imagenet', 'resnet18_mobilenetv2', 10.0),
    ):
        losses = cell(pair, 'lra', folder).model.losses
        loss = build_loss(losses)
        weak, strong = torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 0.0]])
        teacher = torch.zeros(1, 2)
        both = loss(torch.stack([weak, strong]), torch.zeros(2, 1, 2))
        alone = build_loss(dict(losses, loss_weight=weight))
        each = [alone(view, teacher)['loss_lra'] for view in (weak, strong)]
        torch.testing.assert_close(both['loss_lra'], each[0] + each[1])


@pytest.mark.parametrize(
    ('pair', 'method', 'rate'),
    [
        ('resnet32x4_resnet8x4', 'kd', 0.05),
        ('vgg13_mobilenetv2', 'dkd-rk', 0.01),
        ('resnet32x4_resnet8x4', 'mlkd', 0.025),
        ('resnet32x4_shufflenetv1', 'mlkd-rk', 0.01),
        ('wrn40-2_mobilenetv2', 'mlkd', 0.005),
        ('resnet32x4_shufflenetv1', 'lra', 0.025),
    ],
)
def test_learning_rate_of_the_protocol(pair, method, rate):
    config = cell(pair, method)
    assert config.optim_wrapper.optimizer.lr == rate
    assert config.param_scheduler.milestones == [150, 180, 210]


def test_transformers_learn_from_a_teacher_at_32_pixels():
    for path in CELLS:
        expected = 32 if path.parent.parent.name == 'cifar100_vit' else None
        assert read(path).model.get('teacher_size') == expected


@pytest.mark.parametrize(
    ('folder', 'pair', 'delta', 'rate', 'decay'),
    [
        ('cifar100', 'vgg13_vgg8', 0.075, 0.05, 5e-4),
        ('cifar100', 'resnet32x4_shufflenetv2', 0.075, 0.01, 5e-4),
        ('tiny_imagenet', 'resnet18_mobilenetv2', 0.075, 0.05, 5e-4),
        ('imagenet', 'resnet50_mobilenetv1', 0.09, 0.2, 1e-4),
    ],
)
def test_dot_is_kd_with_two_momenta(folder, pair, delta, rate, decay):
    config, plain = (cell(pair, name, folder) for name in ('dot', 'kd'))
    assert config.model == plain.model
    assert config.optim_wrapper == dict(
        type='mmrkkd.DOTOptimWrapper',
        optimizer=dict(
            type='mmrkkd.DOT',
            lr=rate,
            momentum=0.9,
            weight_decay=decay,
            delta=delta,
        ),
    )
    optimizer = build_optim_wrapper(nn.Linear(1, 1), config.optim_wrapper)
    assert isinstance(optimizer, DOTOptimWrapper)


def ablations():
    plan = yaml.safe_load((FOLDER / 'rkkd_ablations.yml').read_text())
    return plan['pairs'], plan['sweeps']


@pytest.mark.parametrize(
    'sweep', ablations()[1], ids=lambda sweep: sweep['title']
)
def test_options_of_an_ablation_change_the_loss(sweep):
    pairs, _ = ablations()
    assert set(sweep.get('published', {})) <= set(pairs)
    for numbers in sweep.get('published', {}).values():
        assert len(numbers) == len(sweep['values'])
    base = cell(pairs[0], 'rkkd')
    seen = set()
    for value in sweep['values']:
        options = sweep['options'].format(*value).split()
        changes = dict(option.split('=') for option in options)
        config = copy.deepcopy(base)
        config.merge_from_dict(
            {key: yaml.safe_load(text) for key, text in changes.items()}
        )
        assert set(config.model.losses) - set(base.model.losses) <= {
            'normalize',
            'channel_order',
            'channel_share',
        }
        seen.add(repr(build_loss(config.model.losses)))
    assert len(seen) == len(sweep['values'])
