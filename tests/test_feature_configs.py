"""Configs of feature methods: made from a table, and their losses learn."""

import copy
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from conftest import load_tool
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope

from mmrkkd.losses.feature import norm
from mmrkkd.losses.feature.base import common_area

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / 'configs' / 'classification'
TABLE = yaml.safe_load((FOLDER / 'features.yml').read_text())
IMAGES = 40
# One of the pairs, of unlike networks and not large, stands for all.
QUICK = 'cifar100/wrn40-2_shufflenetv1'
PAIRS = sorted(
    f'{folder}/{path.stem}'
    for folder in TABLE['datasets']
    for path in (FOLDER / folder / '_base_').glob('*_*.py')
)


@pytest.fixture(scope='module')
def tool():
    return load_tool('feature_configs')


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()


def cell(pair, method):
    folder, _, name = pair.partition('/')
    (path,) = (FOLDER / folder / name).glob(f'{method}_*.py')
    return Config.fromfile(path)


def test_configs_are_those_of_the_table(tool):
    made = dict(tool.configs(TABLE))
    assert len(made) == 16 * 12 - 2 + 2 * 2 + 2 * 5
    for path, text in made.items():
        assert path.read_text(encoding='utf-8') == text, path


def test_a_stale_config_is_noticed_and_mended(tool, tmp_path, monkeypatch):
    """With another weight in the table, one config is not as it should be."""
    table = copy.deepcopy(TABLE)
    table['datasets']['cifar100']['settings']['catkd']['vgg13_vgg8'] = dict(
        loss_weight=7.0
    )
    (tmp_path / 'features.yml').write_text(
        yaml.safe_dump(table, sort_keys=False)
    )
    monkeypatch.setattr(tool, 'TABLE', tmp_path / 'features.yml')
    monkeypatch.setattr(sys, 'argv', ['feature_configs.py', '--check'])
    with pytest.raises(SystemExit, match='1 configs are stale.*catkd_vgg13'):
        tool.main()
    written = {}
    monkeypatch.setattr(
        Path,
        'write_text',
        lambda path, text, **_: written.update({path: text}),
    )
    monkeypatch.setattr(sys, 'argv', ['feature_configs.py'])
    tool.main()
    ((path, text),) = written.items()
    assert path.name.startswith('catkd_vgg13') and 'loss_weight=7.0' in text


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda table: table['datasets']['cifar100']['settings'].update(
                at={'vgg13_vgg9': {}}
            ),
            "cifar100: settings: at has 'vgg13_vgg9', which is none of .*"
            'vgg13_vgg8',
        ),
        (
            lambda table: table['datasets']['imagenet']['settings'].update(
                vid={}
            ),
            "imagenet: settings has 'vid', which is none of at, catkd",
        ),
        (
            lambda table: table.update(networks2={}),
            "the table has 'networks2', which is none of datasets, methods",
        ),
        (
            lambda table: table['methods']['at'].update(of_teacher='stages'),
            "methods: at has 'of_teacher', which is none of also, beside_kd",
        ),
        (
            lambda table: table['datasets']['cifar100'].update(setting={}),
            "cifar100 has 'setting', which is none of batch, data, feature",
        ),
        (
            lambda table: table['datasets']['cifar100']['rate'].update(
                resnet9=0.01
            ),
            "cifar100: rate has 'resnet9', which is none of mobilenetv1",
        ),
        (
            lambda table: table['datasets']['cifar100']['without'].update(
                fcfd=['resnet50_mobilnetv2']
            ),
            "cifar100: without: fcfd has 'resnet50_mobilnetv2', which",
        ),
        (
            lambda table: table['datasets']['imagenet']['batch']['ofd'].update(
                image=32
            ),
            "imagenet: batch: ofd has 'image', which is none of base, file",
        ),
        (
            lambda table: table['methods']['at'].update(teacher='some'),
            "at compares one of stages, before, got 'some'",
        ),
    ],
)
def test_what_the_table_cannot_mean_is_refused(tool, change, message):
    table = copy.deepcopy(TABLE)
    change(table)
    with pytest.raises(ValueError, match=message):
        list(tool.configs(table))


def side(pair):
    """Of small images that the networks of a pair take."""
    return 64 if 'imagenet' in pair else 32


def methods_of(pair):
    """Those of which the pair has a config."""
    folder, _, name = pair.partition('/')
    facts = TABLE['datasets'][folder]
    without = facts.get('without', {})
    return [
        method
        for method in facts['methods']
        if name not in without.get(method, ())
    ]


def built(pair, *methods):
    """The pair's distiller, with the losses of these feature methods.

    By default of all that it has.
    """
    configs = [cell(pair, method) for method in methods or methods_of(pair)]
    model = configs[0].model
    # KD, which stands beside two of them, has its own tests.
    model.losses = [
        loss
        for losses in (config.model.losses for config in configs)
        for loss in (losses if isinstance(losses, list) else [losses])
        if loss.type != 'mmrkkd.KDLoss'
    ]
    for loss in model.losses:
        if 'num_data' in loss:
            loss.num_data = IMAGES
    del model.teacher['checkpoint']
    model.teacher.allow_random_weights = True
    model.data_preprocessor = configs[0].data_preprocessor
    torch.manual_seed(0)
    return MODELS.build(model)


def batch(size, count=3):
    """Images of different classes, as ContrastiveDataset has them."""
    from mmpretrain.structures import DataSample

    samples = []
    for number in range(count):
        sample = DataSample().set_gt_label(number)
        sample.set_metainfo(dict(data_index=number, data_count=IMAGES))
        sample.set_field(torch.tensor([7, 9, 11]), 'negatives')
        samples.append(sample)
    return dict(
        inputs=torch.randint(256, (count, 3, size, size), dtype=torch.uint8),
        data_samples=samples,
    )


@pytest.mark.parametrize(
    'pair',
    [
        pair if pair == QUICK else pytest.param(pair, marks=pytest.mark.slow)
        for pair in PAIRS
    ],
)
def test_every_loss_of_a_pair_takes_a_step(pair):
    model = built(pair).train()
    data = model.data_preprocessor(batch(side(pair)), True)
    total, log = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    terms = {key: value for key, value in log.items() if 'loss' in key}
    assert all(value.isfinite() for value in terms.values()), terms
    # RKD has two.
    assert len(terms) >= 2 + len(model.distiller)
    for name, parameter in model.distiller.named_parameters():
        assert parameter.grad is not None, name
    for parameter in model.student.parameters():
        assert parameter.grad is not None
    assert all(p.grad is None for p in model.teacher.model.parameters())


def test_the_whole_of_both_maps_is_compared_at_the_size_of_the_images():
    """At 32 pixels MobileNetV2's last map is 2 x 2 and VGG13's 4 x 4."""
    model = built('cifar100/vgg13_mobilenetv2', 'norm').train()
    data = model.data_preprocessor(batch(32), True)
    with mock.patch.object(norm, 'common_area', wraps=common_area) as areas:
        model(**data, mode='loss')
    ((student, teacher), _) = areas.call_args
    assert student.shape[2:] == teacher.shape[2:] == (2, 2)


def test_pairs_of_small_images_are_probed_at_their_size(tool):
    sizes = dict(cifar100=32, tiny_imagenet=64)
    for path, text in tool.configs(TABLE):
        size = sizes.get(path.parts[-3])
        assert ('feature_size' in text) == (size is not None), path
        assert size is None or f'feature_size={size}' in text, path
    model = cell('tiny_imagenet/resnet18_mobilenetv2', 'crd').model
    assert model.feature_size == 64


@pytest.mark.parametrize(
    ('pair', 'images'),
    [
        ('cifar100/vgg13_vgg8', 50_000),
        ('tiny_imagenet/resnet18_mobilenetv2', 100_000),
        ('imagenet/resnet34_resnet18', 1_281_167),
    ],
)
def test_crd_numbers_the_images_of_its_data_set(pair, images):
    config = cell(pair, 'crd')
    assert config.model.losses.num_data == images
    wrapped = config.train_dataloader.dataset
    assert wrapped.type == 'mmrkkd.ContrastiveDataset'
    assert wrapped.dataset == cell(pair, 'at').train_dataloader.dataset


@pytest.mark.parametrize(
    ('pair', 'weight'),
    [
        ('resnet56_resnet20', 0.6),
        ('resnet110_resnet32', 1.0),
        ('resnet32x4_shufflenetv2', 8.0),
        ('resnet32x4_resnet8x4', 5.0),
    ],
)
def test_reviewkd_has_the_weight_of_its_pair(pair, weight):
    losses = cell(f'cifar100/{pair}', 'reviewkd').model.losses
    assert losses.loss_weight == dict(type='linear', stop=weight, end=20)


@pytest.mark.parametrize(
    ('pair', 'setting'),
    [
        ('cifar100/resnet32x4_resnet8x4', (15, 2, False)),
        ('cifar100/wrn40-2_wrn40-1', (1.5, 2, False)),
        ('cifar100/resnet32x4_shufflenetv1', (600, 4, True)),
        ('cifar100/resnet50_mobilenetv2', (40, 2, True)),
        ('imagenet/resnet34_resnet18', (0.5, 4, False)),
        ('imagenet/resnet50_mobilenetv1', (10, 2, True)),
    ],
)
def test_catkd_has_the_setting_of_its_pair(pair, setting):
    losses = cell(pair, 'catkd').model.losses
    found = losses.loss_weight, losses.resolution, losses.normalize
    assert found == setting


@pytest.mark.parametrize(
    ('pair', 'setting'),
    [
        ('vgg13_vgg8', (5, 1, 4)),
        ('resnet56_resnet20', (0.02, 1, 4)),
        ('wrn40-2_wrn16-2', (5, 0.2, 4)),
        ('vgg13_mobilenetv2', (5, 1, 8)),
        ('resnet32x4_shufflenetv2', (5, 1, 8)),
    ],
)
def test_fcfd_has_the_setting_of_its_pair(pair, setting):
    model = cell(f'cifar100/{pair}', 'fcfd').model
    kd, loss = model.losses
    weight, kl_weight, temperature = setting
    assert loss.loss_weight == dict(type='linear', stop=weight, end=20)
    assert loss.get('kl_weight', 1) == kl_weight
    assert kd.temperature == loss.temperature == temperature
    assert kd.loss_weight == model.task_weight == 1


@pytest.mark.parametrize(
    ('pair', 'method', 'rate', 'images'),
    [
        ('cifar100/resnet32x4_resnet8x4', 'at', 0.05, 64),
        ('cifar100/wrn40-2_shufflenetv1', 'fitnet', 0.01, 64),
        ('imagenet/resnet34_resnet18', 'at', 0.2, 128),
        ('imagenet/resnet34_resnet18', 'crd', 0.1, 64),
        ('imagenet/resnet50_mobilenetv1', 'reviewkd', 0.1, 64),
    ],
)
def test_rate_and_batch_are_the_published_ones(pair, method, rate, images):
    config = cell(pair, method)
    assert config.optim_wrapper.optimizer.lr == rate
    assert config.train_dataloader.batch_size == images
