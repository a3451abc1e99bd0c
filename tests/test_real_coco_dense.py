"""A dense config on real COCO images, changed by --cfg-options alone.

See test_real_coco.py for where they lie.
"""

import re
from pathlib import Path

from mmengine.utils import get_installed_path
from test_real_coco import DATA, ROOT, average_precision, pytestmark, run

__all__ = ['pytestmark']
MMDET = f'{get_installed_path("mmdet")}/.mim'
FOLDER = ROOT / 'configs' / 'detection' / 'gfl'
TEACHER = f'{MMDET}/configs/gfl/gfl_r50_fpn_ms-2x_coco.py'
STUDENT = FOLDER / 'gfl_mv2_fpn_1x_coco.py'


def options(model, steps):
    """Smaller images and few of them, in two steps an epoch."""
    prefix = f'model.{model}' if model else 'model'
    loaders = [
        f'{part}_dataloader.{setting}'
        for part in ('train', 'val', 'test')
        for setting in ('num_workers=0', 'persistent_workers=False')
    ]
    return [
        f'data_root={DATA}/',
        'train_dataloader.batch_size=2',
        f'train_dataloader.dataset.indices={2 * steps}',
        'val_dataloader.dataset.pipeline.1.scale=(160,160)',
        'test_dataloader.dataset.pipeline.1.scale=(160,160)',
        'val_dataloader.dataset.indices=10',
        'test_dataloader.dataset.indices=10',
        # Scores of a few steps are low; keep every box.
        f'{prefix}.test_cfg.score_thr=0.0',
        f'{prefix}.backbone.init_cfg=None',
        'default_hooks.logger.interval=1',
        *loaders,
    ]


def test_trains_and_scores_as_a_plain_student(tmp_path):
    run(
        tmp_path,
        'tools/train.py',
        TEACHER,
        '--work-dir',
        'teacher',
        '--cfg-options',
        *options('', 2),
        'train_dataloader.dataset.pipeline.2.scale=[(160,160),(160,160)]',
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=2',
    )
    output = run(
        tmp_path,
        'tools/train.py',
        FOLDER / 'rkkd_gfl_r50-mv2_fpn_1x_coco.py',
        '--work-dir',
        'kd',
        '--cfg-options',
        *options('student', 3),
        'train_dataloader.dataset.pipeline.2.scale=(160,160)',
        f'model.teacher.checkpoint={tmp_path}/teacher/epoch_1.pth',
        'train_cfg.max_epochs=1',
    )
    assert re.search(r'loss_binary_kd: [\d.]+  loss_rank: -?[\d.]+', output)
    assert 'nan' not in output
    trained = average_precision(output)
    assert len(trained) == 6
    scored = run(
        tmp_path,
        Path(MMDET) / 'tools' / 'test.py',
        STUDENT,
        'kd/epoch_1.pth',
        '--work-dir',
        'scored',
        '--cfg-options',
        *[
            option
            for option in options('', 3)
            if not option.startswith('data_root')
        ],
        f'test_dataloader.dataset.data_root={DATA}/',
        f'test_evaluator.ann_file={DATA}/annotations/instances_val2017.json',
    )
    assert average_precision(scored) == trained
