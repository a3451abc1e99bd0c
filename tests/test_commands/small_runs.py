"""Coloured images of three classes, and configs that train on them."""

import numpy as np
import torch
from conftest import classifier_config
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from mmrkkd.engine import prepare_run

CLASSES = ('cat', 'dog', 'fish')
COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))


def draw_images(folder):
    """Four images of each class and split, of its colour and noise."""
    random = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name, colour in zip(CLASSES, COLOURS):
            (folder / split / name).mkdir(parents=True)
            for number in range(4):
                noise = random.integers(-40, 40, (32, 32, 3))
                pixels = (noise + colour).clip(0, 255).astype(np.uint8)
                path = folder / split / name / f'{number}.png'
                Image.fromarray(pixels).save(path)


def student_config(folder, epochs=1):
    """A whole config of MMPretrain's that trains the student alone."""

    def loader(split):
        return dict(
            batch_size=4,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
            dataset=dict(
                type='mmrkkd.ImageFolder',
                data_root=str(folder),
                split=split,
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='PackInputs'),
                ],
            ),
        )

    evaluator = dict(type='Accuracy', topk=(1,))
    return Config(
        dict(
            default_scope='mmpretrain',
            data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3),
            model=classifier_config(len(CLASSES)),
            train_dataloader=loader('train'),
            val_dataloader=loader('val'),
            test_dataloader=loader('val'),
            val_evaluator=evaluator,
            test_evaluator=evaluator,
            train_cfg=dict(
                by_epoch=True, max_epochs=epochs, val_interval=1000
            ),
            val_cfg=dict(),
            test_cfg=dict(),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=0.05, momentum=0.9)
            ),
            randomness=dict(seed=0),
            log_level='WARNING',
        )
    )


def train_teacher(config, folder):
    """Trains until colours are told apart; returns its checkpoint."""
    config.work_dir, config.launcher = str(folder), 'none'
    config.experiment_name = folder.name
    with prepare_run(config) as runner:
        runner.train()
    return folder / f'epoch_{config.train_cfg.max_epochs}.pth'


def random_weights(model, path, scope='mmpretrain', classes=CLASSES):
    """A checkpoint of a model that has learnt nothing."""
    torch.manual_seed(1)
    with DefaultScope.overwrite_default_scope(scope):
        weights = MODELS.build(model).state_dict()
    meta = dict(dataset_meta=dict(classes=classes))
    torch.save(dict(meta=meta, state_dict=weights), path)
    return path
