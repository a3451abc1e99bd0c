"""The scripts as a user starts them, each in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import mmengine
import pytest
from conftest import detector_config, script_environment
from mmengine.config import Config
from mmengine.utils import get_installed_path

from mmrkkd.cli import move_data_root
from mmrkkd.datasets import check_data
from mmrkkd.datasets.demo_shapes import CLASSES, Recipe, make_demo_shapes

ROOT = Path(__file__).parents[2]
MMDET_TRAIN = f'{get_installed_path("mmdet")}/.mim/tools/train.py'
MMDET_TEST = f'{get_installed_path("mmdet")}/.mim/tools/test.py'
STEPS = 'train_cfg.max_iters=2'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Data, a teacher's and a distillation's config of a small detector."""
    folder = tmp_path_factory.mktemp('cli')
    make_demo_shapes(
        folder / 'shapes', Recipe(train=24, val=24), progress=False
    )
    config = Config.fromfile(ROOT / 'configs/demo/demo_shapes.py')
    config.model = detector_config(num_classes=len(CLASSES))
    config.model.test_cfg.rcnn.score_thr = 0.0
    for part in ('train', 'val', 'test'):
        config[f'{part}_dataloader'].update(
            batch_size=2, num_workers=0, persistent_workers=False
        )
    config.param_scheduler = None
    config.default_hooks.checkpoint.update(interval=1, save_optimizer=True)
    config.default_hooks.logger.interval = 1
    config.dump(folder / 'plain.py')
    student = config.model
    config.model = dict(
        type='mmrkkd.KDDetector',
        student=student,
        teacher=dict(
            config=str(folder / 'plain.py'),
            checkpoint=str(folder / 'teacher' / 'iter_2.pth'),
        ),
        losses=dict(type='mmrkkd.RankKDLoss', temperature=1.0),
    )
    config.dump(folder / 'rkkd.py')
    run(folder, 'tools/train.py', 'plain.py', '--work-dir', 'teacher', STEPS)
    return folder


def run(folder, script, *args, check=True):
    """Runs a script; arguments with '=' go to --cfg-options."""
    options = [arg for arg in args if '=' in arg]
    args = [arg for arg in args if '=' not in arg]
    root = f'data_root={folder}/shapes'
    if 'mmdet' in str(script):
        # MMDetection's own scripts do not move the data with one option.
        root = None
        moved = Config.fromfile(folder / args[0])
        move_data_root(moved, moved.data_root, f'{folder}/shapes')
        moved.dump(folder / f'moved_{args[0]}')
        args[0] = f'moved_{args[0]}'
    options = [*options, *([root] if root else [])]
    result = subprocess.run(
        [
            sys.executable,
            ROOT / script,
            *args,
            *(['--cfg-options', *options] if options else []),
        ],
        cwd=folder,
        env=script_environment(script),
        capture_output=True,
        text=True,
        check=False,
    )
    output = result.stdout + result.stderr
    if check:
        assert result.returncode == 0, output[-3000:]
    return output


def average_precision(output):
    return re.findall(r'Average Precision.*= (-?[\d.]+)', output)


@pytest.mark.slow
def test_train_resume_and_test(folder):
    output = run(
        folder, 'tools/train.py', 'rkkd.py', '--work-dir', 'kd', STEPS
    )
    assert 'Distillation settings' in output
    assert output.count('Distillation settings') == 1
    assert re.search(r'loss_kd: [\d.]+  loss_rank: -?[\d.]+', output)
    output = run(
        folder,
        'tools/train.py',
        'rkkd.py',
        '--work-dir',
        'kd',
        '--resume',
        'train_cfg.max_iters=3',
    )
    assert re.search(r'[Rr]esumed? .*iter_2.pth', output)
    assert 'Iter(train) [3/3]' in output
    trained = average_precision(output)
    assert len(trained) == 6
    # The same checkpoint as a plain student, by our script and by
    # MMDetection's, and through the distillation's config.
    for script, config in (
        ('tools/test.py', 'plain.py'),
        ('tools/test.py', 'rkkd.py'),
        (MMDET_TEST, 'plain.py'),
    ):
        scored = run(
            folder, script, config, 'kd/iter_3.pth', '--work-dir', 'scored'
        )
        assert average_precision(scored) == trained
        assert 'Distillation settings' not in scored


@pytest.mark.slow
def test_mmdetections_own_train_script(folder):
    output = run(folder, MMDET_TRAIN, 'rkkd.py', '--work-dir', 'stock', STEPS)
    assert 'Distillation settings' in output
    assert (folder / 'stock' / 'iter_2.pth').is_file()


@pytest.mark.slow
def test_predictions_are_saved_and_drawn(folder):
    run(
        folder,
        'tools/test.py',
        'rkkd.py',
        'teacher/iter_2.pth',
        '--work-dir',
        'out',
        '--out',
        'out.pkl',
        '--show-dir',
        'drawn',
        'test_dataloader.dataset.indices=2',
        'test_dataloader.batch_size=1',
    )
    predictions = mmengine.load(folder / 'out.pkl')
    assert len(predictions) == 2
    assert all(len(image['pred_instances']['scores']) for image in predictions)
    assert len(list((folder / 'out').rglob('drawn/*.png'))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    'script,args,message',
    [
        ('tools/train.py', ['gone.py'], "config 'gone.py' does not exist"),
        (
            'tools/train.py',
            ['rkkd.py', 'model.teacher.checkpoint=gone.pth'],
            "checkpoint 'gone.pth' does not exist",
        ),
        (
            'tools/test.py',
            ['rkkd.py', 'x.pth', '--out', 'x.txt'],
            '--out must end in .pkl',
        ),
    ],
)
def test_errors(folder, script, args, message):
    assert message in run(folder, script, *args, check=False)


def test_data_root_moves_every_path():
    config = Config.fromfile(ROOT / 'configs/rkkd_fasterrcnn_r50_mv2_coco.py')
    move_data_root(config, config.data_root, '/x/coco')
    assert config.train_dataloader.dataset.data_root == '/x/coco/'
    assert config.val_dataloader.dataset.data_root == '/x/coco/'
    expected = '/x/coco/annotations/instances_val2017.json'
    assert config.val_evaluator.ann_file == expected
    assert config.test_evaluator.ann_file == expected


def test_missing_data_say_where_they_were_expected():
    config = Config.fromfile(ROOT / 'configs/rkkd_fasterrcnn_r50_mv2_coco.py')
    move_data_root(config, config.data_root, '/x/coco')
    with pytest.raises(
        FileNotFoundError,
        match=r'(?s)train_dataloader: no annotation file /x/coco/annotations'
        r"/instances_train2017.json.*data_root='/x/coco/'.*--cfg-options",
    ):
        check_data(config)


@pytest.mark.parametrize('name', ['cifar100', 'tiny_imagenet', 'imagenet'])
def test_missing_folders_say_where_they_were_expected(name, tmp_path):
    config = Config.fromfile(ROOT / f'configs/_base_/datasets/{name}.py')
    move_data_root(config, config.data_root, str(tmp_path / 'none'))
    with pytest.raises(
        FileNotFoundError,
        match=rf'train_dataloader: no folder {tmp_path}/none/?\. .*--cfg-opt'
        '.*To get them: .*http',
    ):
        check_data(config)
    move_data_root(config, str(tmp_path / 'none'), str(tmp_path))
    check_data(config)


def test_data_that_will_be_downloaded_are_not_missing():
    config = Config.fromfile(ROOT / 'configs/_base_/datasets/cifar100.py')
    config.train_dataloader.dataset.download = True
    check_data(config)


@pytest.mark.parametrize(
    'script', sorted(path.name for path in (ROOT / 'tools').glob('*.sh'))
)
def test_shell_scripts_say_how_they_are_used(script):
    result = subprocess.run(
        ['bash', ROOT / 'tools' / script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert script in result.stderr
