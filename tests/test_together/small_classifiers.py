"""Small distilled classifiers and the runs that train them."""

import copy

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Dataset

CLASSES = ('cat', 'dog', 'bird', 'fish', 'frog')
RKKD = dict(
    type='mmrkkd.RankKDLoss', temperature=4.0, kd_weight=0.9, rank_weight=0.9
)


def classifier(**backbone):
    """MMPretrain's ResNet-18 for small images, from 8 channels on."""
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(
            mean=[120.0] * 3, std=[60.0] * 3, num_classes=len(CLASSES)
        ),
        backbone=dict(
            dict(
                type='ResNet_CIFAR',
                depth=18,
                stem_channels=8,
                base_channels=8,
                out_indices=(3,),
            ),
            **backbone,
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=len(CLASSES),
            in_channels=64,
            loss=dict(type='CrossEntropyLoss'),
        ),
    )


def distilled(losses=RKKD, student=None, **changes):
    """The config of a classifier with a teacher of random weights."""
    return dict(
        type='mmrkkd.KDClassifier',
        student=student or classifier(),
        teacher=dict(
            config=classifier(), allow_random_weights=True, classes=CLASSES
        ),
        losses=copy.deepcopy(losses),
        class_names=CLASSES,
        **changes,
    )


class Images(Dataset):
    """Sixteen images of noise; every fifth has the same class."""

    metainfo = dict(classes=CLASSES)

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(
            256, (16, 3, 32, 32), dtype=torch.uint8, generator=generator
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        from mmpretrain.structures import DataSample

        return dict(
            inputs=self.images[index],
            data_samples=DataSample().set_gt_label(index % len(CLASSES)),
        )


def batch(start=0, stop=8):
    """What a data loader gives of :class:`Images`."""
    items = [Images()[index] for index in range(start, stop)]
    return dict(
        inputs=torch.stack([item['inputs'] for item in items]),
        data_samples=[item['data_samples'] for item in items],
    )


class Recorder(Hook):
    """Keeps what every training step logged."""

    def __init__(self):
        self.steps = []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.steps.append({k: float(v) for k, v in outputs.items()})


def make_runner(model, work_dir, steps=3, batch_size=8, **changes):
    """A runner of ``steps`` steps that saves after the last."""
    recorder = Recorder()
    config = dict(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Images(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=batch_size,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=steps),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05)),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', interval=steps, by_epoch=False
            )
        ),
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        log_level='WARNING',
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}',
    )
    runner = Runner(**{**config, **changes})
    runner.register_hook(recorder)
    runner.recorder = recorder
    return runner


def assert_same_terms(steps, expected, rtol):
    """Of what two runs have logged, step by step; in float32's range of 1."""
    assert len(steps) == len(expected)
    for ours, theirs in zip(steps, expected):
        assert set(ours) == set(theirs)
        assert ours == pytest.approx(theirs, rel=rtol, abs=rtol)


def trained_beside_ema(content):
    """Where a checkpoint has an average, it keeps the weights beside it."""
    return {
        key.removeprefix('module.'): value
        for key, value in content['ema_state_dict'].items()
        if key != 'steps'
    }


def train(*args, **changes):
    """Runs; returns what was logged, and the checkpoint."""
    runner = make_runner(*args, **changes)
    runner.train()
    path = f'{runner.work_dir}/iter_{runner.max_iters}.pth'
    saved = torch.load(path, weights_only=False)
    return runner, runner.recorder.steps, saved
