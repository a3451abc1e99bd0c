"""How well a student follows its teacher on held-out images."""

import copy
from collections.abc import Iterable

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader
from tqdm import tqdm

from mmrkkd.models import KDDetector
from mmrkkd.models.logits.two_stage import box_logits
from mmrkkd.models.telemetry import agreement


@torch.no_grad()
def teacher_agreement(
    model: KDDetector, dataloader: Iterable, progress: bool = True
) -> dict[str, float]:
    """Compares student and teacher on the ground-truth boxes of images.

    The boxes are the same for every student, so students of one teacher can
    be compared; the boxes that a student samples in training are its own. A
    cascade is compared by its last stage.

    Args:
        model: A distiller with the student's weights loaded.
        dataloader: Gives batches with annotations, whose boxes are in the
            frame of the network's input, as :func:`held_out_loader` makes
            them.
        progress: Show a progress bar. Defaults to True.

    Returns:
        ``tau`` (mean exact Kendall tau-b, in [-1, 1]), ``top1_agreement``
        (in [0, 1]), ``kl`` (mean KL(teacher || student) at temperature 1,
        nats), and ``boxes``, their number.

    Raises:
        ValueError: there is no box in the data.
    """
    was_training = model.training
    model.eval()
    students, teachers = [], []
    for batch in tqdm(dataloader, 'agreement', disable=not progress):
        batch = model.data_preprocessor(batch, False)
        inputs, samples = batch['inputs'], batch['data_samples']
        rois = _ground_truth_rois(samples, inputs.device)
        if not len(rois):
            continue
        students.append(_logits(model.student, inputs, rois))
        teachers.append(
            _logits(model.teacher.model, model.bridge(inputs, samples), rois)
        )
    model.train(was_training)
    if not students:
        raise ValueError('the data have no annotated box to compare on')
    values = agreement(
        torch.cat(students), torch.cat(teachers), every_row=True
    )
    result = {
        name.removeprefix('kd/'): float(value)
        for name, value in values.items()
    }
    return dict(result, boxes=sum(map(len, students)))


def held_out_loader(config: Config) -> DataLoader:
    """The test data of a config, with boxes in the frame of the input.

    A test pipeline resizes the image and leaves the annotations as they
    are; here they are loaded before it is resized.

    Args:
        config: A config with ``test_dataloader``.
    """
    config = copy.deepcopy(config.test_dataloader)
    dataset = config.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    loading = dict(type='LoadAnnotations', with_bbox=True)
    image, *others = (
        step
        for step in dataset.pipeline
        if not step['type'].endswith('LoadAnnotations')
    )
    dataset.pipeline = [image, loading, *others]
    return Runner.build_dataloader(config)


def _logits(
    model: torch.nn.Module, inputs: torch.Tensor, rois: torch.Tensor
) -> torch.Tensor:
    last = getattr(model.roi_head, 'num_stages', 1) - 1
    return box_logits(model, last, model.extract_feat(inputs), rois)


def _ground_truth_rois(samples: list, device: torch.device) -> torch.Tensor:
    rois = []
    for index, sample in enumerate(samples):
        boxes = sample.gt_instances.bboxes
        boxes = getattr(boxes, 'tensor', boxes).to(device).float()
        rois.append(
            torch.cat([boxes.new_full((len(boxes), 1), index), boxes], 1)
        )
    return torch.cat(rois)
