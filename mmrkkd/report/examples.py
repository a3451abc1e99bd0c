"""What the finished students say: agreement with the teacher, detections."""

import copy

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS, init_default_scope

from mmrkkd.checkpoint.fetch import read_checkpoint
from mmrkkd.evaluation import held_out_loader, teacher_agreement
from mmrkkd.registry import MODELS
from mmrkkd.report import Detections

LEAST_OBJECTS = 3


def read_config(folder):
    """The config that a stage was trained with, as it was dumped there."""
    path = next(folder.glob('*.py'))
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    return config


def build(model, checkpoint=None):
    """A model on the device of this machine, its weights loaded strictly."""
    model = MODELS.build(copy.deepcopy(model)).to(get_device()).eval()
    if checkpoint is not None:
        state = read_checkpoint(checkpoint)['state_dict']
        model.load_state_dict(state, strict=True)
    return model


def agreement_of(distilled, checkpoint):
    """Tau, top-1 agreement and KL to the teacher on the held-out boxes.

    Args:
        distilled: Folder of any distilled run: names teacher and data.
        checkpoint: The student's, with or without distillation.
    """
    config = read_config(distilled)
    return teacher_agreement(
        build(config.model, checkpoint),
        held_out_loader(config),
        progress=False,
    )


def pick_images(config, count):
    """The first held-out images with at least ``LEAST_OBJECTS`` objects.

    Args:
        config: A config with ``test_dataloader``.
        count: How many; there may be fewer.

    Returns:
        tuple: The packed samples, the images (uint8 H x W x 3, RGB) and
            the ground truth as ``Detections``.
    """
    dataset = DATASETS.build(copy.deepcopy(config.test_dataloader.dataset))
    samples, images, truths = [], [], []
    for index in range(len(dataset)):
        entries = dataset.get_data_info(index)['instances']
        if len(entries) < LEAST_OBJECTS or len(samples) == count:
            continue
        sample = dataset[index]
        samples.append(sample)
        images.append(
            sample['inputs'].permute(1, 2, 0).flip(2).contiguous().numpy()
        )
        truths.append(
            Detections(
                np.array([entry['bbox'] for entry in entries]),
                np.array([entry['bbox_label'] for entry in entries]),
            )
        )
    return samples, images, truths, dataset.metainfo['classes']


@torch.no_grad()
def detect(model, samples):
    """Detections of a plain detector on packed samples."""
    found = []
    for sample in samples:
        batch = pseudo_collate([copy.deepcopy(sample)])
        result = model.test_step(batch)[0].pred_instances.cpu()
        found.append(
            Detections(
                result.bboxes.numpy(),
                result.labels.numpy(),
                result.scores.numpy(),
            )
        )
    return found
