"""Runs of tools/train.py that take a second: a small folder of images."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import torch
from conftest import load_tool
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from PIL import Image

ROOT = Path(__file__).parents[2]
NUMBERS = itertools.count()
CLASSES = 3
IMAGES = 8


def make_images(root):
    """Three classes of eight random images of 16 pixels."""
    generator = np.random.default_rng(0)
    for split in ('train', 'val'):
        for label in range(CLASSES):
            folder = root / split / f'class{label}'
            folder.mkdir(parents=True)
            for number in range(IMAGES):
                pixels = generator.integers(0, 256, (16, 16, 3), 'uint8')
                Image.fromarray(pixels).save(folder / f'{number}.png')
    return root


def classifier():
    """A ResNet-8 with dropout, so that training draws random numbers."""
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(
            mean=[128.0] * 3, std=[64.0] * 3, num_classes=CLASSES
        ),
        backbone=dict(type='mmrkkd.CIFARResNet', depth=8),
        neck=[
            dict(type='GlobalAveragePooling'),
            dict(
                type='LinearNeck',
                in_channels=64,
                out_channels=8,
                act_cfg=dict(type='Dropout', drop_prob=0.3),
                norm_cfg=None,
            ),
        ],
        head=dict(type='LinearClsHead', num_classes=CLASSES, in_channels=8),
    )


def save_teacher(path, seed=7):
    """A checkpoint of random weights that serves as a teacher."""
    init_default_scope('mmpretrain')
    torch.manual_seed(seed)
    model = MODELS.build(classifier())
    model.init_weights()
    DefaultScope._instance_dict.clear()
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def distilled(teacher):
    """Learns CTKD's temperature, and ranks with a weight that changes."""
    return dict(
        type='mmrkkd.KDClassifier',
        student=classifier(),
        teacher=dict(config=classifier(), checkpoint=str(teacher)),
        losses=[
            dict(
                type='mmrkkd.RankKDLoss',
                kd=dict(type='CTKDLoss', ramp=dict(type='cosine', end=4)),
                kd_weight=1.0,
                rank_weight=dict(
                    type='linear', start=0.2, end=10, by='iteration'
                ),
            )
        ],
    )


def _loader(root, split, shuffle, infinite=False):
    pipeline = [dict(type='LoadImageFromFile')]
    if split == 'train':
        pipeline += [
            dict(type='RandomCrop', crop_size=16, padding=2),
            dict(type='RandomFlip', prob=0.5),
        ]
    kind = 'InfiniteSampler' if infinite else 'DefaultSampler'
    return dict(
        batch_size=6,
        num_workers=0,
        sampler=dict(type=kind, shuffle=shuffle),
        dataset=dict(
            type='CustomDataset',
            data_root=f'{root}/{split}',
            pipeline=[*pipeline, dict(type='PackInputs')],
        ),
        collate_fn=dict(type='default_collate'),
    )


def run_config(root, model, by_epoch=True, length=3, **changes):
    """A whole config; four steps make an epoch.

    Args:
        root: Folder of :func:`make_images`.
        model: Config of the model.
        by_epoch: Whether epochs or iterations are counted.
        length: How many of them.
        changes: Merged into the config, dots in the keys.
    """
    config = Config(
        dict(
            default_scope='mmpretrain',
            model=model,
            train_dataloader=_loader(root, 'train', True, not by_epoch),
            val_dataloader=_loader(root, 'val', False),
            val_evaluator=dict(type='Accuracy'),
            val_cfg=dict(),
            train_cfg=dict(by_epoch=True, max_epochs=length),
            optim_wrapper=dict(
                optimizer=dict(
                    type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-3
                )
            ),
            param_scheduler=[
                dict(
                    type='OneCycleLR',
                    eta_max=0.02,
                    total_steps=99,
                    by_epoch=False,
                ),
            ],
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=1),
                logger=dict(type='LoggerHook', interval=1),
            ),
            randomness=dict(seed=3, deterministic=True),
            load_from=None,
            resume=False,
            test_dataloader=_loader(root, 'val', False),
            test_evaluator=dict(type='Accuracy'),
            test_cfg=dict(),
            visualizer=dict(
                type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]
            ),
        )
    )
    if not by_epoch:
        config.train_cfg = dict(
            by_epoch=False, max_iters=length, val_interval=2
        )
        config.default_hooks.checkpoint.update(by_epoch=False, interval=2)
        config.log_processor = dict(by_epoch=False)
    config.merge_from_dict(changes)
    return config


def write_config(folder, config):
    """Writes a config under names of its own; visualizers are global."""
    number = next(NUMBERS)
    config.experiment_name = f'{Path(folder).parent.name}_{number}'
    config.visualizer.name = config.experiment_name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'run{number}.py'
    config.dump(path)
    return path


def train(monkeypatch, work_dir, config, *options):
    """Runs tools/train.py in this process, as its command line does."""
    path = write_config(work_dir / 'configs', config)
    command = ['train.py', str(path), '--work-dir', str(work_dir), *options]
    monkeypatch.setattr(sys, 'argv', command)
    load_tool('train').main()


def evaluate(monkeypatch, work_dir, config, checkpoint):
    """Runs tools/test.py in this process."""
    path = write_config(work_dir / 'configs', config)
    command = ['test.py', str(path), str(checkpoint)]
    monkeypatch.setattr(sys, 'argv', [*command, '--work-dir', str(work_dir)])
    load_tool('test').main()


def logged(work_dir):
    """Every logged training step: iteration -> its numbers."""
    steps = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if 'loss' in entry:
                for key in ('time', 'data_time', 'memory'):
                    entry.pop(key, None)
                steps[entry['step']] = entry
    return steps


def same(left, right, path=''):
    """Asserts that two checkpoints' parts are equal bit for bit."""
    assert type(left) is type(right), path
    if isinstance(left, dict):
        assert list(left) == list(right), path
        for key in left:
            same(left[key], right[key], f'{path}.{key}')
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), path
        for number, (a, b) in enumerate(zip(left, right)):
            same(a, b, f'{path}.{number}')
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    elif isinstance(left, np.ndarray):
        assert np.array_equal(left, right, equal_nan=True), path
    elif hasattr(left, '_log_history'):
        same(left._log_history, right._log_history, path)
    else:
        assert left == right, path
