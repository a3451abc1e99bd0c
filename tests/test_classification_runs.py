"""Real runs of image classifiers, each script in a process of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from conftest import script_environment
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmengine.utils import get_installed_path

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs' / 'classification' / 'image_folder'
STOCK_TRAIN = f'{get_installed_path("mmpretrain")}/.mim/tools/train.py'
CLASSES = ('circle', 'cross', 'square')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A small image folder, and the checkpoint of a teacher for it."""
    folder = tmp_path_factory.mktemp('classification')
    generator = np.random.default_rng(0)
    for split, count in (('train', 8), ('val', 4)):
        for label, name in enumerate(CLASSES):
            for index in range(count):
                # Colour tells the class, so that something can be learnt.
                image = generator.integers(0, 60, (32, 32, 3), dtype=np.uint8)
                image[..., label] += 180
                path = folder / 'images' / split / name / f'{index}.png'
                mmcv.imwrite(image, str(path))
    run(folder, 'resnet20_1xb64-40e', '--work-dir', 'teacher')
    return folder


def settings(folder):
    return [
        f'data_root={folder}/images',
        'train_cfg.max_epochs=2',
        'train_dataloader.batch_size=6',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
        'default_hooks.logger.interval=1',
    ]


def run(folder, name, *args, script='tools/train.py', options=()):
    config = str(CONFIGS / f'{name}_image-folder.py')
    if script == STOCK_TRAIN:
        # It does not move the data with one option: the paths are written
        # into a config.
        config = dumped(folder, config)
        options = list(options)
    else:
        options = [*settings(folder), *options]
    result = subprocess.run(
        [
            sys.executable,
            ROOT / script,
            config,
            *args,
            *(['--cfg-options', *options] if options else []),
        ],
        cwd=folder,
        env=script_environment(script, NUM_CLASSES='3'),
        capture_output=True,
        text=True,
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-3000:]
    return output


def dumped(folder, config):
    """A config with all settings written into it; its path."""
    code = (
        'import sys, argparse\n'
        'from mmrkkd.cli import add_config_options, read_config\n'
        'parser = argparse.ArgumentParser()\n'
        'add_config_options(parser)\n'
        "read_config(parser.parse_args()).dump('stock.py')\n"
    )
    subprocess.run(
        [
            sys.executable,
            '-c',
            code,
            config,
            '--cfg-options',
            *settings(folder),
            *teacher(folder),
        ],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(ROOT), NUM_CLASSES='3'),
        check=True,
    )
    return str(folder / 'stock.py')


def teacher(folder):
    return [f'model.teacher.checkpoint={folder}/teacher/epoch_2.pth']


def accuracy(output):
    return re.findall(r'accuracy/top1: ([\d.]+)', output)[-1]


@pytest.mark.parametrize(
    'path', sorted(CONFIGS.glob('[!_]*.py')), ids=lambda path: path.stem
)
def test_every_config_builds_for_any_number_of_classes(path, monkeypatch):
    monkeypatch.setenv('NUM_CLASSES', '7')
    config = Config.fromfile(path)
    model = config.model
    init_default_scope('mmpretrain')
    if 'teacher' in model:
        # It is there once its own config has been run.
        expected = Path(model.teacher.checkpoint)
        assert expected.parent.name == Path(model.teacher.config).stem
        teacher_config = Config.fromfile(model.teacher.config)
        assert (
            expected.name == f'epoch_{teacher_config.train_cfg.max_epochs}.pth'
        )
        model.teacher.update(checkpoint=None, allow_random_weights=True)
    model.data_preprocessor = config.data_preprocessor
    model = MODELS.build(model)
    logits = model(torch.rand(2, 3, 32, 32), mode='tensor')
    DefaultScope._instance_dict.clear()
    assert logits.shape == (2, 7)


@pytest.mark.slow
def test_train_and_test_of_a_distilled_student(folder):
    output = run(
        folder,
        'rkkd_resnet20-resnet8_1xb64-20e',
        '--work-dir',
        'rkkd',
        options=teacher(folder),
    )
    assert output.count('Distillation settings') == 1
    assert 'classes: same, 3 channels' in output
    assert re.search(r'loss_task: [\d.]+  loss_kd: [\d.]+  loss_rank', output)
    assert 'kd/grad_share_rank' in output
    log = next((folder / 'rkkd').glob('*/vis_data/scalars.json'))
    first = json.loads(log.read_text().splitlines()[0])
    assert first['loss'] == pytest.approx(
        sum(value for key, value in first.items() if 'loss_' in key), rel=1e-5
    )
    # The student's own config scores the checkpoint as the training did.
    for name in ('resnet8_1xb64-20e', 'rkkd_resnet20-resnet8_1xb64-20e'):
        scored = run(
            folder,
            name,
            'rkkd/epoch_2.pth',
            '--work-dir',
            'scored',
            script='tools/test.py',
        )
        assert accuracy(scored) == accuracy(output)
        assert 'Distillation settings' not in scored


@pytest.mark.slow
def test_the_checkpoint_is_a_plain_students(folder):
    if not (folder / 'rkkd' / 'epoch_2.pth').is_file():
        pytest.skip('the run that writes it did not pass')
    os.environ['NUM_CLASSES'] = '3'
    config = Config.fromfile(
        CONFIGS / 'resnet8_1xb64-20e_image-folder.py'
    ).model
    del os.environ['NUM_CLASSES']
    init_default_scope('mmpretrain')
    model = MODELS.build(config)
    DefaultScope._instance_dict.clear()
    saved = torch.load(folder / 'rkkd' / 'epoch_2.pth', weights_only=False)
    model.load_state_dict(saved['state_dict'], strict=True)
    assert tuple(saved['meta']['dataset_meta']['classes']) == CLASSES


@pytest.mark.slow
def test_mmpretrains_own_train_script(folder):
    output = run(
        folder,
        'rkkd_resnet20-resnet8_1xb64-20e',
        '--work-dir',
        'stock',
        script=STOCK_TRAIN,
    )
    assert 'Distillation settings' in output
    assert (folder / 'stock' / 'epoch_2.pth').is_file()


@pytest.mark.slow
def test_a_learned_temperature_is_saved_and_resumed(folder):
    (folder / 'ctkd_image-folder.py').write_text(
        f"_base_ = '{CONFIGS}/kd_resnet20-resnet8_1xb64-20e_image-folder.py'\n"
        "model = dict(losses=dict(_delete_=True, type='mmrkkd.CTKDLoss'))\n"
    )

    def train(*args, epochs=2):
        return run(
            folder,
            f'{folder}/ctkd',
            '--work-dir',
            'ctkd',
            *args,
            options=[*teacher(folder), f'train_cfg.max_epochs={epochs}'],
        )

    output = train()
    learned = re.findall(r'kd/temperature: ([\d.]+)', output)
    assert len(set(learned)) > 1
    state = torch.load(folder / 'ctkd' / 'epoch_2.pth', weights_only=False)
    kept = state['distiller']
    assert not any('distiller' in key for key in state['state_dict'])
    output = train('--resume', epochs=3)
    resumed = re.findall(r'kd/temperature: ([\d.]+)', output)
    # The first value logged is from before the first step.
    theta = kept['0.theta'].double()
    expected = 1 + 20 * torch.sigmoid(theta).item()
    assert float(resumed[0]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_agreement_with_the_teacher(folder):
    output = run(
        folder,
        'rkkd_resnet20-resnet8_1xb64-20e',
        str(folder / 'teacher' / 'epoch_2.pth'),
        script='tools/analysis_tools/teacher_agreement.py',
        options=[
            *teacher(folder),
            # The teacher as its own student agrees with itself.
            'model.student.backbone.depth=20',
        ],
    )
    (line,) = re.findall(r'^\{.*\}$', output, re.MULTILINE)
    values = json.loads(line)
    assert values['images'] == 12
    assert values['tau'] == pytest.approx(1.0)
    assert values['top1_agreement'] == 1.0
    assert values['kl'] == pytest.approx(0.0, abs=1e-6)
