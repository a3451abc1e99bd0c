"""A pair from the drawn images to a plain student's scores.

Of dense detectors, and of one with queries.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import script_environment
from mmengine.config import Config
from mmengine.utils import get_installed_path

from mmrkkd.cli import move_data_root
from mmrkkd.datasets.demo_shapes import CLASSES, Recipe, make_demo_shapes

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'test_models'))

from small_dense_heads import dense_config  # noqa: E402
from small_query_heads import query_config  # noqa: E402

MMDET_TEST = f'{get_installed_path("mmdet")}/.mim/tools/test.py'
pytestmark = pytest.mark.slow


def detector(family):
    model = query_config('dino') if family == 'dino' else dense_config(family)
    model.bbox_head.num_classes = len(CLASSES)
    # Scores of a few steps are low; keep every box.
    model.test_cfg.score_thr = 0.0
    return model


@pytest.fixture(scope='module', params=['gfl', 'rtmdet', 'dino'])
def folder(request, tmp_path_factory):
    """Data, a teacher of two steps, and the config of a distillation."""
    folder = tmp_path_factory.mktemp(request.param)
    make_demo_shapes(folder / 'shapes', Recipe(train=24, val=24), False)
    config = Config.fromfile(ROOT / 'configs/demo/demo_shapes.py')
    config.model = detector(request.param)
    for part in ('train', 'val', 'test'):
        config[f'{part}_dataloader'].update(
            batch_size=2, num_workers=0, persistent_workers=False
        )
    config.param_scheduler = None
    config.default_hooks.checkpoint.update(interval=1, save_optimizer=True)
    config.default_hooks.logger.interval = 1
    move_data_root(config, config.data_root, f'{folder}/shapes')
    config.data_root = f'{folder}/shapes'
    # RTMDet and YOLOX train with an average of their weights.
    config.custom_hooks = [dict(type='EMAHook', momentum=0.5)]
    config.train_cfg.max_iters = 2
    config.dump(folder / 'plain.py')
    config.model = dict(
        type='mmrkkd.KDDetector',
        student=config.model,
        teacher=dict(
            config=f'{folder}/plain.py',
            checkpoint=f'{folder}/teacher/iter_2.pth',
        ),
        losses=dict(type='mmrkkd.RankKDLoss'),
        gradient_interval=1,
    )
    config.dump(folder / 'rkkd.py')
    run(folder, 'tools/train.py', 'plain.py', '--work-dir', 'teacher')
    return folder


def run(folder, script, *args):
    result = subprocess.run(
        [sys.executable, ROOT / script, *args],
        cwd=folder,
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


def test_train_resume_and_score_as_a_plain_student(folder):
    command = ('tools/train.py', 'rkkd.py', '--work-dir', 'kd')
    output = run(folder, *command)
    assert re.search(r'matched logits: (grid|queries), ', output)
    assert re.search(
        r'Labels of the (cells|queries): .* by l(evel|ayer)', output
    )
    assert re.search(r'loss_binary_kd: [\d.]+  loss_rank: -?[\d.]+', output)
    assert re.search(r'kd/grad_share_rank: 0?\.?\d', output)
    output = run(
        folder, *command, '--resume', '--cfg-options', 'train_cfg.max_iters=3'
    )
    assert re.search(r'[Rr]esumed? .*iter_2.pth', output)
    assert 'Iter(train) [3/3]' in output
    assert 'nan' not in output
    trained = average_precision(output)
    assert len(trained) == 6
    for script, config in (
        ('tools/test.py', 'plain.py'),
        ('tools/test.py', 'rkkd.py'),
        (MMDET_TEST, 'plain.py'),
    ):
        scored = run(
            folder, script, config, 'kd/iter_3.pth', '--work-dir', 'scored'
        )
        assert average_precision(scored) == trained
