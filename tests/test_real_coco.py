"""The main config on real COCO images, changed by --cfg-options alone.

They lie in $MMRKKD_DATA/tiny_coco, in COCO's layout (annotations, train2017,
val2017); without that variable the test is skipped.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import script_environment
from mmengine.utils import get_installed_path

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get('MMRKKD_DATA', ''), 'tiny_coco').absolute()
MAIN = 'configs/rkkd_fasterrcnn_r50_mv2_coco.py'
STUDENT = 'configs/detection/faster_rcnn/faster-rcnn_mv2_fpn_180k_coco.py'
MMDET = f'{get_installed_path("mmdet")}/.mim'
TEACHER = f'{MMDET}/configs/faster_rcnn/faster-rcnn_r50_fpn_ms-3x_coco.py'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        'MMRKKD_DATA' not in os.environ,
        reason='the environment variable MMRKKD_DATA names no folder of data',
    ),
]


def options(model, train_pipeline):
    """Smaller images, fewer boxes, few steps; nothing else is changed."""
    prefix = f'{model}.' if model else ''
    loaders = [
        f'{part}_dataloader.{setting}'
        for part in ('train', 'val', 'test')
        for setting in ('num_workers=0', 'persistent_workers=False')
    ]
    return [
        f'data_root={DATA}',
        train_pipeline,
        'train_dataloader.batch_size=2',
        'val_dataloader.dataset.pipeline.1.scale=(160,160)',
        'test_dataloader.dataset.pipeline.1.scale=(160,160)',
        'val_dataloader.dataset.indices=10',
        'test_dataloader.dataset.indices=10',
        f'model.{prefix}train_cfg.rcnn.sampler.num=64',
        f'model.{prefix}test_cfg.rpn.max_per_img=50',
        # Scores of a few steps are low; keep every box.
        f'model.{prefix}test_cfg.rcnn.score_thr=0.0',
        'default_hooks.logger.interval=1',
        *loaders,
    ]


def run(cwd, script, *args):
    result = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, args)],
        cwd=cwd,
        env=script_environment(script),
        capture_output=True,
        text=True,
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-3000:]
    return output


def average_precision(output):
    return re.findall(r'Average Precision.*= (-?[\d.]+)', output)


def test_main_config_trains_resumes_and_scores_as_a_plain_student(tmp_path):
    # A teacher fitted to these images first, with MMDetection's own config.
    run(
        tmp_path,
        'tools/train.py',
        TEACHER,
        '--work-dir',
        'teacher',
        '--cfg-options',
        *options(
            '',
            'train_dataloader.dataset.dataset.pipeline.2.scale='
            '[(160,160),(160,160)]',
        ),
        'model.backbone.init_cfg=None',
        'train_dataloader.dataset.times=1',
        'train_dataloader.dataset.dataset.indices=8',
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=2',
    )
    settings = [
        *options(
            'student', 'train_dataloader.dataset.pipeline.2.scales=[(160,160)]'
        ),
        'model.student.backbone.init_cfg=None',
        f'model.teacher.checkpoint={tmp_path}/teacher/epoch_1.pth',
        'default_hooks.checkpoint.interval=2',
    ]
    command = ['tools/train.py', ROOT / MAIN, '--work-dir', 'kd']
    run(
        tmp_path, *command, '--cfg-options', *settings, 'train_cfg.max_iters=2'
    )
    output = run(
        tmp_path,
        *command,
        '--resume',
        '--cfg-options',
        *settings,
        'train_cfg.max_iters=4',
    )
    assert 'iter_2.pth' in output
    assert re.search(r'loss_kd: [\d.]+  loss_rank: -?[\d.]+', output)
    assert 'nan' not in output
    trained = average_precision(output)
    assert len(trained) == 6
    # MMDetection's own script, the student's config, no trace of us.
    config = tmp_path / 'student.py'
    config.write_text(f'_base_ = {str(ROOT / STUDENT)!r}\n')
    plain = [
        setting.replace('model.student.', 'model.')
        for setting in settings
        if 'teacher' not in setting and 'data_root' not in setting
    ]
    val = f'{DATA}/annotations/instances_val2017.json'
    scored = run(
        tmp_path,
        f'{MMDET}/tools/test.py',
        config,
        'kd/iter_4.pth',
        '--cfg-options',
        *plain,
        f'test_dataloader.dataset.data_root={DATA}/',
        f'test_evaluator.ann_file={val}',
    )
    assert average_precision(scored) == trained
