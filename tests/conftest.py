"""Small models and batches that the tests share."""

import copy
import functools
import gc
import importlib.util
import os
import socket
from pathlib import Path

import mmengine
import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.config import utils as config_utils
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import CheckpointLoader, runner

CLASSES = ('cat', 'dog', 'bird')
ROOT = Path(__file__).parents[1]


def load_tool(name):
    """A script of tools/ as a module."""
    path = ROOT / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'tool_{name}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def free_port() -> int:
    """A port that processes of a test may meet at."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def script_environment(script, **variables: str) -> dict[str, str]:
    """The environment variables of a script's process.

    From torch 2.6 on, the scripts of the official packages cannot read what
    MMEngine 0.10.7 saves unless PyTorch is told to trust every file. Ours
    must do without.
    """
    is_stock = '.mim' in Path(script).parts
    if is_stock and mmengine.__version__ == '0.10.7':
        variables['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] = '1'
    return dict(os.environ, PYTHONPATH=str(ROOT), **variables)


def detector_config(
    base: str = 'faster-rcnn', num_classes: int = 3, **changes
) -> ConfigDict:
    """A small ResNet-18 detector, otherwise as MMDetection ships it.

    Args:
        base: 'faster-rcnn', 'mask-rcnn' or 'cascade-rcnn'.
        num_classes: Classes without background.
        changes: Merged into the config, e.g. data_preprocessor=dict(...).
    """
    text = f"_base_ = 'mmdet::_base_/models/{base}_r50_fpn.py'"
    config = Config.fromstring(text, '.py')
    heads = config.model.roi_head.bbox_head
    is_cascade = isinstance(heads, list)
    for head in heads if is_cascade else [heads]:
        head.update(
            in_channels=16, fc_out_channels=32, num_classes=num_classes
        )
    extractors = config.model.roi_head
    extractors.bbox_roi_extractor.update(out_channels=16)
    if 'mask_head' in extractors:
        extractors.mask_roi_extractor.update(out_channels=16)
        extractors.mask_head.update(
            in_channels=16, conv_out_channels=16, num_classes=num_classes
        )
    config.model.backbone.update(
        depth=18, base_channels=8, init_cfg=None, frozen_stages=-1
    )
    config.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    config.model.rpn_head.update(in_channels=16, feat_channels=16)
    train = config.model.train_cfg
    train.rpn_proposal.update(nms_pre=100, max_per_img=50)
    for stage in train.rcnn if is_cascade else [train.rcnn]:
        stage.sampler.num = 32
    config.model.test_cfg.rpn.update(nms_pre=100, max_per_img=50)
    _merge(config.model, changes)
    return config.model


def classifier_config(num_classes: int = 3, depth: int = 8, **changes) -> dict:
    """A small ResNet for images of 32 pixels, as MMPretrain builds it.

    Args:
        num_classes: Classes.
        depth: Of the ResNet: 8, 14, 20, ...
        changes: Further settings, e.g. data_preprocessor=dict(...).
    """
    return dict(
        type='ImageClassifier',
        backbone=dict(type='mmrkkd.CIFARResNet', depth=depth),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=num_classes,
            in_channels=64,
            loss=dict(type='CrossEntropyLoss'),
        ),
        **changes,
    )


def _merge(target: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def pytest_runtest_setup(item):
    """What is marked ``gpu`` is left to machines with one."""
    if item.get_closest_marker('gpu') and not torch.cuda.is_available():
        pytest.skip('needs a GPU: make gpu-check runs it where one is')


def pytest_collection_finish():
    """MMEngine collects garbage for each dataset: not among all modules."""
    gc.freeze()


@pytest.fixture(autouse=True, scope='session')
def runs_begin_at_once():
    """MMEngine does once what it would do for each run, or not at all."""
    with pytest.MonkeyPatch.context() as patch:
        # All of a package's metafiles are read for each base with '::'.
        patch.setattr(config_utils, 'load', functools.cache(config_utils.load))
        # Compilers and Git are asked for their versions.
        for name in ('collect_env', 'get_git_hash'):
            found = functools.cache(getattr(runner, name))
            patch.setattr(runner, name, found)
        # YAPF formats the config, for each checkpoint too.
        patch.setattr(
            Config,
            '_format_python_code',
            property(lambda config: False, lambda config, value: None),
            raising=False,
        )
        yield


@pytest.fixture(autouse=True)
def no_experiment_is_left_running():
    """What a run that failed told MMEngine reaches no other test."""
    yield
    MessageHub._instance_dict.clear()


@pytest.fixture
def mmdet_scope():
    """Names in configs mean MMDetection's, as inside its runner."""
    init_default_scope('mmdet')
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture
def process_as_before(monkeypatch):
    """What tools/train.py sets for its whole process is taken back."""
    monkeypatch.setattr(
        CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes)
    )
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    DefaultScope._instance_dict.clear()


@pytest.fixture
def undrawn_weights(monkeypatch):
    """Models whose numbers do not matter are built without drawing them."""
    # A module that is imported meanwhile would keep what is put in place.
    for package in ('mmdet', 'mmpretrain'):
        if importlib.util.find_spec(package):
            importlib.import_module(f'{package}.models')
    for name in vars(torch.nn.init):
        if name.endswith('_') and not name.startswith('_'):
            monkeypatch.setattr(
                torch.nn.init, name, lambda tensor, *args, **kwargs: tensor
            )


@pytest.fixture
def one_process(tmp_path, monkeypatch):
    """A process group of this process alone."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    dist.init_process_group(
        'gloo',
        init_method=f'file://{tmp_path}/rendezvous',
        rank=0,
        world_size=1,
    )
    yield
    dist.destroy_process_group()


@pytest.fixture
def batch():
    """Two images of unlike sizes with boxes and masks, unprocessed."""
    from mmdet.testing import demo_mm_inputs

    torch.manual_seed(0)
    data = demo_mm_inputs(
        2, [[3, 96, 128], [3, 128, 80]], num_classes=3, with_mask=True
    )

    def fresh():
        return copy.deepcopy(data)

    return fresh
