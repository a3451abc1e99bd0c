"""Images to show, and what detectors find on them."""

import copy
from collections.abc import Sequence

import numpy as np
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DATASETS, init_default_scope

from .detections import Detections

LEAST_OBJECTS = 3


def pick_images(
    config: Config, count: int
) -> tuple[list[str], list[Detections], Sequence[str]]:
    """The first held-out images with at least ``LEAST_OBJECTS`` objects.

    Args:
        config: A config with ``test_dataloader``.
        count: How many; there may be fewer.

    Returns:
        The files, the ground truth of each, and the names of the classes.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    dataset = DATASETS.build(copy.deepcopy(config.test_dataloader.dataset))
    files, truths = [], []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        objects = info['instances']
        if len(objects) >= LEAST_OBJECTS and len(files) < count:
            files.append(info['img_path'])
            truths.append(
                Detections(
                    np.array([entry['bbox'] for entry in objects]),
                    np.array([entry['bbox_label'] for entry in objects]),
                )
            )
    return files, truths, dataset.metainfo['classes']


def detect(
    config: Config, checkpoint: str, files: Sequence[str]
) -> list[Detections]:
    """What a plain detector, or a distilled student, finds on images.

    Args:
        config: A whole config, of a detector or of a distillation.
        checkpoint: The detector's, or the student's.
        files: Images.
    """
    config = copy.deepcopy(config)
    config.model = config.model.get('student', config.model)
    model = init_detector(
        config, checkpoint, palette='random', device=get_device()
    )
    results = [
        sample.pred_instances.numpy()
        for sample in inference_detector(model, list(files))
    ]
    return [
        Detections(found.bboxes, found.labels, found.scores)
        for found in results
    ]
