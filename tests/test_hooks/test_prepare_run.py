"""One call makes a runner out of any config, and leaves no trace."""

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, detector_config, free_port, load_tool
from mmengine.config import Config
from mmengine.dist import is_distributed
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import CheckpointLoader, Runner
from torch.distributed import destroy_process_group
from torch.utils.data import SequentialSampler
from toy_runs import (
    classifier,
    distilled,
    make_images,
    run_config,
    save_teacher,
    write_config,
)

from mmrkkd.checkpoint import safe_reader
from mmrkkd.datasets import name_broken_images
from mmrkkd.engine import AutocastOptimWrapper, prepare_model, prepare_run
from mmrkkd.engine.run_settings import (
    use_amp,
    use_auto_scale_lr,
    use_robust_hooks,
)
from mmrkkd.evaluation import held_out_loader

SPELLINGS = [
    None,
    'OptimWrapper',
    'mmengine.OptimWrapper',
    'mmengine.optim.optimizer.optimizer_wrapper.OptimWrapper',
    OptimWrapper,
    'AmpOptimWrapper',
    AmpOptimWrapper,
]


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('images'))


@pytest.fixture
def config(images, tmp_path):
    config = run_config(images, classifier(), 1)
    config.work_dir, config.launcher = str(tmp_path / 'run'), 'none'
    config.experiment_name = config.visualizer.name = str(tmp_path)
    return config


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def as_one_process(monkeypatch):
    """What torchrun tells the only process it starts."""
    where = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    ranks = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1')
    for name, value in dict(**where, **ranks).items():
        monkeypatch.setenv(name, value)
    yield
    if is_distributed():
        destroy_process_group()


def reader():
    return CheckpointLoader._get_checkpoint_loader('x.pth').__name__


@pytest.mark.parametrize('kind', SPELLINGS)
def test_amp_takes_the_stock_wrapper_in_every_spelling(kind):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
    if kind is not None:
        wrapper['type'] = kind
    config = Config(dict(optim_wrapper=wrapper))
    use_amp(config)
    assert config.optim_wrapper == dict(
        type='AmpOptimWrapper',
        loss_scale='dynamic',
        **{'optimizer': dict(type='SGD', lr=0.1)},
    )


@pytest.mark.parametrize('kind', ['DOTOptimWrapper', 'DOTAmpOptimWrapper'])
def test_amp_keeps_dots_gradients_apart(kind):
    optimizer = dict(type='mmrkkd.DOT', lr=0.1)
    config = Config(
        dict(optim_wrapper=dict(type=f'mmrkkd.{kind}', optimizer=optimizer))
    )
    use_amp(config)
    assert config.optim_wrapper == dict(
        type='mmrkkd.DOTAmpOptimWrapper',
        loss_scale='dynamic',
        optimizer=optimizer,
    )


@pytest.mark.parametrize(
    'kind', ['mmrkkd.AutocastOptimWrapper', AutocastOptimWrapper]
)
def test_amp_does_not_replace_another_wrapper(kind):
    config = Config(dict(optim_wrapper=dict(type=kind)))
    with pytest.raises(ValueError, match="has 'AutocastOptimWrapper'; choose"):
        use_amp(config)


@pytest.mark.skipif(torch.cuda.is_available(), reason='MMEngine has AMP here')
@pytest.mark.parametrize('amp', [True, False], ids=['option', 'config'])
@pytest.mark.parametrize('kind', ['OptimWrapper', 'mmrkkd.DOTOptimWrapper'])
def test_amp_without_a_gpu_is_refused_before_anything_is_made(
    kind, amp, tmp_path
):
    folder = tmp_path / 'run'
    config = Config(dict(work_dir=str(folder), optim_wrapper=dict(type=kind)))
    if not amp:
        use_amp(config)
    message = 'mixed precision .* is for a GPU in MMEngine.*leave --amp out'
    with (
        pytest.raises(ValueError, match=message),
        prepare_run(config, amp=amp),
    ):
        pass
    assert not folder.exists()
    # It can be tested there.
    with (
        pytest.raises((KeyError, AttributeError, ValueError)) as error,
        prepare_run(config, 'test'),
    ):
        pass
    assert 'mixed precision' not in str(error.value)


@pytest.mark.parametrize('settings', [dict(), dict(optim_wrapper=None)])
def test_amp_without_a_training_is_named(settings):
    with pytest.raises(ValueError, match='optim_wrapper of the config is Non'):
        use_amp(Config(settings))


def test_amp_does_not_stand_on_top_of_wrappers_of_parts():
    part = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    # A constructor may make the optimizer of a part itself.
    wrapper = dict(
        constructor='Parts', backbone=part, head=dict(type=OptimWrapper)
    )
    config = Config(dict(optim_wrapper=wrapper))
    with pytest.raises(
        ValueError, match=r'in optim_wrapper.backbone and optim_wrapper.head'
    ):
        use_amp(config)
    assert config.optim_wrapper == wrapper


@pytest.mark.parametrize('scaling', [dict(), dict(auto_scale_lr=None)])
def test_a_learning_rate_without_its_batch_size_is_not_scaled(scaling):
    with pytest.raises(ValueError, match='needs auto_scale_lr.base_batch'):
        use_auto_scale_lr(Config(scaling))


def test_the_reader_of_checkpoints_is_put_back(config):
    before = reader()
    assert before != 'load_from_safe'
    with prepare_run(config) as runner:
        assert reader() == 'load_from_safe'
        assert {type(hook).__name__ for hook in runner.hooks} >= {
            'AtomicCheckpointHook',
            'RunStateHook',
            'NonFiniteHook',
        }
        pipeline = config.train_dataloader.dataset.pipeline
        assert pipeline[0].type == 'mmrkkd.LoadIntactImage'
    assert reader() == before
    with pytest.raises(KeyError, match='what a run met'), safe_reader():
        raise KeyError('what a run met')
    assert reader() == before


def test_a_test_is_no_resumed_training(config, tmp_path):
    # What a resumed run has left in its work directory.
    config.resume = True
    with prepare_run(config, 'test', checkpoint='x.pth') as runner:
        assert not runner._resume
        assert runner._load_from == 'x.pth'
        names = {type(hook).__name__ for hook in runner.hooks}
        assert 'NonFiniteHook' not in names


def test_a_model_without_a_runner_reads_no_code(config, tmp_path):
    evil = tmp_path / 'evil.pth'
    torch.save(dict(state_dict={}, x=Payload(tmp_path / 'was_run')), evil)
    config.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(evil)
    )
    with (
        pytest.raises(ValueError, match='holds more than weights'),
        prepare_model(config, 'train_dataloader') as model,
    ):
        model.init_weights()
    assert not (tmp_path / 'was_run').exists()


def test_the_test_tool_finds_the_distillers_preprocessor(
    images, tmp_path, monkeypatch
):
    """It stands neither in the student nor beside the model."""
    checkpoint = save_teacher(tmp_path / 'teacher.pth')
    model = distilled(checkpoint)
    model['data_preprocessor'] = model['student'].pop('data_preprocessor')
    config = run_config(images, model, 1)
    path = write_config(tmp_path / 'configs', config)
    seen = []
    monkeypatch.setattr(
        Runner, 'test', lambda runner: seen.append(runner.model)
    )
    command = ['test.py', str(path), str(checkpoint)]
    monkeypatch.setattr(sys, 'argv', [*command, '--work-dir', str(tmp_path)])
    load_tool('test').main()
    (model,) = seen
    assert type(model).__name__ == 'ImageClassifier'
    assert (model.data_preprocessor.mean == 128).all()


NEW_STYLE = """
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.optim import OptimWrapper
from mmrkkd.engine.hooks import NonFiniteHook

default_scope = None
model = dict(type='X')
optim_wrapper = dict(type=OptimWrapper)
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=3))
custom_hooks = [dict(type=NonFiniteHook, action='skip')]
test_dataloader = dict(
    dataset=dict(
        type=CocoDataset,
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=LoadAnnotations),
            dict(type=PackDetInputs),
        ],
    )
)
"""


def test_classes_as_types_of_a_new_style_config(tmp_path, monkeypatch):
    path = tmp_path / 'new_style.py'
    path.write_text(NEW_STYLE)
    config = Config.fromfile(path)
    assert config.default_hooks.checkpoint.type is CheckpointHook
    use_amp(config)
    use_robust_hooks(config)
    name_broken_images(config)
    assert config.optim_wrapper.type == 'AmpOptimWrapper'
    assert config.default_hooks.checkpoint == dict(
        type='mmrkkd.AtomicCheckpointHook', interval=3
    )
    assert [hook['type'] for hook in config.custom_hooks[1:]] == [
        'mmrkkd.RunStateHook'
    ]
    monkeypatch.setattr(Runner, 'build_dataloader', lambda loader: loader)
    monkeypatch.setattr(
        DATASETS, 'build', lambda dataset: SimpleNamespace(**dataset)
    )
    loader = held_out_loader(config)
    # MMEngine's would wait for other processes.
    assert isinstance(loader.sampler, SequentialSampler)
    pipeline = loader.dataset.pipeline
    assert pipeline[0] == dict(type='mmrkkd.LoadIntactImage')
    assert pipeline[1] == dict(type='mmdet.LoadAnnotations', with_bbox=True)
    assert len(pipeline) == 3
    assert load_tool('test').is_detection(config)


def test_a_detectors_usual_recipe_of_tta_can_be_built():
    from mmdet.registry import MODELS, TRANSFORMS

    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(type='PackDetInputs'),
    ]
    config = Config(
        dict(
            default_scope='mmdet',
            model=detector_config(),
            test_dataloader=dict(
                dataset=dict(type='CocoDataset', pipeline=pipeline)
            ),
        )
    )
    load_tool('test').use_tta(config)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
        views = TRANSFORMS.build(
            config.test_dataloader.dataset.pipeline[-1]
        ).subroutines
    assert type(model).__name__ == 'DetTTAModel'
    assert type(model.module).__name__ == 'FasterRCNN'
    assert [view.transforms[0].prob for view in views] == [1.0, 0.0]


PAD = dict(type='Pad', pad_to_square=True, pad_val=dict(img=(114.0,) * 3))


@pytest.mark.parametrize('pads', [[], [PAD], [dict(PAD, type='mmdet.Pad')]])
def test_both_views_of_tta_see_a_padded_box_in_one_place(tmp_path, pads):
    from mmdet.registry import TRANSFORMS
    from mmdet.structures.bbox import bbox_flip

    # A bright box at x from 10 to 30 and y from 20 to 60, of 60 x 120.
    image = np.zeros((120, 60, 3), np.uint8)
    image[20:60, 10:30] = 255
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(240, 240), keep_ratio=True),
        *pads,
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs'),
    ]
    dataset = dict(type='CocoDataset', pipeline=pipeline)
    config = Config(
        dict(
            default_scope='mmdet',
            model=detector_config(),
            test_dataloader=dict(dataset=dataset),
        )
    )
    load_tool('test').use_tta(config)
    item = dict(
        img_path=str(tmp_path / 'image.png'),
        img_id=0,
        instances=[dict(bbox=[10, 20, 30, 60], bbox_label=0, ignore_flag=0)],
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        for transform in config.test_dataloader.dataset.pipeline:
            item = TRANSFORMS.build(transform)(item)
    flips, found, annotated = [], [], []
    for view, sample in zip(item['inputs'], item['data_samples'], strict=True):
        y, x = (view[0] > 127).nonzero().T
        box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        # What a detector predicts is scaled back, and then mirrored.
        box = box[None] / torch.tensor(sample.scale_factor).repeat(2)
        if sample.flip:
            box = bbox_flip(box, sample.ori_shape, sample.flip_direction)
        flips.append(sample.flip)
        found += box.tolist()
        annotated.append(sample.gt_instances.bboxes.tensor.tolist())
    assert flips == [True, False]
    assert found == [[10, 20, 30, 60]] * 2
    # The annotations of the image itself, to be scored by.
    assert annotated == [[[10, 20, 30, 60]]] * 2


def test_settings_beside_the_model_stop_a_run(config):
    config.model = dict(type='mmrkkd.KDClassifier', student=config.model)
    config.losses = dict(type='mmrkkd.DKDLoss')
    message = 'losses at the top of the config does nothing'
    with pytest.raises(ValueError, match=message), prepare_run(config):
        pass
    with (
        pytest.raises(ValueError, match=message),
        prepare_model(config, 'train_dataloader'),
    ):
        pass


def test_resume_of_what_has_not_begun_starts_from_the_given_weights(
    config, tmp_path
):
    config.load_from = str(tmp_path / 'given.pth')
    with prepare_run(config, resume='auto') as runner:
        assert not runner._resume
        assert runner._load_from == str(tmp_path / 'given.pth')


@pytest.mark.parametrize('task', ['train', 'test'])
def test_the_file_that_was_read_is_not_written_over(config, tmp_path, task):
    folder = tmp_path / 'run'
    folder.mkdir()
    path = folder / 'my.py'
    config.dump(path)
    before = path.read_bytes()
    read = Config.fromfile(path)
    read.experiment_name = read.visualizer.name = f'{tmp_path}{task}'
    with prepare_run(read, task) as runner:
        pass
    assert path.read_bytes() == before
    dumped = 'test_my.py' if task == 'test' else 'run_my.py'
    assert (folder / dumped).is_file()
    assert Path(runner.cfg.filename).name == dumped


def test_a_test_does_not_write_over_the_trainings_config(config, tmp_path):
    path = tmp_path / 'my.py'
    config.dump(path)
    for task in ('train', 'test'):
        read = Config.fromfile(path)
        read.experiment_name = read.visualizer.name = f'{tmp_path}{task}'
        with prepare_run(read, task):
            pass
    assert 'NonFiniteHook' in (tmp_path / 'run' / 'my.py').read_text()
    assert (tmp_path / 'run' / 'test_my.py').is_file()


def test_validations_of_iterations_are_logged_at_them(config):
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4)
    with prepare_run(config) as runner:
        (logger,) = (h for h in runner.hooks if isinstance(h, LoggerHook))
        assert not logger.log_metric_by_epoch


def test_a_joined_process_waits_for_gloo_before_it_ends(
    config, as_one_process, monkeypatch
):
    """Or else gloo aborts some of those that have succeeded."""
    registered = []
    monkeypatch.setattr(
        atexit, 'register', lambda *call: registered.append(call)
    )
    config.launcher = 'pytorch'
    with prepare_run(config) as runner:
        assert is_distributed()
        runner.train()
    assert runner.iter == 12 and is_distributed()
    assert (time.sleep, 0.5) in registered


@pytest.mark.parametrize('launcher', ['none', None])
def test_processes_that_would_each_train_alone_are_refused(
    launcher, config, as_one_process, monkeypatch
):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    monkeypatch.setenv('WORLD_SIZE', '4')
    config.launcher = launcher
    with (
        pytest.raises(ValueError, match="'pytorch' in the 4 processes that"),
        prepare_run(config),
    ):
        pass
    assert not Path(config.work_dir).exists()


TRAINS = """
import os, sys, time
from multiprocessing import get_context
from mmrkkd.checkpoint.locks import hold_folder, let_go

folder, nested = sys.argv[1:]
hold_folder(folder)
if nested == 'nested':
    hold_folder(folder)
    let_go(folder)
worker = get_context('fork').Process(target=time.sleep, args=(60,))
worker.start()
print(worker.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize('nested', ['once', 'nested'])
def test_a_folder_in_which_another_process_trains_is_refused(
    config, tmp_path, nested
):
    folder = tmp_path / 'run'
    other = subprocess.Popen(
        [sys.executable, '-c', TRAINS, str(folder), nested],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    worker = int(other.stdout.readline())
    try:
        with (
            pytest.raises(FileExistsError, match='trained in by another'),
            prepare_run(config),
        ):
            pass
        # Nothing was written but what says so.
        assert [path.name for path in folder.iterdir()] == ['.lock']
        # Its workers outlive one that is killed, and keep nobody out.
        other.kill()
        other.wait()
        with prepare_run(config) as runner:
            assert runner.work_dir == str(folder)
    finally:
        other.kill()
        os.kill(worker, signal.SIGKILL)
        other.stdout.close()
