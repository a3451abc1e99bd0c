"""The one command on a detector and drawn images, and out of a wheel."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import detector_config
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from PIL import Image
from small_runs import random_weights

from mmrkkd.checkpoint import safe_reader
from mmrkkd.commands.distill import distill
from mmrkkd.commands.program import main
from mmrkkd.commands.trial import described
from mmrkkd.commands.wrapping import wrap
from mmrkkd.datasets.demo_shapes import CLASSES, Recipe, make_demo_shapes
from mmrkkd.engine.hooks import DrawDetectionsHook

ROOT = Path(__file__).parents[2]
ARGUMENTS = ['student.py', '--teacher', 'student.py', 'teacher.pth']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Drawn images, a detector's config and a teacher's weights."""
    folder = tmp_path_factory.mktemp('shapes')
    make_demo_shapes(folder / 'data', Recipe(train=24, val=24), progress=False)
    config = Config.fromfile(ROOT / 'configs' / 'demo' / 'demo_shapes.py')
    config.model = detector_config(num_classes=len(CLASSES))
    # Of two steps no score is high: keep every box.
    config.model.test_cfg.rcnn.score_thr = 0.0
    for part in ('train', 'val', 'test'):
        loader = config[f'{part}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(folder / 'data')
    for name in ('val_evaluator', 'test_evaluator'):
        path = folder / 'data' / 'annotations' / 'val.json'
        config[name].ann_file = str(path)
    config.param_scheduler = None
    config.train_cfg.max_iters = 2
    config.default_hooks.checkpoint.interval = 2
    config.dump(folder / 'student.py')
    random_weights(config.model, folder / 'teacher.pth', 'mmdet', CLASSES)
    return folder


@pytest.fixture(autouse=True)
def at_home(folder, monkeypatch):
    """Commands are given in the folder of the files."""
    monkeypatch.chdir(folder)
    yield
    DefaultScope._instance_dict.clear()


def test_dry_run_of_a_detector(folder, capsys):
    before = sorted(folder.rglob('*'))
    assert main(['distill', *ARGUMENTS, '--dry-run']) == 0
    text = capsys.readouterr().out
    assert 'rkkd for a detector, ' in text
    assert 'detection_rkkd.py' in text
    assert 'all sampled RoIs of the student' in text
    for term in ('loss_rpn_cls: ', 'loss_kd: ', 'loss_rank: ', 'kd/tau: '):
        assert term in text
    assert sorted(folder.rglob('*')) == before


def test_dry_run_of_crosskd(folder, capsys):
    options = ['--method', 'crosskd', '--dry-run']
    assert main(['distill', *ARGUMENTS, *options]) == 0
    text = capsys.readouterr().out
    assert "matching: {'type': 'rois', 'cross_layer': 'shared_fcs.0'}" in text
    assert "from shared_fcs.0 on by the teacher's head" in text


def test_a_sigmoid_head_gets_the_settings_for_it(folder):
    text = "_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'"
    config = Config.fromstring(text, '.py')
    config.default_scope = 'mmdet'
    config.model.backbone.init_cfg = None
    plan = wrap(config, dict(model=config.model), 'teacher.pth', 'kd')
    assert plan.kind == 'dense detector'
    assert plan.config.model.losses.type == 'mmrkkd.BinaryKDLoss'
    assert 'matching' not in plan.config.model
    plan = wrap(config, dict(model=config.model), 'teacher.pth', 'crosskd')
    assert plan.config.model.matching == dict(type='grid', cross_layer='auto')
    plan.config.work_dir = 'out'
    assert "matching: {'type': 'grid', 'cross_layer'" in described(plan)
    with pytest.raises(ValueError, match="no method 'dkd' for a dense"):
        wrap(config, dict(model=config.model), 'teacher.pth', 'dkd')


@pytest.mark.slow
def test_a_detector_is_distilled_evaluated_and_left_plain(folder, capsys):
    assert main(['distill', *ARGUMENTS, '--work-dir', 'out']) == 0
    text = capsys.readouterr().out
    assert 'Student: out/student.pth (from iter_2.pth)' in text
    assert 'coco/bbox_mAP ' in text
    config = Config.fromfile('out/student.py')
    # Nothing but the drawn data set is ours.
    config.pop('train_dataloader')
    assert 'mmrkkd' not in str(config.model)
    weights = torch.load('out/student.pth', weights_only=True)
    with DefaultScope.overwrite_default_scope('mmdet'):
        MODELS.build(config.model).load_state_dict(weights['state_dict'])
    assert weights['meta']['dataset_meta']['classes'] == CLASSES


@pytest.mark.slow
def test_a_hook_draws_the_same_images_for_the_visualizer(folder):
    def weights(name, *hooks):
        # Both write their log into the folder of their experiment.
        distill(
            *('student.py', 'student.py', 'teacher.pth', 'kd'),
            work_dir=name,
            cfg_options=dict(custom_hooks=list(hooks), experiment_name=name),
        )
        return torch.load(f'{name}/student.pth', weights_only=True)

    hook = dict(type='mmrkkd.DrawDetectionsHook', images=2, threshold=0.0)
    # The second run's picture is in its own folder, not in the first's.
    plain, drawn = weights('plain'), weights('drawn', hook)
    (picture,) = Path('drawn').glob('*/vis_data/vis_image/*.png')
    assert picture.name == 'teacher_and_student_2.png'
    with Image.open(picture) as image:
        # Two rows; three columns, so wider than high.
        assert image.width > image.height > 500
    torch.testing.assert_close(
        drawn['state_dict'], plain['state_dict'], rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ('argument', 'value'),
    [('images', 0), ('interval', 1.5), ('threshold', 2)],
)
def test_the_drawing_hook_refuses(argument, value):
    with pytest.raises(ValueError, match=f'{argument} must be .* got {value}'):
        DrawDetectionsHook(**{argument: value})


@pytest.mark.slow
def test_a_random_detector_is_a_useless_teacher(capsys):
    arguments = ['student.py', 'teacher.pth', '--student', 'student.py']
    arguments += ['--images', '4', '--batches', '1']
    assert main(['check-teacher', *arguments]) == 1
    text = capsys.readouterr().out
    assert 'classes   24, the same names in the same order' in text
    assert 'Verdict: USELESS: coco/bbox_mAP is 0.' in text


@pytest.mark.slow
def test_an_installed_wheel_has_all_it_needs(folder, tmp_path):
    source = tmp_path / 'source'
    source.mkdir()
    for name in ['setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE']:
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns('__pycache__')
    for name in ['requirements', 'mmrkkd', 'configs', 'tools']:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    site = tmp_path / 'site'
    command = [sys.executable, '-m', 'pip', 'install', '--no-deps', '--quiet']
    command += ['--no-build-isolation', '--target', site, source]
    subprocess.run(command, check=True)
    shutil.rmtree(source)
    assert (site / 'bin' / 'mmrkkd').is_file()
    assert (site / 'mmrkkd' / 'report' / 'assets' / 'page.html').is_file()

    def run(*arguments):
        # The wheel's mmrkkd comes before that of the checkout.
        result = subprocess.run(
            [sys.executable, '-m', 'mmrkkd', *arguments],
            cwd=folder,
            env=dict(os.environ, PYTHONPATH=str(site)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    text = run('distill', *ARGUMENTS, '--dry-run')
    mim = site / 'mmrkkd' / '.mim'
    assert f'{mim}/configs/_base_/methods/detection_rkkd.py' in text
    assert 'loss_rank: ' in text
    for name in ('ablate', 'calibrate', 'train'):
        assert f'usage: mmrkkd {name} ' in run(name, '--help')


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_resumed_run_goes_on_counting_its_pictures(
    tmp_path, monkeypatch, by_epoch
):
    """MMEngine saves before it validates: nothing counted would be right."""
    monkeypatch.setattr(
        DrawDetectionsHook, '_picture', lambda self, runner: None
    )
    drawn = []
    monkeypatch.setattr(
        Visualizer,
        'add_image',
        lambda self, name, picture, step: drawn.append(step),
    )
    unit = 'epochs' if by_epoch else 'iters'
    for length in (3, 6):
        name = f'drawn_{by_epoch}_{length}'
        runner = Runner(
            model=Counted(),
            work_dir=str(tmp_path),
            train_dataloader=dict(dataset=range(1), sampler=SAMPLER),
            val_dataloader=dict(dataset=range(1), sampler=SAMPLER),
            val_cfg=dict(),
            val_evaluator=[Nothing()],
            train_cfg={
                'by_epoch': by_epoch,
                f'max_{unit}': length,
                'val_interval': 1,
            },
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook', interval=1, by_epoch=by_epoch
                )
            ),
            custom_hooks=[DrawDetectionsHook(interval=2)],
            visualizer=dict(type='Visualizer', name=name),
            experiment_name=name,
            resume=length == 6,
            cfg=Config(),
        )
        with safe_reader():
            runner.train()
    assert drawn == [2, 4, 6]


SAMPLER = dict(type='DefaultSampler', shuffle=False)


class Nothing(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {}


class Counted(BaseModel):
    """A number that is trained on numbers."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs, mode):
        return [0] if mode == 'predict' else dict(loss=self.weight**2)
