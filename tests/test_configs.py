"""Every config can be read and its models built, without any network."""

import copy
from pathlib import Path

import pytest
import yaml
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.rglob('*.py')
    if '_base_' not in path.parts
    # These are MMPretrain's: test_classification_configs.py.
    and 'classification' not in path.relative_to(ROOT).parts
)
MAIN = 'rkkd_fasterrcnn_r50_mv2_coco.py'

pytestmark = pytest.mark.usefixtures('mmdet_scope')


def read(name):
    return Config.fromfile(ROOT / name)


def test_configs_are_found():
    assert MAIN in CONFIGS
    assert len(CONFIGS) >= 10


@pytest.mark.usefixtures('undrawn_weights')
@pytest.mark.parametrize('name', CONFIGS)
def test_model_builds(name):
    config = read(name)
    if 'model' not in config:
        assert 'train_dataloader' in config
        return
    model = copy.deepcopy(config.model)
    if 'teacher' in model:
        # The published weights are not here; everything else is checked.
        model.teacher.pop('checkpoint')
        model.teacher.allow_random_weights = True
    built = MODELS.build(model)
    if 'teacher' in model:
        plain = MODELS.build(copy.deepcopy(config.model.student))
        assert set(built.state_dict()) == set(plain.state_dict())


@pytest.mark.parametrize('name', CONFIGS)
def test_data_can_be_built(name):
    config = read(name)
    for part in ('train', 'val', 'test'):
        dataset = config[f'{part}_dataloader'].dataset
        assert DATASETS.get(dataset.type) is not None
        for step in dataset.pipeline:
            assert TRANSFORMS.build(dict(step)) is not None


def test_main_config_has_the_published_protocol():
    config = read(MAIN)
    assert config.model.type == 'mmrkkd.KDDetector'
    assert config.model.losses.type == 'mmrkkd.RankKDLoss'
    assert config.train_dataloader.batch_size == 8
    assert config.auto_scale_lr.base_batch_size == 8
    assert config.train_cfg.max_iters == 180_000
    assert config.optim_wrapper.optimizer.lr == 0.01
    assert config.param_scheduler[1].milestones == [120_000, 160_000]
    backbone = config.model.student.backbone
    assert backbone.type == 'MobileNetV2'
    assert tuple(backbone.out_indices) == (1, 2, 4, 6)
    assert backbone.norm_eval and not backbone.norm_cfg.requires_grad
    scales = config.train_dataloader.dataset.pipeline[2].scales
    assert [scale[1] for scale in scales] == list(range(640, 801, 32))
    assert config.model.teacher.checkpoint.endswith('e10bd31c.pth')
    assert 'faster-rcnn_r50_fpn_ms-3x_coco' in config.model.teacher.config


def test_student_of_the_main_config():
    model = MODELS.build(read(MAIN).model.student)
    channels = [conv.conv.in_channels for conv in model.neck.lateral_convs]
    assert channels == [24, 32, 96, 320]
    norms = [
        parameter
        for name, parameter in model.backbone.named_parameters()
        if '.bn' in name
    ]
    assert norms and not any(parameter.requires_grad for parameter in norms)


def test_model_index_lists_every_coco_config():
    root = ROOT.parent
    index = yaml.safe_load((root / 'model-index.yml').read_text())
    listed = {
        model['Config']
        for metafile in index['Import']
        for model in yaml.safe_load((root / metafile).read_text())['Models']
    }
    there = {
        str(path.relative_to(root))
        for folder in ('classification', 'detection')
        for path in (ROOT / folder).rglob('*.py')
        if '_base_' not in path.parts and not path.name.startswith('_')
    }
    assert listed == there
